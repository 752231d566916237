"""Does a card reproduce? Rerun its setting and compare answers and scores.

bit for bit          every mark and every raw answer is the same
within the interval  every score lies in the card's 95 % interval (another machine, another library version)
no                   some score does not, or a task failed
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ossicle.evaluation.answers import Answerer
from ossicle.evaluation.card import read_card
from ossicle.evaluation.run import Setting, run_suite
from ossicle.evaluation.task import TaskSpec


def verify_card(
    old: Mapping[str, Any],
    setting: Setting,
    answerer: Answerer,
    *,
    out: Path | None,
    model: Mapping[str, Any],
    specs: list[TaskSpec] | None = None,
) -> dict[str, Any]:
    """Rerun a card and return the verdict.

    Args:
        old: The card.
        setting: The setting of its run, over a root that is here.
        answerer: The model.
        out: Where the rerun goes; None = a folder that is thrown away.
        model: What identifies the model.
        specs: Tasks instead of a suite.
    """
    with tempfile.TemporaryDirectory() as scratch:
        result = run_suite(setting, answerer, out=out or Path(scratch), model=model, specs=specs)
        return verdict(old, read_card(Path(result["card"])))


def verdict(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return `reproduces` (`bit for bit`, `within the interval`, `no`), the same by task, and what else is the same."""
    tasks = {}
    for name, result in old["tasks"].items():
        again = new["tasks"].get(name, {"error": "absent"})
        if "error" in again or "error" in result:
            tasks[name] = {"verdict": "no", "was": result.get("value"), "is": again.get("value")}
            continue
        same = old["marks"].get(name) == new["marks"].get(name)
        found = "bit for bit" if same else "within the interval" if _within(again["value"], result) else "no"
        tasks[name] = {"verdict": found, "was": result["value"], "is": again["value"]}
    return {
        "reproduces": _overall([task["verdict"] for task in tasks.values()], old["answers"] == new["answers"]),
        "tasks": tasks,
        "same": {key: old[key] == new[key] for key in ("model", "dataset", "versions")},
    }


def _within(value: float | None, result: Mapping[str, Any]) -> bool:
    """Return whether a value lies in a result's interval; where one of the two has none, nothing was measured."""
    if value is None or result["value"] is None:
        return False
    low, high = result["ci95"]
    return bool(low <= value <= high)


def _overall(verdicts: Sequence[str], same_answers: bool) -> str:
    if "no" in verdicts:
        return "no"
    return "bit for bit" if same_answers and set(verdicts) <= {"bit for bit"} else "within the interval"
