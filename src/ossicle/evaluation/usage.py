"""Which weak encoders a mixture uses for what: the routers' weights over the clips of a suite, by task and by class.

    clips of each task ──encode, connect──► routes ──► mean weight by `task` and by `task: class`
                                                       CARD FOLDER/usage.json, usage.png

Source: our choice (that encoders specialise is a finding of MoWE-Audio, arXiv 2409.06635).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from ossicle.audio.chunk import ceil_div
from ossicle.errors import AudioError, ConfigError
from ossicle.evaluation.run import Outcome, Setting, build_tasks
from ossicle.evaluation.task import Task, TaskSpec
from ossicle.mixtures.usage import Usage

BATCH = 8
MOST_CLIPS = 200
"""Of each row of a task."""


def check_mixture(answerer: Any) -> None:
    """Raise where there is no mixture whose usage could be shown.

    Raises:
        ConfigError: In one line.
    """
    if not _mixtures(answerer):
        raise ConfigError("--usage: the model has no mixture with routers; usage is shown for mowe and pam")


def _mixtures(answerer: Any) -> dict[str, Any]:
    streams = getattr(getattr(answerer, "model", None), "streams", {})
    return {name: s.encoder for name, s in streams.items() if s.encoder is not None and hasattr(s.encoder, "trace")}


@torch.inference_mode()
def measure(engine: Any, tasks: Iterable[Task]) -> dict[str, Usage]:
    """Return the usage of each mixture, by its stream.

    Args:
        engine: The model.
        tasks: Built tasks; clips that cannot be read are passed over.
    """
    mixtures = _mixtures(engine)
    found = {name: Usage() for name in mixtures}
    for task in tasks:
        for row in task.spec.rows:
            items = [item for item in task.items if item.row == row]
            items = items[:: max(1, ceil_div(len(items), MOST_CLIPS))]
            for start in range(0, len(items), BATCH):
                _count(engine, task, items[start : start + BATCH], mixtures, found)
    return found


def _count(engine: Any, task: Task, items: list[Any], mixtures: dict[str, Any], found: dict[str, Usage]) -> None:
    heard = []
    for item in items:
        try:
            heard.append((item, task.sounds[item.audio].load()))
        except AudioError:
            continue
    if not heard:
        return
    prompts = [engine.prompt(item.question) for item, _ in heard]
    inputs = engine.processor.chat(prompts, audio=[wave for _, wave in heard]).to(engine.model.device)
    listens = engine.model.prompts(inputs["input_ids"], inputs["attention_mask"])
    engine.model.connect(engine.encode([wave for _, wave in heard]), listens)
    for name, mixture in mixtures.items():
        routes = list(mixture.trace)
        found[name].add([task.spec.task] * len(heard), routes)
        found[name].add([f"{task.spec.task}: {_class(item)}" for item, _ in heard], routes)


def _class(item: Any) -> str:
    """Return the class that an item is counted under: its truth, where that is a name."""
    return item.truth if isinstance(item.truth, str) and len(item.truth) < 40 else item.row


def write_usage(out: Path, engine: Any, setting: Setting, specs: list[TaskSpec]) -> tuple[dict[str, Any], str]:
    """Measure and write `usage.json` and a heat map for each mixture.

    Args:
        out: Folder.
        engine: The model.
        setting: Of the suite.
        specs: Its tasks.

    Returns:
        `table` and `pictures` by stream, and the tables for people.
    """
    outcome = Outcome()
    build_tasks(setting, specs, outcome)
    found = measure(engine, outcome.built.values())
    tables = {name: usage.table() for name, usage in found.items()}
    (out / "usage.json").write_text(json.dumps(tables, indent=1), encoding="utf-8")
    pictures = {}
    for name, usage in found.items():
        pictures[name] = str(out / f"usage-{name}.png")
        usage.picture(Path(pictures[name]))
    text = "\n\n".join(f"usage of '{name}'\n{usage.text()}" for name, usage in found.items())
    return {"table": tables, "pictures": pictures}, text
