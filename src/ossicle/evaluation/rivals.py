"""What other models make of the same questions, in the same table: the cascade, and a text model with oracle tags.

    tasks ──ask without controls──► answers-<name>.jsonl ──score──► result["beside"][name]

Columns without a run hold a dash, so that nobody can forget that there is something to compare with.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ossicle.errors import OssicleError
from ossicle.evaluation.answers import Answerer, AnswerStore, collect
from ossicle.evaluation.score import score_rows, task_report, task_requests
from ossicle.evaluation.task import Task

COLUMNS = ("cascade", "tags")
"""Rivals that have a column in every table."""
KEPT = ("value", "ci95", "n", "unparsed")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rival:
    """Another model that is asked the same.

    Attributes:
        answerer: The model.
        facts: What identifies it in the card; `name` is its column.
    """

    answerer: Answerer
    facts: Mapping[str, Any]

    @property
    def name(self) -> str:
        """Its column."""
        return str(self.facts["name"])


def run_rival(
    rival: Rival,
    tasks: Mapping[str, Task],
    results: Mapping[str, dict[str, Any]],
    out: Path,
    *,
    header: Mapping[str, Any],
    seed: int,
    batch_size: int,
) -> None:
    """Ask a rival everything but the controls, and put its values beside those of the model.

    Args:
        rival: The other model.
        tasks: Built tasks.
        results: Task → result, changed in place: `beside`; a rival that fails is an error there.
        out: Folder of its `answers-<name>.jsonl`.
        header: What its answers depend on.
        seed: Of intervals.
        batch_size: Questions at once.
    """
    store = AnswerStore(out / f"answers-{rival.name}.jsonl", {**header, "model": dict(rival.facts)})
    for name, task in tasks.items():
        try:
            requests = task_requests(task, seed=seed, controls=False)
            collect(rival.answerer, requests, {name: task.sounds}, store, batch_size=batch_size, label=rival.name)
        except (OssicleError, OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError) as error:
            if "out of memory" in str(error):
                raise
            logger.error("%s on task %s failed: %s", rival.name, name, error)
            results[name].setdefault("beside", {})[rival.name] = {"error": f"{type(error).__name__}: {error}"}
            continue
        report = task_report(score_rows(task, store, seed=seed, controls=False), seed=seed)
        _put(results[name], rival.name, report)
        for row, inner in report.get("rows", {}).items():
            _put(results[name]["rows"][row], rival.name, inner)


def _put(result: dict[str, Any], name: str, report: Mapping[str, Any]) -> None:
    result.setdefault("beside", {})[name] = {key: report[key] for key in KEPT}


def cells(result: Mapping[str, Any]) -> list[float | None]:
    """Return the values of the columns of a table, None where a rival did not run."""
    beside = result.get("beside", {})
    return [beside.get(name, {}).get("value") for name in COLUMNS]
