"""Answers of a model that ran elsewhere: write the questions out, read the answers in, score them like any other.

ossicle eval --suite nano --root DIR --questions-out questions.jsonl
…                                                     {"id", "audio", "question"}  ──►  {"id", "answer"}
ossicle eval --suite nano --root DIR --predictions answers.jsonl
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from ossicle.data.rows import numbered_lines
from ossicle.errors import DataError
from ossicle.evaluation.answers import AnswerStore
from ossicle.evaluation.controls import asked
from ossicle.evaluation.task import Sound, Task
from ossicle.types import SAMPLE_RATE_HZ

MOST_NAMED = 5


def write_questions(path: Path, tasks: Iterable[Task]) -> int:
    """Write every question with its id and sound; composed sounds are written as FLAC beside the file."""
    folder = path.with_suffix("")
    count = 0
    written: set[Path] = set()  # several questions are about one sound
    with path.open("w", encoding="utf-8") as file:
        for task in tasks:
            for item in task.items:
                sound = task.sounds[item.audio]
                audio = sound.path
                if audio is None:
                    audio = folder / task.spec.task / f"{item.audio}.flac"
                    if audio not in written:
                        _write_flac(audio, sound)
                        written.add(audio)
                row = {"id": item.key, "audio": str(audio), "question": item.question}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                count += 1
    return count


def _write_flac(path: Path, sound: Sound) -> None:
    """Write a sound in place of an older run's, whose compositions have the same names."""
    import soundfile

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    soundfile.write(aside, sound.load().samples, SAMPLE_RATE_HZ, format="FLAC")
    aside.replace(path)


def read_predictions(path: Path, tasks: Iterable[Task], store: AnswerStore) -> None:
    """Put answers from a file into the store.

    Raises:
        DataError: Not JSON lines with `id` and `answer`; ids missing, extra or twice (named).
    """
    answers: dict[str, str] = {}
    twice = []
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
            key, answer = str(row["id"]), str(row["answer"])
        except (json.JSONDecodeError, KeyError, TypeError):
            raise DataError(f'{path}:{number}: expected {{"id": …, "answer": …}}') from None
        twice += [key] if key in answers else []
        answers[key] = answer
    items = [(task, item) for task in tasks for item in task.items]
    wanted = {item.key for _, item in items}
    problems = [
        f"{len(keys)} {what} ({', '.join(sorted(keys)[:MOST_NAMED])}{', …' if len(keys) > MOST_NAMED else ''})"
        for what, keys in (("missing", wanted - set(answers)), ("extra", set(answers) - wanted), ("twice", set(twice)))
        if keys
    ]
    if problems:
        raise DataError(f"{path}: the ids do not fit: {'; '.join(problems)}")
    store.add([asked(item, task.spec.rows[item.row]) for task, item in items], [answers[i.key] for _, i in items])
