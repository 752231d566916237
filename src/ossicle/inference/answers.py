"""Many recordings asked one question, answers written as they come, a broken run taken up where it ended.

    paths ──not answered yet──► a batch is read ──► asked ──► one JSON line each ──► file

What was answered is told by the file itself: a line counts for its path, question and model. A line that a broken run
left half written is cut off. Recordings that cannot be read are told and tried again the next time.
Source: our choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossicle.errors import AudioError, DataError
from ossicle.inference.engine import Engine

BATCH = 16
BEGINS = b'{"path": '
"""What every line begins with."""


@dataclass(slots=True, kw_only=True)
class Written:
    """What a run did: rows of all paths answered by now, how many stood there `before`, what was skipped."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    before: int = 0
    skipped: list[dict[str, str]] = field(default_factory=list)


def answer_into(
    output: Path,
    engine: Engine,
    paths: Sequence[Path],
    question: str,
    *,
    max_new_tokens: int,
    tell: Callable[[int], None] = lambda count: None,
) -> Written:
    """Ask every recording and append the answers to a file.

    Args:
        output: JSON lines; made where it is not there.
        engine: The model.
        paths: Recordings; those whose answer stands in the file are not asked again.
        question: What is asked of each.
        max_new_tokens: Longest answer.
        tell: Takes how many more are done.

    Raises:
        DataError: The file holds something that is not such answers.

    Example:
        >>> answer_into(Path("answers.jsonl"), engine, [Path("a.wav")], "What?", max_new_tokens=64)  # doctest: +SKIP
    """
    from ossicle.audio.io import load_audio

    known = _known(output, question, engine.name)
    done = Written(rows=[known[str(path)] for path in paths if str(path) in known])
    done.before = len(done.rows)
    tell(done.before)
    left = [path for path in paths if str(path) not in known]
    output.parent.mkdir(parents=True, exist_ok=True)
    with output.open("a", encoding="utf-8", errors="backslashreplace") as file:
        for start in range(0, len(left), BATCH):
            waves = []
            for path in left[start : start + BATCH]:
                try:
                    waves.append(load_audio(path))
                except AudioError as error:
                    done.skipped.append({"path": str(path), "reason": str(error)})
            said = engine.answer([(wave, question) for wave in waves], max_new_tokens=max_new_tokens) if waves else []
            for wave, answer in zip(waves, said, strict=True):
                row = {"path": wave.name, "question": question, "answer": answer.text, "model": engine.name}
                row |= {"duration_s": round(wave.duration_s, 3), "tokens": answer.audio_tokens}
                row |= {"truncated": wave.truncated}
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                done.rows.append(row)
            file.flush()
            tell(len(left[start : start + BATCH]))
    return done


def _known(output: Path, question: str, model: str) -> dict[str, dict[str, Any]]:
    """Return the answers that a file holds, by path; cuts off a line without an end."""
    if not output.exists():
        return {}
    if not output.is_file():
        raise DataError(f"'{output}': is no file; --output is read again to take a run up, give a file's name")
    data = output.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    torn = data[len(whole) :]
    if not (torn.startswith(BEGINS) or BEGINS.startswith(torn)):  # somebody's text, not a line cut off
        raise DataError(f"'{output}': its last line is not an answer of this command; give another --output")
    rows = {row["path"]: row for row in _rows(output, whole) if (row["question"], row["model"]) == (question, model)}
    if torn:
        with output.open("r+b") as file:
            file.truncate(len(whole))
    return rows


def _rows(output: Path, data: bytes) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(data.splitlines(), 1):
        try:
            row = json.loads(line)
            row["path"], row["question"], row["model"], row["answer"]
        except (ValueError, TypeError, KeyError):
            raise DataError(f"'{output}' line {number}: not an answer of this command; give another --output") from None
        yield row
