"""What a run leaves for its reader: results of stages, versions, and where the next run goes."""

from __future__ import annotations

import platform
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

MEAN_OF = 10
"""First and last loss are means over so many steps, or a tenth of the stage where that is less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageResult:
    """What a stage did.

    Attributes:
        name: Its name.
        steps: Optimiser steps.
        first_loss: Mean loss of its first steps.
        last_loss: Mean loss of its last steps.
        seconds: Sum of the steps' times.
        trainable: Number of parameters that trained.
        skipped: Samples left out, by reason.
        measures: What the objective measured at the end.
    """

    name: str
    steps: int
    first_loss: float
    last_loss: float
    seconds: float
    trainable: int
    skipped: dict[str, int] = field(default_factory=dict)
    measures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a run made: `checkpoint` is the model folder."""

    stages: list[StageResult]
    checkpoint: Path


def versions() -> dict[str, str]:
    """Return the versions of what numbers depend on."""
    named = {}
    for package in ("ossicle", "torch", "transformers", "tokenizers", "safetensors", "peft", "numpy"):
        try:
            named[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {**named, "python": platform.python_version(), "machine": platform.machine()}


def result_of(name: str, rows: list[dict[str, Any]]) -> StageResult:
    """Return a stage's result from its rows in the log."""
    steps = [row for row in rows if "loss" in row]
    end: dict[str, Any] = next((row for row in reversed(rows) if "finished" in row), {})
    some = max(1, min(MEAN_OF, len(steps) // 10))
    losses = [row["loss"] for row in steps]
    return StageResult(
        name=name,
        steps=len(steps),
        first_loss=sum(losses[:some]) / some,
        last_loss=sum(losses[-some:]) / some,
        seconds=round(sum(row["seconds"] for row in steps), 2),
        trainable=end.get("trainable", 0),
        skipped=end.get("skipped", {}),
        measures=end.get("measures", {}),
    )


def free_folder(root: Path, name: str, *, resume: bool = False) -> Path:
    """Return the folder of a new run under `root`, or with `resume` of the last one.

    Example:
        >>> free_folder(Path("nowhere"), "nano").as_posix()
        'nowhere/nano'
    """
    taken = sorted(
        (p for p in root.glob(f"{name}*") if _number(p.name, name)), key=lambda p: _number(p.name, name) or 0
    )
    if resume:
        return taken[-1] if taken else root / name
    last = _number(taken[-1].name, name) if taken else 0
    return root / (f"{name}-{(last or 0) + 1}" if taken else name)


def _number(folder: str, name: str) -> int | None:
    rest = folder.removeprefix(name)
    if rest == "":
        return 1
    return int(rest[1:]) if rest[:1] == "-" and rest[1:].isdigit() else None
