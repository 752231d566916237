"""Labelled recordings under a root: `ROOT/<set>/manifest.jsonl`, one object per clip, `path` relative to its folder."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ossicle.data.rows import numbered_lines
from ossicle.errors import DataError
from ossicle.evaluation.normalise import basic
from ossicle.evaluation.numerals import note_in
from ossicle.evaluation.parse import vocabulary_named
from ossicle.evaluation.phrasings import FILE, ask
from ossicle.evaluation.task import Item, RowSpec, Sound, Task, TaskSpec
from ossicle.types import Waveform

MOST_SKIPPED = 0.05
"""Share of clips of a set that may be unreadable before the task fails."""

TRUTHS: dict[str, Callable[[Any], Any]] = {
    "digit": int,
    "number": float,
    "quantity": float,
    "note": lambda value: note_in(str(value)),
    "exact": lambda value: basic(str(value)),
    "yes_no": lambda value: value if isinstance(value, bool) else str(value).lower() in ("yes", "true", "1"),
}
"""Parser → how a manifest's value becomes comparable with what that parser gives; a plain text otherwise."""


def read_manifest(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a manifest.

    Raises:
        DataError: A line is not a JSON object with a `path`; names the line.
    """
    records = []
    for number, line in numbered_lines(path):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error.msg}); expected one object per line") from None
        if not isinstance(record, dict) or "path" not in record:
            raise DataError(f"{path}:{number}: expected an object with 'path'")
        records.append(record)
    return records


def manifest_path(root: Path, spec: TaskSpec) -> Path:
    """Return where the manifest of a task over recordings should lie."""
    source = spec.source
    return root / source.manifest if source.manifest else root / source.set / "manifest.jsonl"


def file_sound(path: Path, key: str, duration_s: float) -> Sound:
    """Return a sound backed by a file.

    Raises:
        OSError: The file is not there.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Sound(key=key, load=partial(load_file, path), duration_s=duration_s, digest=digest, path=path)


def load_file(path: Path) -> Waveform:
    """Return a file as 16 kHz mono."""
    from ossicle.audio.io import load_audio

    return load_audio(path)


def build_clips(spec: TaskSpec, root: Path, *, limit: int | None, seed: int, wordings: Path = FILE) -> Task:
    """Return the items of a task over recordings.

    Args:
        spec: Task file; its manifest must exist.
        root: Folder of sets.
        limit: At most so many clips, drawn evenly over the manifest.
        seed: Of that draw.
        wordings: File of questions.

    Raises:
        DataError: More than 5 % of the clips are missing or without a truth.
    """
    manifest = manifest_path(root, spec)
    records = read_manifest(manifest)
    chosen = thin([r for r in records if any(_kept(r, row) for row in spec.rows.values())], limit, seed)
    skipped: Counter[str] = Counter()
    sounds: dict[str, Sound] = {}
    for record in chosen:
        try:
            sound = file_sound(manifest.parent / record["path"], record["path"], float(record.get("duration_s", 0.0)))
            snr_db = float(record["snr_db"]) if "snr_db" in record else None
            sounds[record["path"]] = replace(sound, tags=_tags(record, spec), snr_db=snr_db)
        except OSError:
            skipped["file is missing"] += 1
    items: list[Item] = []
    vocabularies = {}
    for name, row in spec.rows.items():
        vocabularies[name] = row_vocabulary(row, records)
        known = [r for r in chosen if r["path"] in sounds]
        items += _row_items(spec, name, known, wordings, vocabularies[name], skipped)
    check_skipped(manifest, skipped, len(chosen), "clips")
    return Task(spec=spec, items=items, sounds=sounds, vocabularies=vocabularies, skipped=dict(skipped))


def check_skipped(manifest: Path, skipped: Counter[str], total: int, what: str) -> None:
    """Fail where a set is empty or more than `MOST_SKIPPED` of it cannot be used.

    Args:
        manifest: Its file.
        skipped: Reason → how many were left out.
        total: How many there are.
        what: What they are called.

    Raises:
        DataError: Names the reasons, each with its count.
    """
    if not total:
        raise DataError(f"{manifest}: holds no {what}")
    lost = sum(skipped.values())
    if lost > MOST_SKIPPED * total:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in skipped.items())
        raise DataError(f"{manifest}: too many {what} cannot be used: {reasons}, of {total}")


def thin(records: list, limit: int | None, seed: int) -> list:
    """Return at most `limit` records, drawn without order, kept in their order."""
    if limit is None or len(records) <= limit:
        return records
    import numpy as np

    return [records[i] for i in sorted(np.random.default_rng(seed).permutation(len(records))[:limit])]


def row_vocabulary(row: RowSpec, records: list[dict[str, Any]]) -> dict[str, list[str]]:
    """Return a row's label list: named, spelled out, or the labels of the set without aliases."""
    if isinstance(row.vocabulary, dict):
        return row.vocabulary
    if row.vocabulary:
        return vocabulary_named(row.vocabulary)
    if row.parser not in ("label", "labels", "order", "first", "last"):
        return {}
    truths = [truth for record in records if (truth := _truth(record, row)) is not None]
    return {label: [] for label in sorted({str(x) for t in truths for x in (t if isinstance(t, list) else [t])})}


def wording(row: RowSpec, index: int, wordings: Path, **slots: str) -> str:
    """Return the question for the index-th item of a row."""
    if row.questions:
        return row.questions[index % len(row.questions)].format(**slots)
    return ask(row.ask, index, path=wordings, **slots)


def _row_items(
    spec: TaskSpec,
    name: str,
    records: list[dict[str, Any]],
    wordings: Path,
    vocabulary: Mapping[str, Any],
    skipped: Counter[str],
) -> list[Item]:
    row = spec.rows[name]
    items: list[Item] = []
    often: Counter[str] = Counter()  # several questions about one clip are items of their own
    for record in records:
        if not _kept(record, row):
            continue
        truth = _truth(record, row)
        if truth is None:
            if not row.optional:
                skipped[f"no '{row.truth}'"] += 1
            continue
        if row.parser == "label" and truth not in vocabulary:  # no answer could ever be right
            skipped[f"'{truth}' is no label of row '{name}'"] += 1
            continue
        often[record["path"]] += 1
        again = f"#{often[record['path']]}" if often[record["path"]] > 1 else ""
        items.append(
            Item(
                key=f"{spec.task}/{name}/{record['path']}{again}",
                task=spec.task,
                row=name,
                audio=record["path"],
                question=wording(row, len(items), wordings, question=str(record.get("question", ""))),
                truth=truth,
                cluster=str(record.get(spec.source.cluster, record["path"])),
                content=str(truth),
            )
        )
    return items


def _tags(record: dict[str, Any], spec: TaskSpec) -> str:
    """Return what a set says about a clip ("label: rain"), free texts left out."""
    rows = [row for row in spec.rows.values() if row.parser != "text" and _kept(record, row)]
    told = [(row, record[row.truth]) for row in rows if record.get(row.truth) is not None]
    return "; ".join(dict.fromkeys(f"{row.truth}: {row.merge.get(str(value), value)}" for row, value in told))


def _kept(record: dict[str, Any], row: RowSpec) -> bool:
    return all(str(record.get(column)) in values for column, values in row.keep.items())


def _truth(record: dict[str, Any], row: RowSpec) -> Any:
    """Return what is right, None where the manifest does not say it: `null` is no label."""
    value = record.get(row.truth)
    if isinstance(value, list):
        named = [row.merge.get(str(part), str(part)) for part in value if part is not None]
        return named if named or not value else None
    return None if value is None else TRUTHS.get(row.parser, str)(row.merge.get(str(value), value))
