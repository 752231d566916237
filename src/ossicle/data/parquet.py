"""Rows of Hugging Face files: parquet, or the arrow files of `save_to_disk`; recordings inside are unpacked once.

    {"audio": {"bytes", "path"}, "question", "answer"} ──► {"audio": "FOLDER/train-000001.wav", "question", "answer"}

Numbers of class columns become their names. Source: the documentation of `datasets`; names of files are ours.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ossicle.errors import require

SUFFIXES = (".parquet", ".arrow")


def read(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file, class numbers as their names.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    if path.suffix == ".parquet":
        file = require("pyarrow.parquet", "data").ParquetFile(path)
        batches, schema = file.iter_batches(batch_size=64), file.schema_arrow
    else:
        batches = require("pyarrow.ipc", "data").open_stream(path.open("rb"))
        schema = batches.schema
    classes = _class_names(schema)
    for batch in batches:
        for row in batch.to_pylist():
            yield {key: _named(value, classes.get(key)) for key, value in row.items()}


def _named(value: Any, names: list[str] | None) -> Any:
    known = names is not None and isinstance(value, int) and 0 <= value < len(names)
    return names[value] if known and names is not None else value


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return the names of class columns, which files written by `datasets` keep in their metadata."""
    try:
        info = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {
        name: feature["names"] for name, feature in info.items() if isinstance(feature, dict) and "names" in feature
    }


def recording(audio: Any, folder: Path, name: str, beside: Path) -> Path | None:
    """Return the file of an audio column's value: unpacked under a name, or found beside the table; None for none.

    Args:
        audio: `{"bytes", "path"}` as `datasets` writes it.
        folder: Where it is unpacked.
        name: Without its suffix.
        beside: Where a path without bytes is looked for.
    """
    held = audio if isinstance(audio, dict) else {}
    named = Path(str(held.get("path") or ".wav"))
    if held.get("bytes"):
        return unpack(folder / f"{name}{named.suffix or '.wav'}", held["bytes"])
    place = beside / named
    return place.resolve() if place.is_file() else None


def unpack(path: Path, data: bytes) -> Path:
    """Write a recording, whole, where it is not there yet, and return its path."""
    if not path.is_file() or path.stat().st_size != len(data) or path.read_bytes() != data:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".writing")
        try:
            temporary.write_bytes(data)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return path
