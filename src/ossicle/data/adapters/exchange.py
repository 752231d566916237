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
from pathlib import Path, PurePosixPath
from typing import Any

from ossicle.audio.io import is_audio_path
from ossicle.data import parquet
from ossicle.data.adapters.generic import ALIASES, TABLES, folders, table_file
from ossicle.data.adapters.table import Layout
from ossicle.data.clip import Clip
from ossicle.data.manifest import clip_of
from ossicle.data.rows import Tally
from ossicle.errors import DataError

SPLIT = re.compile(r"(?:train|validation|valid|dev|test)(?![a-z])")
"""How names of shards, or of folders they lie in, begin that say whose split they are."""


def hugging_face(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield the clips of a dataset folder: AudioFolder, or parquet or arrow files with an audio column."""
    shards = [root] if root.is_file() else sorted([*root.rglob("*.parquet"), *root.rglob("*.arrow")])
    if not shards:
        yield from _audio_folder(root, layout, tally)
        return
    out = _unpacked(root, layout)
    for shard in shards:
        inside = shard.relative_to(root if root.is_dir() else root.parent).with_suffix("")
        split = next((found[0] for part in reversed(inside.parts) if (found := SPLIT.match(part))), None)
        for number, row in enumerate(parquet.read(shard), 1):
            tally.taken += 1
            if "audio" not in row:
                raise DataError(f"{shard}: no column 'audio'; found: {', '.join(row)}")
            place = out / inside.parent  # shards of two splits or languages may have one name, in folders of their own
            path = parquet.recording(row.pop("audio"), place, f"{shard.stem}-{number:06d}", shard.parent)
            if path is None:
                tally.skip("no audio bytes in the row, and no such file", f"{shard.name}:{number}")
                continue
            known = {} if split is None else {"split": split}
            yield clip_of(
                {**known, **_fields(row), "path": str(path)}, root, source=layout.options.get("source", root.name)
            )


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


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    return {
        ALIASES.get(key, key): value if isinstance(value, list | int | float) else str(value)
        for key, value in row.items()
        if value is not None
    }


def lhotse(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield one clip per cut of a file of cuts."""
    content = gzip.decompress(root.read_bytes()) if root.suffix == ".gz" else root.read_bytes()
    for line in content.decode("utf-8").split("\n"):
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
                    place = PurePosixPath(member.name)  # a sample's key has its folder in it
                    stem, _, suffix = place.name.partition(".")
                    key = (place.parent / stem).as_posix().removeprefix("/")
                    groups.setdefault(key, {})[suffix] = tar.extractfile(member).read()  # type: ignore[union-attr]
        for key, parts in groups.items():
            tally.taken += 1
            audio = next((suffix for suffix in parts if is_audio_path(f"x.{suffix}")), None)
            if audio is None:
                tally.skip("no recording", f"{shard.name}:{key}")
                continue
            name = key.replace("%", "%25").replace("/", "%2F")
            path = parquet.unpack(out / f"{shard.stem}-{name}.{audio}", parts[audio])
            row = json.loads(parts["json"]) if "json" in parts else {}
            if "txt" in parts:
                row.setdefault("text", parts["txt"].decode("utf-8").strip())
            yield clip_of({**_fields(row), "path": str(path)}, root, source=shard.parent.name)


def _unpacked(root: Path, layout: Layout) -> Path:
    folder = root if root.is_dir() else root.parent
    return Path(layout.options.get("unpack") or folder.parent / f"{folder.name}_audio").resolve()
