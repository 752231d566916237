"""WebDataset shards of questions: one recording once, with everything asked about it.

    shard-00000.tar:   KEY.wav (or .flac …) + KEY.json {"samples": [row, row, …], "suffix": "wav"}

A recording's file goes in as it is; a span of one is cut to 16 kHz FLAC. Shards are the same bytes for the same rows.
Source: the WebDataset convention (files of one sample share a key); the JSON beside the sound is ours.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ossicle.data import parquet
from ossicle.data.rows import Tally
from ossicle.errors import AudioError, DataError


def write_shards(rows: Iterable[dict[str, Any]], folder: Path, tally: Tally, *, megabytes: float = 256) -> list[Path]:
    """Write rows with one recording each into shards, each whole or not at all.

    Args:
        rows: Questions; those about two recordings cannot be sharded and are counted.
        folder: Where shards go; older shards of it are removed at the end.
        tally: Counts rows.
        megabytes: A shard is closed when it is this large.

    Raises:
        DataError: Nothing to write, or the folder cannot be written.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        tally.taken += 1
        if len(row.get("audios", ())) != 1:
            tally.skip("not one recording", str(row.get("id")))
        else:
            groups.setdefault(json.dumps(row["audios"][0], sort_keys=True), []).append(row)
    paths: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, members in enumerate(_shards(groups, tally, megabytes * 1e6)):
            paths.append(folder / f"shard-{number:05d}.tar")
            _write(paths[-1], members)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); whole shards are kept") from None
    if not paths:
        raise DataError(f"{folder}: nothing to write: {tally.text()}")
    for old in set(folder.glob("shard-*.tar")) - set(paths):
        old.unlink()
    return paths


def _shards(groups: dict[str, list[dict[str, Any]]], tally: Tally, limit: float) -> Iterator[list[tuple[str, bytes]]]:
    members: list[tuple[str, bytes]] = []
    size = 0
    for name, rows in groups.items():
        try:
            suffix, sound = _sound(json.loads(name))
        except (AudioError, OSError) as error:
            for row in rows:
                tally.skip("recording cannot be read", f"{row.get('id')}: {error}")
            continue
        tally.given += len(rows)
        key = _hash(name.encode())
        about = json.dumps({"samples": rows, "suffix": suffix}, ensure_ascii=False).encode()
        members += [(f"{key}.{suffix}", sound), (f"{key}.json", about)]
        size += len(sound) + len(about)
        if size >= limit:
            yield members
            members, size = [], 0
    if members:
        yield members


def _hash(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=8).hexdigest()


def _sound(audio: Any) -> tuple[str, bytes]:
    """Return suffix and bytes of a recording, cut where it is a span."""
    if isinstance(audio, str):
        path = Path(audio)
        return path.suffix.lstrip(".").lower(), path.read_bytes()
    import soundfile

    from ossicle.data.sample import AudioRef

    wave = AudioRef(path=Path(audio["path"]), start_s=audio.get("start_s") or 0.0, end_s=audio.get("end_s")).load()
    buffer = io.BytesIO()
    soundfile.write(buffer, wave.samples, wave.sample_rate_hz, format="FLAC")
    return "flac", buffer.getvalue()


def _write(path: Path, members: list[tuple[str, bytes]]) -> None:
    temporary = path.with_suffix(".writing")
    try:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read_shards(folder: Path, unpack: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of shards; recordings are unpacked once, under names with a hash of their bytes, which rows give.

    Raises:
        DataError: No shards, or one that was not written by `write_shards`.
    """
    shards = sorted(folder.glob("shard-*.tar"))
    if not shards:
        raise DataError(f"{folder}: no shard-*.tar; expected what `ossicle data shard` writes")
    for shard in shards:
        with tarfile.open(shard) as tar:
            files = {member.name: member for member in tar if member.isfile()}
            for name, member in files.items():
                key, _, suffix = name.rpartition(".")
                if suffix != "json":
                    continue
                about = json.loads(tar.extractfile(member).read())  # type: ignore[union-attr]
                sound = files.get(f"{key}.{about.get('suffix')}")
                if sound is None or "samples" not in about:
                    raise DataError(f"{shard}: '{key}' has no recording or no samples")
                data = tar.extractfile(sound).read()  # type: ignore[union-attr]
                path = parquet.unpack(unpack / f"{Path(key).name}-{_hash(data)}.{about['suffix']}", data)
                for row in about["samples"]:
                    yield {**row, "audios": [str(path.resolve())]}
