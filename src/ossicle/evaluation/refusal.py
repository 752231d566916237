"""Does the model know what it cannot do? Questions outside its skills must be declined, those within must not.

refused outside  = declined / questions of refusal.yaml, each asked about a recording of the suite
refused within   = declined / every answer of the suite's tasks
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ossicle.evaluation.answers import Answerer, AnswerStore, Request, collect
from ossicle.evaluation.metrics import wilson
from ossicle.evaluation.parse import refuses
from ossicle.evaluation.score import RowScore
from ossicle.evaluation.task import Task

FILE = Path(__file__).with_name("refusal.yaml")


@cache
def questions() -> list[str]:
    """Return the questions that should be declined."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))["questions"]


def requests_for(tasks: Mapping[str, Task]) -> list[Request]:
    """Return each question about some recording, spread over all tasks in turn."""
    pools = [[(name, key) for key in task.sounds] for name, task in tasks.items() if task.sounds]
    asked = []
    for index, question in enumerate(questions()):
        pool = pools[index % len(pools)]
        task, audio = pool[(index // len(pools)) * 7 % len(pool)]
        asked.append(Request(task=task, audio=audio, question=question, max_new_tokens=48))
    return asked


def measure(
    answerer: Answerer,
    store: AnswerStore,
    tasks: Mapping[str, Task],
    scores: Mapping[str, Sequence[RowScore]],
    *,
    batch_size: int = 32,
) -> dict[str, Any]:
    """Ask what is missing, and return both rates with their intervals and the answers that were not declined."""
    asked = requests_for(tasks)
    collect(answerer, asked, {n: t.sounds for n, t in tasks.items()}, store, batch_size=batch_size)
    declined = [refuses(store[request]) for request in asked]
    within = [mark.refused for rows in scores.values() for row in rows for mark in row.marks]
    wrongly = sum(within)
    return {
        "metric": "refused",
        "value": sum(declined) / len(declined),
        "ci95": list(wilson(sum(declined), len(declined))),
        "n": len(declined),
        "within_skills": {
            "value": wrongly / len(within) if within else None,
            "ci95": list(wilson(wrongly, len(within))),
            "n": len(within),
        },
        "answered": [
            {"question": request.question, "answer": store[request]}
            for request, no in zip(asked, declined, strict=True)
            if not no
        ],
    }
