"""Recordings of the user's own: one folder per label, or a table with `path` and what is known of each recording.

    FOLDER/<label>/*.wav            or   FOLDER/manifest.jsonl, FOLDER/metadata.csv, TABLE.csv, TABLE.jsonl:
                                         path, and any of label, caption, transcript, question + answer; group

A recording that cannot be used is skipped, counted by reason and reported; nothing is guessed.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ossicle.audio.io import SUFFIXES, load_audio
from ossicle.data.rows import read_rows
from ossicle.errors import AudioError, DataError

TABLES = ("manifest.jsonl", "metadata.jsonl", "metadata.csv", "manifest.csv")
WHAT = ("label", "caption", "transcript", "answer")
"""Columns of which a table must have at least one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """One recording and what its owner says of it.

    Attributes:
        path: The file.
        group: What must not lie on both sides of a split.
        duration_s: Length.
        label: Class, or empty.
        caption: Description, or empty.
        transcript: Words spoken, or empty.
        question: Question of its own, or empty.
        answer: Answer to it, or empty.
    """

    path: Path
    group: str
    duration_s: float = 0.0
    label: str = ""
    caption: str = ""
    transcript: str = ""
    question: str = ""
    answer: str = ""


@dataclass(slots=True, kw_only=True)
class Recordings:
    """What was found.

    Attributes:
        found: Usable recordings.
        skipped: Reason → how many were left out.
        examples: Reason → the first one.
    """

    found: list[Recording] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Count one that is left out."""
        self.skipped[reason] += 1
        self.examples.setdefault(reason, name)

    def told(self) -> str:
        """Return the counts as a clause."""
        return ", ".join(f"{n} × {why} (first: {self.examples[why]})" for why, n in self.skipped.items()) or "none"


def read_recordings(folder: Path) -> Recordings:
    """Return the usable recordings of a folder or table; every file is decoded once.

    Raises:
        DataError: Nothing there, columns missing, no usable recording, or one class only.
    """
    if not folder.exists():
        raise DataError(f"{folder}: no such folder or table; expected one folder per label, or a CSV or JSONL file")
    table = folder if folder.is_file() else next((folder / name for name in TABLES if (folder / name).is_file()), None)
    rows = _table_rows(table) if table is not None else _folder_rows(folder)
    recordings = Recordings()
    for row in rows:
        _take(row, table.parent if table is not None else folder, recordings)
    if not recordings.found:
        raise DataError(f"{folder}: none of {len(rows)} recordings can be used: {recordings.told()}")
    _refuse_twins(recordings.found, folder)
    _group(recordings.found)
    _drop_single(recordings)
    labels = {recording.label for recording in recordings.found if recording.label}
    only_labels = not any(r.caption or r.transcript or r.answer for r in recordings.found)
    if only_labels and len(labels) < 2:
        raise DataError(
            f"{folder}: one class only with two or more recordings ({', '.join(sorted(labels)) or 'none'}); "
            f"expected two labels or more, as folders or in the column 'label'; skipped: {recordings.told()}"
        )
    return recordings


def _folder_rows(folder: Path) -> list[dict[str, Any]]:
    """Return path and label of every sound file; its label is the name of its first folder."""
    rows = [
        {"path": str(path.relative_to(folder)), "label": path.relative_to(folder).parts[0].replace("_", " ")}
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES and len(path.relative_to(folder).parts) > 1
    ]
    if not rows:
        raise DataError(
            f"{folder}: no recordings in folders and no {TABLES[0]}; expected one folder per label with sound files, "
            "or a table with a column 'path'"
        )
    return rows


def _table_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a table.

    Raises:
        DataError: Not readable, or columns missing.
    """
    try:
        if path.suffix == ".csv":
            with path.open(encoding="utf-8-sig", newline="") as file:
                rows: list[dict[str, Any]] = list(csv.DictReader(file))
        else:
            rows = list(read_rows(path, "an object with 'path' and 'label'"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read ({error}); expected a CSV or JSONL table in UTF-8") from None
    columns = {str(column) for row in rows for column in row}
    if "path" not in columns or not columns & set(WHAT):
        have = ", ".join(sorted(columns)) or "nothing"
        raise DataError(f"{path}: has the columns {have}; expected 'path' and at least one of {', '.join(WHAT)}")
    if "answer" in columns and "question" not in columns:
        raise DataError(f"{path}: has a column 'answer' without 'question'; expected both")
    return rows


def _take(row: dict[str, Any], root: Path, recordings: Recordings) -> None:
    name = str(row.get("path") or "")
    told = {column: str(row[column]).strip() for column in (*WHAT, "question") if row.get(column) not in (None, "")}
    if not name or not set(told) & set(WHAT):
        recordings.skip("row without path or label", name or "?")
        return
    path = root / name
    try:
        duration_s = load_audio(path).duration_s
    except (AudioError, OSError):
        recordings.skip("unreadable", name)
        return
    group = "" if row.get("group") in (None, "") else str(row["group"])
    recordings.found.append(Recording(path=path.resolve(), group=group, duration_s=duration_s, **told))


def _refuse_twins(found: Sequence[Recording], folder: Path) -> None:
    """Raise where two labels would be said alike, so that one of them could never be right."""
    spelt: dict[str, str] = {}
    for label in sorted({recording.label for recording in found if recording.label}):
        other = spelt.setdefault(re.sub(r"[\s_-]+", " ", label).casefold(), label)
        if other != label:
            raise DataError(f"{folder}: labels '{other}' and '{label}' are said alike; give them one name")


def _group(found: list[Recording]) -> None:
    """Name the group of every recording that brings none, in place.

    It is the stem of its file, so that `tape7.wav` under two labels stays together; with its folder where stems only
    number files, or where a label has the stem twice. Copies of one file are one group, and so are the groups that a
    copy joins.
    """
    often = Counter((recording.label, recording.path.stem) for recording in found)
    joined: dict[str, str] = {}
    named = {}
    for place, recording in enumerate(found):
        if recording.group:
            continue
        stem = recording.path.stem
        own = stem.isdecimal() or often[recording.label, stem] > 1
        content = hashlib.blake2b(recording.path.read_bytes(), digest_size=16).hexdigest()
        named[place] = str(recording.path.with_suffix("")) if own else stem
        joined[_end(joined, "\0" + content)] = _end(joined, named[place])
    for place, group in named.items():
        found[place] = replace(found[place], group=_end(joined, group))


def _end(joined: Mapping[str, str], name: str) -> str:
    """Return what a name is joined to, in the end."""
    while joined.get(name, name) != name:
        name = joined[name]
    return name


def _drop_single(recordings: Recordings) -> None:
    """Leave out labels with one recording: it cannot be taught and tested."""
    groups: dict[str, set[str]] = {}
    for recording in recordings.found:
        groups.setdefault(recording.label, set()).add(recording.group)
    alone = {label for label, of_label in groups.items() if label and len(of_label) < 2}
    kept = []
    for recording in recordings.found:
        if recording.label in alone:
            recordings.skip(f"label '{recording.label}' has one recording only", recording.path.name)
        else:
            kept.append(recording)
    recordings.found = kept
