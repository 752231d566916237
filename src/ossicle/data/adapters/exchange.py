"""Sets in the formats of other tools: Hugging Face folders and parquet, lhotse cuts, WebDataset shards.

    hf           AudioFolder (metadata.csv | jsonl with file_name, one for all or one per split), or *.parquet, or the
                 *.arrow of `save_to_disk`, whose audio column holds bytes or names a file
    lhotse       cuts.jsonl(.gz): id, start, duration, recording.sources, supervisions[text, speaker, language]
    webdataset   shard.tar: KEY.wav|flac|… beside KEY.json and KEY.txt

Recordings inside parquet and shards are unpacked once, to `audio/` beside the clips' file (option `unpack`).
Source: the documentation of each of the three projects; the naming is ours.
"""

from __future__ import annotations

import gzip
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ossicle.audio.io import is_audio_path
from ossicle.data.adapters.generic import ALIASES, TABLES, folders, table_file
from ossicle.data.adapters.table import Layout
from ossicle.data.clip import Clip
from ossicle.data.manifest import clip_of
from ossicle.data.rows import Tally
from ossicle.errors import DataError, require

SPLIT = re.compile(r"train|validation|valid|dev|test")
"""How names of shards begin that say whose split they are."""


def hugging_face(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield the clips of a dataset folder: AudioFolder, or parquet or arrow files with an audio column."""
    shards = [root] if root.is_file() else sorted([*root.rglob("*.parquet"), *root.rglob("*.arrow")])
    if not shards:
        yield from _audio_folder(root, layout, tally)
        return
    out = _unpacked(root, layout)
    for shard in shards:
        for number, row in enumerate(_shard_rows(shard), 1):
            tally.taken += 1
            where = f"{shard.name}:{number}"
            if "audio" not in row:
                raise DataError(f"{shard}: no column 'audio'; found: {', '.join(row)}")
            audio = row.pop("audio") or {}
            named = Path(str(audio.get("path") or ".wav"))
            if audio.get("bytes"):
                path = _unpack(out / f"{shard.stem}-{number:06d}{named.suffix or '.wav'}", audio["bytes"])
            elif (shard.parent / named).is_file():
                path = (shard.parent / named).resolve()
            else:
                tally.skip("no audio bytes in the row, and no such file", where)
                continue
            split = {"split": SPLIT.match(shard.stem)[0]} if SPLIT.match(shard.stem) else {}  # type: ignore[index]
            yield clip_of({**split, **row, "path": str(path)}, root, source=layout.options.get("source", root.name))


def _audio_folder(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield the clips of tables beside recordings, one for all or one per split; without any, of class folders."""
    places = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    tables = [place for place in places if any((place / name).is_file() for name in TABLES)]
    for place in tables:
        for clip in table_file(place, layout, tally):
            inside = {} if place == root else {"source": root.name, "split": clip.split or place.name}
            yield replace(clip, **inside)  # type: ignore[arg-type]
    if not tables:
        yield from folders(root, layout, tally)


def _shard_rows(shard: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a parquet or arrow file, class numbers as their names."""
    if shard.suffix == ".parquet":
        file = require("pyarrow.parquet", "data").ParquetFile(shard)
        batches, schema = file.iter_batches(batch_size=64), file.schema_arrow
    else:
        batches = require("pyarrow.ipc", "data").open_stream(shard.open("rb"))
        schema = batches.schema
    classes = _class_names(schema)
    for batch in batches:
        for row in batch.to_pylist():
            audio = {"audio": row.pop("audio")} if "audio" in row else {}
            yield {**_fields(row, classes), **audio}


def _class_names(schema: Any) -> dict[str, list[str]]:
    """Return the names of class columns, which files written by `datasets` keep in their metadata."""
    try:
        info = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):
        return {}
    return {
        name: feature["names"] for name, feature in info.items() if isinstance(feature, dict) and "names" in feature
    }


def _fields(row: dict[str, Any], classes: dict[str, list[str]]) -> dict[str, Any]:
    fields = {}
    for key, value in row.items():
        if value is None:
            continue
        if key in classes and isinstance(value, int) and 0 <= value < len(classes[key]):
            value = classes[key][value]
        fields[ALIASES.get(key, key)] = value if isinstance(value, list | int | float) else str(value)
    return fields


def lhotse(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield one clip per cut of a file of cuts."""
    content = gzip.decompress(root.read_bytes()) if root.suffix == ".gz" else root.read_bytes()
    for line in content.decode("utf-8").splitlines():
        if not line.strip():
            continue
        tally.taken += 1
        cut = json.loads(line)
        sources = (cut.get("recording") or {}).get("sources") or []
        place = next((source["source"] for source in sources if source.get("type") == "file"), None)
        if place is None or not (root.parent / place).is_file():
            tally.skip("no recording", str(cut.get("id")))
            continue
        said = cut.get("supervisions") or [{}]
        words = " ".join(str(part["text"]) for part in said if part.get("text")) or None
        row = {"path": place, "start_s": cut.get("start", 0.0), "duration_s": cut.get("duration"), "transcript": words}
        whole = (cut.get("recording") or {}).get("duration")
        row |= {"is_span": True} if whole and cut.get("duration") and cut["duration"] < whole - 1e-3 else {}
        row |= {key: said[0].get(key) for key in ("speaker", "gender", "language") if said[0].get(key)}
        row |= {key: value for key, value in (cut.get("custom") or {}).items() if key not in row}
        yield clip_of(row, root.parent, source=root.name.split(".")[0])


def webdataset(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield one clip per recording in tar shards."""
    shards = sorted(root.glob("*.tar")) if root.is_dir() else [root]
    if not shards:
        raise DataError(f"{root}: no .tar shards")
    out = _unpacked(root, layout)
    for shard in shards:
        groups: dict[str, dict[str, bytes]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.isfile():
                    key, _, suffix = Path(member.name).name.partition(".")
                    groups.setdefault(key, {})[suffix] = tar.extractfile(member).read()  # type: ignore[union-attr]
        for key, parts in groups.items():
            tally.taken += 1
            audio = next((suffix for suffix in parts if is_audio_path(f"x.{suffix}")), None)
            if audio is None:
                tally.skip("no recording", f"{shard.name}:{key}")
                continue
            path = _unpack(out / f"{shard.stem}-{key}.{audio}", parts[audio])
            row = json.loads(parts["json"]) if "json" in parts else {}
            if "txt" in parts:
                row.setdefault("text", parts["txt"].decode("utf-8").strip())
            yield clip_of({**_fields(row, {}), "path": str(path)}, root, source=shard.parent.name)


def _unpacked(root: Path, layout: Layout) -> Path:
    folder = root if root.is_dir() else root.parent
    return Path(layout.options.get("unpack") or folder.parent / f"{folder.name}_audio").resolve()


def _unpack(path: Path, data: bytes) -> Path:
    """Write a recording once."""
    if not path.is_file() or path.stat().st_size != len(data):
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".writing")
        temporary.write_bytes(data)
        temporary.replace(path)
    return path
