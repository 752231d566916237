"""Folders of recordings with a `manifest.jsonl`: one JSON object per clip, `path` relative to the folder.

    ROOT/esc10/manifest.jsonl      {"path": "audio/….ogg", "label": "rain", "fold": 1, …}
    ROOT/fsdd/manifest.jsonl       {"path": "audio/….flac", "label": 7, "transcript": "seven", "speaker": "jackson", …}

Columns that every set may have are read into `Clip`; the others are kept in `Clip.extra`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ossicle.data.clip import Clip
from ossicle.data.rows import numbered_lines
from ossicle.errors import DataError

MANIFEST = "manifest.jsonl"
LICENCES = {
    "esc10": "CC BY 3.0",
    "fsdd": "CC BY-SA 4.0",
    "ravdess": "CC BY-NC-SA 4.0",
    "emodb_2s": "CC0 1.0",
    "librispeech_other100": "CC BY 4.0",
    "librispeech_gender251": "CC BY 4.0",
    "kathleen_arctic300": "CC0 1.0",
    "nonverbal_vocal": "CC BY-NC-ND 4.0",
    "berklee_sounds": "CC BY 3.0",
    "sonicpi_samples": "CC0 1.0",
    "salamander_piano_notes": "CC BY 3.0",
}
"""Licence of each set as its owner states it; a `license` or `licence` column wins."""
OPEN_LICENCES = ("CC0", "CC BY 3", "CC BY 4", "CC BY-SA")
"""Beginnings of the licences under which recordings may teach weights that are passed on."""

_GROUP_COLUMNS = ("group", "speaker", "sound_group", "fold")
_KNOWN = {"path", "duration_s", "label", "labels", "transcript", "speaker", "gender", "emotion", "language", "pitch"}
_KNOWN |= {"split", "license", "licence", "attribution", "start_s", "group"}
_KNOWN |= {"age", "sentiment", "genre", "genres", "title", "caption", "captions", "events", "recording", "facts"}
_KNOWN |= {"source"}


def may_train(clip: Clip) -> bool:
    """Return whether the clip's licence lets it teach weights that are passed on."""
    return clip.licence is not None and clip.licence.startswith(OPEN_LICENCES)


def sets(root: Path) -> list[str]:
    """Return the names of the sets under a root: its folders with a manifest."""
    return sorted(path.parent.name for path in root.glob(f"*/{MANIFEST}"))


def read_set(folder: Path) -> list[Clip]:
    """Return the clips of one folder with a manifest, in its order.

    Raises:
        DataError: No manifest, or a line that is not an object with a `path` (with its line number).
    """
    return [_clip(folder, number, line) for number, line in numbered_lines(_manifest(folder))]


def digest(folder: Path) -> str:
    """Return a hash of where a set lies, of its manifest, and of its recordings' sizes and times.

    What is made of a set is kept under this name, so that a recording changed in place is read again.

    Raises:
        DataError: No manifest.
    """
    place = str(folder.resolve()).encode(errors="surrogateescape")
    found = hashlib.blake2b(place + b"\0" + _manifest(folder).read_bytes(), digest_size=8)
    for clip in read_set(folder):
        if clip.path.is_file():
            facts = clip.path.stat()
            found.update(f"|{facts.st_size}|{facts.st_mtime_ns}".encode())
    return found.hexdigest()


def _manifest(folder: Path) -> Path:
    if not (folder / MANIFEST).is_file():
        raise DataError(f"{folder}: no {MANIFEST}; expected a folder with one JSON object per clip and line")
    return folder / MANIFEST


def read_sets(root: Path, names: Iterable[str]) -> list[Clip]:
    """Return the clips of several sets under a root."""
    return [clip for name in names for clip in read_set(root / name)]


def _clip(folder: Path, number: int, line: str) -> Clip:
    where = f"{folder / MANIFEST}:{number}"
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise DataError(f"{where}: not JSON ({error.msg}); expected one object per line") from None
    if not isinstance(row, dict) or not isinstance(row.get("path"), str):
        raise DataError(f"{where}: expected an object with a text 'path', got {line[:60]!r}")
    return clip_of(row, folder, source=folder.name)


def clip_of(row: dict[str, Any], folder: Path, *, source: str) -> Clip:
    """Return the clip of one row; columns that no clip has are kept in `extra`.

    Args:
        row: With a text `path`, relative to the folder or absolute.
        folder: Where relative paths start.
        source: Name of the set, unless the row names one.
    """
    source = str(row.get("source", source))
    group = next((row[column] for column in _GROUP_COLUMNS if row.get(column) is not None), None)
    return Clip(
        path=folder / row["path"],
        source=source,
        start_s=float(row.get("start_s", 0.0)),
        duration_s=row.get("duration_s"),
        labels=_listed(row, "labels", "label"),
        genres=_listed(row, "genres", "genre"),
        captions=_listed(row, "captions", "caption"),
        events=tuple((str(name), float(start), float(end)) for name, start, end in row.get("events") or ()),
        group=None if group is None else str(group),
        licence=row.get("licence", row.get("license", LICENCES.get(source))),
        facts=row.get("facts") or {},
        extra={key: value for key, value in row.items() if key not in _KNOWN},
        **{key: _text(row.get(key)) for key in _TEXTS},
    )


_TEXTS = ("transcript", "speaker", "gender", "emotion", "language", "pitch", "split", "attribution")
_TEXTS += ("age", "sentiment", "title", "recording")


def _listed(row: dict[str, Any], many: str, one: str) -> tuple[str, ...]:
    """Return the values of a field that may hold one or a list; null, alone or in a list, is none."""
    value = row.get(many, row.get(one, ()))
    values = value if isinstance(value, list | tuple) else (value,)
    return tuple(str(item) for item in values if item is not None)


def _text(value: Any) -> str | None:
    return None if value is None else str(value)
