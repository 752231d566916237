"""How the model is taught: the recipe, and the ordinary training loop over it.

    labels alone        decoder and encoders ░░░ stay      the tagger's stream ▓▓▓ learns to say what it decided
    sentences too       decoder and connectors ▓▓▓ learn beside it, replay keeps what they knew

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from ossicle.adapt.run import Plan

WHOLE = {"learning_rate": 4e-4, "steps": 350}
FROZEN = {"learning_rate": 3e-3, "steps": 500}
"""How it is taught where the decoder learns, and where only the tagger's stream does."""


def recipe_of(
    plan: Plan, audio: Path, *, start: str | None = None, tags: str | None = None, frozen: bool = False
) -> dict[str, Any]:
    """Return the recipe by which the model is trained further.

    Args:
        plan: What is done.
        audio: Folder of the samples.
        start: Model it starts from, where not the plan's.
        tags: Name of a stream whose tagger is fitted already.
        frozen: Only that stream learns to speak; everything else stays as it is.
    """
    has_replay = (audio / "replay.jsonl").is_file() and (audio / "replay.jsonl").stat().st_size > 0
    share = 0.2 if frozen else 0.55
    mix = [{"source": "own", "weight": 1 - share}, *([{"source": "replay", "weight": share}] if has_replay else [])]
    disturb = {} if frozen else {"feature_dropout": 0.15, "feature_noise": 0.1, "frame_dropout": 0.05}
    start = start or (str(Path(plan.start).resolve()) if Path(plan.start).is_dir() else plan.start)
    suits = FROZEN if frozen else WHOLE
    rate = suits["learning_rate"] if plan.learning_rate is None else plan.learning_rate
    steps = int(suits["steps"]) if plan.steps is None else plan.steps
    train = [*([rf"^streams\.{tags}\."] if tags else []), *([] if frozen else ["connector", "language_model"])]
    return {
        "name": "adapt",
        "seed": plan.seed,
        "model": {"start": start},
        "data": {
            "own": {"kind": "messages", "path": str(audio / "own.jsonl")},
            **({"replay": {"kind": "messages", "path": str(audio / "replay.jsonl")}} if has_replay else {}),
        },
        "stages": [
            {
                "name": "adapt",
                "train": train,
                "objective": {"kind": "next_token", **disturb},
                "mix": mix,
                "learning_rate": rate,
                "batch_size": plan.batch_size,
                "steps": steps,
                "warmup_steps": min(20, steps),
                "weight_decay": 0.0 if frozen else 0.05,
                "feature_cache": True,
                "audio_dropout": 0.0 if frozen else 0.03,
                "audio_shuffle": 0.0,
                "checkpoint_every": steps,
            }
        ],
    }


def train_model(
    plan: Plan, work: Path, tell: Callable[[str], None], *, tags: str | None = None, frozen: bool = False
) -> dict[str, float]:
    """Train by the ordinary loop; the model lies in `work/model` afterwards.

    Args:
        plan: What is done.
        work: Folder with the samples in `audio`, and with tags the model in `start`.
        tell: Takes lines for people.
        tags: Name of the stream of tags, if there is one.
        frozen: Only that stream learns.
    """
    from ossicle.inference.engine import choose_device
    from ossicle.training.recipe import load
    from ossicle.training.run import Run

    recipe = work / "adapt.yaml"
    start = str(work / "start") if tags is not None else None
    settings = recipe_of(plan, work / "audio", start=start, tags=tags, frozen=frozen)
    recipe.write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")
    done = Run(load(str(recipe)), work / "run", device=choose_device(plan.device), tell=tell).train()
    done.checkpoint.replace(work / "model")
    stage = done.stages[0]
    return {
        "steps": stage.steps,
        "first_loss": stage.first_loss,
        "last_loss": stage.last_loss,
        "seconds": stage.seconds,
    }
