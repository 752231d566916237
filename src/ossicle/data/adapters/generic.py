"""Recordings of one's own: class folders, a table with a `path` column, or sets with a `manifest.jsonl`.

    ROOT/<label>/**/*.wav        TABLE.csv, TABLE.jsonl: path and any field of a clip        ROOT/<set>/manifest.jsonl

Source: our choice.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from ossicle.audio.io import is_audio_path
from ossicle.data.adapters.table import Layout, Table, table_rows
from ossicle.data.clip import Clip
from ossicle.data.manifest import MANIFEST, clip_of, read_set, sets
from ossicle.data.rows import Tally
from ossicle.errors import DataError

TABLES = (MANIFEST, "metadata.jsonl", "metadata.csv", "manifest.csv")
PATH_COLUMNS = ("path", "file_name", "filename", "audio", "audio_filepath", "file")
FILES = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".tar": "webdataset", ".parquet": "hf",
    ".arrow": "hf",
}  # fmt: skip
ALIASES = {"text": "transcript", "sentence": "transcript", "transcription": "transcript", "speaker_id": "speaker"}
"""What other tools call fields of a clip."""
NUMBERS = ("start_s", "duration_s")


def guess(root: Path) -> str:
    """Return which generic layout a place has.

    Raises:
        DataError: None of them.
    """
    if root.is_file():
        if root.name.endswith((".jsonl.gz", ".cuts.jsonl")) or (root.suffix == ".jsonl" and _holds_cuts(root)):
            return "lhotse"
        if root.suffix in FILES:
            return FILES[root.suffix]
        raise DataError(f"{root}: neither a table nor a folder; name its layout with --adapter")
    if (root / MANIFEST).is_file() or sets(root):
        return "manifest"
    if any((root / name).is_file() for name in TABLES):
        return "csv"
    if any(root.glob("*.tar")):
        return "webdataset"
    if not root.exists():
        raise DataError(f"{root}: no such file or folder")
    of_datasets = ("*.parquet", "*/*.parquet", "*.arrow", "*/*.arrow", "*/metadata.csv", "*/metadata.jsonl")
    return "hf" if any(any(root.glob(pattern)) for pattern in of_datasets) else "folders"


def _holds_cuts(path: Path) -> bool:
    """Return whether the first line of a file is a cut: it holds a recording, or a span and supervisions."""
    with path.open("rb") as file:
        try:
            first = json.loads(file.readline())
        except ValueError:
            return False
    return isinstance(first, dict) and "id" in first and ("recording" in first or "supervisions" in first)


def folders(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield one clip per sound file; its first folder is its label."""
    for path in sorted(root.rglob("*")):
        if not is_audio_path(path.name) or not path.is_file():
            continue
        tally.taken += 1
        parts = path.relative_to(root).parts
        if len(parts) < 2:
            tally.skip("lies in no folder that names its label", parts[-1])
            continue
        yield Clip(path=path, source=root.name, labels=(parts[0].replace("_", " "),))
    if not tally.taken:
        raise DataError(f"{root}: no recordings; expected one folder per label with sound files")


def table_file(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield one clip per row of a table that has a column for the path."""
    table = root if root.is_file() else next(root / name for name in TABLES if (root / name).is_file())
    delimiter = "\t" if table.suffix == ".tsv" else ","
    for number, row in enumerate(table_rows(table, Table(file=table.name, delimiter=delimiter)), 1):
        tally.taken += 1
        del row["table"]
        column = next((name for name in PATH_COLUMNS if name in row), None)
        if column is None:
            raise DataError(
                f"{table}: no column with the path; found: {', '.join(map(str, row))}; expected 'path' and any of "
                "label, labels, caption, transcript, speaker, gender, age, emotion, language, group, start_s"
            )
        path = str(row.pop(column) or "")
        if not (table.parent / path).is_file():
            tally.skip("no recording", f"{table.name}:{number} {path}")
            continue
        values = {ALIASES.get(key, key): value for key, value in row.items() if value not in (None, "")}
        for key in NUMBERS:
            if key in values:
                values[key] = float(values[key])
        if isinstance(values.get("labels"), str):
            values["labels"] = _split(values["labels"])
        yield clip_of({**values, "path": path}, table.parent, source=values.get("source", table.parent.name))


def _split(text: str) -> list[str]:
    """Return labels written as a JSON list, or between semicolons."""
    if text.startswith("["):
        try:
            return [str(item) for item in json.loads(text)]
        except json.JSONDecodeError:
            pass
    return [part.strip() for part in text.split(";") if part.strip()]


def manifest(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield the clips of one set, or of every set under a root."""
    names = [root] if (root / MANIFEST).is_file() else [root / name for name in sets(root)]
    if not names:
        raise DataError(f"{root}: no {MANIFEST} here or in its folders")
    for folder in names:
        for clip in read_set(folder):
            tally.taken += 1
            if clip.path.is_file():
                yield clip
            else:
                tally.skip("no recording", str(clip.path))
