"""What a stage minimises: an `Objective` draws its own batches and turns each into a summed loss and a count.

    batch(step) ──► loss(batch) ──► StepLoss(total, count)          loss of a step = Σ total / Σ count

The loop divides by the count of the *whole* effective batch (all micro-batches, all processes), so that a step does not
depend on how it was cut. `batch(step)` is a pure function of (seed, stage, step): that alone makes a resumed run equal
to one that was never interrupted. Source: our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.config import Section

if TYPE_CHECKING:
    from pathlib import Path

    from ossicle.training.recipe import Recipe, Stage


class ObjectiveConfig(Section):
    """Settings that every objective has: `kind` is its name in the table of `training.objectives`."""

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StageContext:
    """What an objective may look at.

    Attributes:
        model: The whole model (`AudioLM`), on the device; its parts are `model.get_submodule("streams.x.encoder")`.
        processor: Its `AudioProcessor`.
        recipe: The resolved recipe.
        stage: The stage that runs; `stage.micro_batch_size` items go into each `batch(step)`.
        stage_index: Place of the stage in the curriculum, from 0.
        device: Where batches should go.
        data: `data.mix.Mix` of the stage's sources, or None when the stage names none.
        cache_dir: Folder for what may be computed once (rendered scenes, features), or None.
    """

    model: Any
    processor: Any
    recipe: Recipe
    stage: Stage
    stage_index: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    data: Any = None
    cache_dir: Path | None = None

    def generator(self, step: int, *, stream: int = 0) -> np.random.Generator:
        """Return the random generator of one step: the same for the same seed, stage, step and stream number."""
        return np.random.default_rng([self.recipe.seed, self.stage_index, step, stream])


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLoss:
    """The loss of one micro-batch.

    Attributes:
        total: () summed loss with gradient.
        count: What `total` is a sum over (label tokens, frames, clips); the loop divides by its global sum.
        logs: Further numbers for the log, for example `{"accuracy": 0.5}`; averaged over the micro-batches.
    """

    total: Tensor
    count: int
    logs: dict[str, float] = field(default_factory=dict)


class Objective(nn.Module):
    """Base of all objectives. Parameters of its own (heads) train with the stage and are saved in its checkpoint.

    Subclasses set `Config` and implement `batch` and `loss`. The model is *not* a submodule: reach it through
    `self.context.model`, so that heads and model keep separate names.
    """

    Config: ClassVar[type[ObjectiveConfig]] = ObjectiveConfig
    needs_data: ClassVar[bool] = False
    """The stage must name a `mix`."""

    def __init__(self, config: Any, context: StageContext) -> None:
        super().__init__()
        self.config = config
        self.context = context

    def batch(self, step: int) -> Any:
        """Return the micro-batch number `step`, on the device: a pure function of (seed, stage, step).

        `step` counts micro-batches: optimiser step s of a stage with accumulation a uses `s*a … s*a + a-1`, divided
        among the processes where there are several.
        """
        raise NotImplementedError

    def ids(self, batch: Any) -> list[str]:
        """Return the names of the samples in a batch, for the report when its loss is not a number."""
        return list(getattr(batch, "ids", []))

    def loss(self, batch: Any) -> StepLoss:
        """Return the summed loss of a batch and its count."""
        raise NotImplementedError

    def finish(self) -> dict[str, float]:
        """Run once when the stage ends (no gradients): numbers for the log, for example a held-out accuracy."""
        return {}
