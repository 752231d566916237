"""Multiple-choice benchmarks in their official files (MMAU, MMAR): every question with every rotation of its options.

    question + options (A) … (D) ──rotate k times──► k items; a model that likes a letter gains nothing

Each rotation is an item of the question's cluster, so the interval is by question.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ossicle.errors import DataError
from ossicle.evaluation.sets import file_sound, manifest_path, thin
from ossicle.evaluation.task import Item, Sound, Task, TaskSpec

AUDIO_COLUMNS = ("audio_path", "audio_id", "path", "audio")
LETTERS = "ABCDEFGHIJ"


def read_choices(path: Path) -> list[dict[str, Any]]:
    """Return the questions of an official file (a JSON list, or JSON lines).

    Raises:
        DataError: Not such a file, or a question whose answer is none of its options.
    """
    text = path.read_text(encoding="utf-8")
    try:
        records = json.loads(text) if text.lstrip().startswith("[") else [json.loads(x) for x in text.splitlines() if x]
    except json.JSONDecodeError as error:
        raise DataError(f"{path}: not JSON ({error.msg}, line {error.lineno})") from None
    for number, record in enumerate(records, start=1):
        if not {"question", "choices", "answer"} <= set(record) or not any(c in record for c in AUDIO_COLUMNS):
            raise DataError(f"{path}: entry {number}: expected question, choices, answer and one of {AUDIO_COLUMNS}")
        if record["answer"] not in record["choices"]:
            raise DataError(f"{path}: entry {number}: the answer {record['answer']!r} is none of its choices")
    return records


def rotations(options: Sequence[str]) -> list[list[str]]:
    """Return all cyclic permutations.

    Example:
        >>> rotations(["a", "b", "c"])
        [['a', 'b', 'c'], ['b', 'c', 'a'], ['c', 'a', 'b']]
    """
    return [[*options[i:], *options[:i]] for i in range(len(options))]


def asked(question: str, options: Sequence[str]) -> str:
    """Return a question with its options under letters."""
    listed = " ".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options, strict=False))
    return f"{question} Choose one: {listed}"


def build_choices(spec: TaskSpec, root: Path, *, limit: int | None, seed: int) -> Task:
    """Return the items of a choice benchmark.

    Raises:
        DataError: Its file does not fit, or none of its recordings is there.
    """
    manifest = manifest_path(root, spec)
    records = thin(read_choices(manifest), limit, seed)
    name, row = next(iter(spec.rows.items()))
    sounds: dict[str, Sound] = {}
    items = []
    skipped: Counter[str] = Counter()
    for number, record in enumerate(records):
        key = str(next(record[column] for column in AUDIO_COLUMNS if column in record))
        try:
            sounds.setdefault(key, file_sound(manifest.parent / key, key, 0.0))
        except OSError:
            skipped["file is missing"] += 1
            continue
        identity = str(record.get("id", number))
        for turn, options in enumerate(rotations(record["choices"])):
            items.append(
                Item(
                    key=f"{spec.task}/{name}/{identity}/{turn}",
                    task=spec.task,
                    row=name,
                    audio=key,
                    question=asked(record["question"], options),
                    truth=record["answer"],
                    cluster=identity,
                    content=key,
                    options=tuple(options),
                )
            )
    if not items:
        raise DataError(f"{manifest}: none of {len(records)} recordings is there; expected them beside the file")
    assert row.parser == "choice"
    return Task(spec=spec, items=items, sounds=sounds, skipped=dict(skipped))
