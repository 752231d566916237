"""Multiple-choice benchmarks in their official files (MMAU, MMAR): every question with every rotation of its options.

    question + options (A) … (D) ──rotate k times──► k items; a model that likes a letter gains nothing

Each rotation is an item of the question's cluster, so the interval is by question. An entry that cannot be asked (a
field or its recording is missing, its answer is none of its choices) is left out and counted; too many fail the task.
Source: `mmau-test-mini.json` of MMAU, both versions (`audio_id`); `MMAR-meta.json` or `.jsonl` of MMAR (`audio_path`),
some of whose answers differ from their choice in case or blanks, and whose choices some copies write as one text.
"""

from __future__ import annotations

import ast
import json
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossicle.errors import DataError
from ossicle.evaluation.sets import check_skipped, file_sound, manifest_path, thin
from ossicle.evaluation.task import Item, Sound, Task, TaskSpec

AUDIO_COLUMNS = ("audio_path", "audio_id", "path", "audio")
LETTERS = string.ascii_uppercase


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One question of an official file.

    Attributes:
        identity: Its id, or its place in the file.
        audio: Path of its recording from the file's folder.
        question: Words asked.
        choices: What may be answered.
        answer: The right one of them, letter by letter.
        kinds: Field → value, of those that are scored apart.
    """

    identity: str
    audio: str
    question: str
    choices: tuple[str, ...]
    answer: str
    kinds: Mapping[str, str] = field(default_factory=dict)


def choices_path(root: Path, spec: TaskSpec) -> Path:
    """Return where a benchmark's file lies: as its task names it, or as JSON lines beside that name."""
    named = manifest_path(root, spec)
    lines = named.with_suffix(".jsonl")
    return lines if lines.is_file() and not named.is_file() else named


def read_choices(path: Path) -> list[Any]:
    """Return the entries of an official file (a JSON list, or JSON lines), whatever they are.

    Raises:
        DataError: Neither of the two.
    """
    text = path.read_text(encoding="utf-8-sig")
    lines = [text] if text.lstrip().startswith("[") else [line for line in text.split("\n") if line.strip()]
    try:
        parsed = [json.loads(line) for line in lines]
    except json.JSONDecodeError as error:
        raise DataError(
            f"{path}: not JSON ({error.msg}, line {error.lineno}); expected a list of questions, or one a line"
        ) from None
    return parsed[0] if lines == [text] else parsed


def entry(record: Any, number: int, by: Sequence[str] = ()) -> Entry | str:
    """Return one entry, or why it cannot be asked.

    Args:
        record: As it stands in the file.
        number: Its place there, its name where it has no id.
        by: Fields that are scored apart; an entry that lacks one has no part in that.

    Example:
        >>> record = {"audio_id": "a.wav", "question": "Who?", "choices": ["A man", "A dog"], "answer": "a man "}
        >>> entry(record, 0).answer
        'A man'
    """
    if not isinstance(record, dict):
        return "no object"
    audio = next((record[column] for column in AUDIO_COLUMNS if record.get(column)), None)
    absent = [name for name in ("question", "choices", "answer") if record.get(name) in (None, "", [])]
    if audio is None or absent:
        return f"no '{absent[0]}'" if absent else "no audio"
    choices = _listed(record["choices"])
    if not 2 <= len(choices) <= len(LETTERS):
        return f"not 2 to {len(LETTERS)} choices"
    answer = _chosen(str(record["answer"]), choices)
    if answer is None:
        return "answer is none of its choices"
    identity = str(record.get("id", number))
    return Entry(
        identity=identity,
        audio=str(audio),
        question=str(record["question"]),
        choices=choices,
        answer=answer,
        kinds={name: str(record[name]) for name in by if record.get(name) not in (None, "")},
    )


def _listed(choices: Any) -> tuple[str, ...]:
    """Return choices as a tuple; none where they are neither a list nor the text of one."""
    if isinstance(choices, str):
        try:
            choices = ast.literal_eval(choices)
        except (ValueError, SyntaxError):
            return ()
    return tuple(map(str, choices)) if isinstance(choices, list | tuple) else ()


def _chosen(answer: str, choices: Sequence[str]) -> str | None:
    """Return the choice that an answer is: letter by letter, else the only one but for case and outer blanks."""
    if answer in choices:
        return answer
    alike = [choice for choice in choices if choice.strip().casefold() == answer.strip().casefold()]
    return alike[0] if len(alike) == 1 else None


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
        DataError: Its file is no such file, or more than 5 % of its questions cannot be asked.
    """
    manifest = choices_path(root, spec)
    chosen = thin(list(enumerate(read_choices(manifest))), limit, seed)
    name, row = next(iter(spec.rows.items()))
    assert row.parser == "choice"
    sounds: dict[str, Sound] = {}
    items: list[Item] = []
    identities: set[str] = set()
    skipped: Counter[str] = Counter()
    for number, record in chosen:
        found = entry(record, number, spec.source.by)
        if isinstance(found, str):
            skipped[found] += 1
            continue
        try:
            sounds.setdefault(found.audio, file_sound(manifest.parent / found.audio, found.audio, 0.0))
        except OSError:
            skipped["file is missing"] += 1
            continue
        identity = f"{found.identity}#{number}" if found.identity in identities else found.identity
        identities.add(identity)
        items += [_item(spec.task, name, identity, found, turn) for turn in range(len(found.choices))]
    check_skipped(manifest, skipped, len(chosen), "questions")
    return Task(spec=spec, items=items, sounds=sounds, skipped=dict(skipped))


def _item(task: str, row: str, identity: str, found: Entry, turn: int) -> Item:
    """Return an entry with its options in one order."""
    options = rotations(found.choices)[turn]
    return Item(
        key=f"{task}/{row}/{identity}/{turn}",
        task=task,
        row=row,
        audio=found.audio,
        question=asked(found.question, options),
        truth=found.answer,
        cluster=identity,
        content=found.audio,
        options=tuple(options),
        kinds=found.kinds,
    )
