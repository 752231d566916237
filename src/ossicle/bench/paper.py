"""What a run at full size takes, on paper: operations over what a machine is taken to sustain. Nothing here was run.

    hours(n) = Σ_stages samples · operations a sample / (n · peak · utilisation · scaling(n)) / 3600
    cost(n)  = hours(n) · n · price of a device and hour

    operations a sample   decoder   forward and backward (bench.flops): frozen weights need no gradient of their own;
                                    recomputed layers run forward once more
                          connector 6 · weights · tokens
                          encoder   one forward of ten seconds, three where it trains, none where its outputs are kept
                                    from an epoch before (a first epoch pays it)

`Assumed` holds what was not measured: a device's peak, the share of it that a step reaches, what is lost between
devices, a price. A measured share of matrix products (`bench integrations --matrices`) says how far a step is from them
on the machine at hand; it is no measurement of a GPU. Source: our choice.

    python -m ossicle.bench.paper                    the plans below, as JSON
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ossicle.bench.flops import Trained, forward_flops, train_flops

DEVICES = (1, 8, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumed:
    """What is taken as given of a GPU and its price.

    Attributes:
        peak: Dense bf16 operations a second: an H100 SXM's data sheet.
        utilisation: Share of it that a step sustains.
        scaling: Share of that left with so many devices.
        price: Of a device and hour, in dollars.
    """

    peak: float = 989e12
    utilisation: float = 0.4
    scaling: Mapping[int, float] = field(default_factory=lambda: {1: 1.0, 8: 0.95, 64: 0.9})
    price: float = 2.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run: a recipe's name, and the samples of each stage with the text and label tokens of one."""

    recipe: str
    samples: tuple[int, ...]
    text_tokens: int
    label_tokens: int
    clip_s: float = 10.0


PLANS = (
    Plan(recipe="ltu-as", samples=(16190 * 256, 17270 * 240, 34434 * 280), text_tokens=108, label_tokens=108),
    Plan(recipe="pal-v2-llama-3.2-1b", samples=(1_200_000, 1_900_000, 5_600_000), text_tokens=108, label_tokens=50),
)
"""LTU-AS as it was run (steps · batch); PAL v2 over OpenAQA (LTU, arXiv 2305.10790), each stage one epoch."""


def estimate(plan: Plan, assumed: Assumed | None = None) -> dict[str, Any]:
    """Return operations of each stage, and hours and cost by number of devices.

    Args:
        plan: The run.
        assumed: What is taken as given; None = the defaults.
    """
    from ossicle.training.build import outline
    from ossicle.training.inspection import encoder_work, stream_facts
    from ossicle.training.recipe import load
    from ossicle.training.run import prepare

    given, recipe = assumed or Assumed(), load(plan.recipe).recipe
    model = outline(recipe)
    work = encoder_work(model, stream_facts(model))
    stages = []
    for stage, samples in zip(recipe.stages, plan.samples, strict=True):
        prepare(model, stage)
        stages.append({"name": stage.name, "samples": samples, "flops": _per_sample(model, stage, work, plan)})
    total = sum(row["samples"] * row["flops"] for row in stages)
    hours = {n: total / (n * given.peak * given.utilisation * given.scaling[n]) / 3600 for n in DEVICES}
    return {
        "recipe": plan.recipe,
        "stages": stages,
        "flops": total,
        "hours": {str(n): round(h, 1) for n, h in hours.items()},
        "dollars": {str(n): round(h * n * given.price) for n, h in hours.items()},
    }


def _per_sample(model: Any, stage: Any, work: Mapping[str, int], plan: Plan) -> int:
    """Return the operations of one training sample of a stage."""
    from ossicle.training import estimate as rough
    from ossicle.training import freeze

    by_part = {row.part: row.trainable for row in freeze.table(model)}
    sample = rough.Sample(clip_s=plan.clip_s, text_tokens=plan.text_tokens, label_tokens=plan.label_tokens)
    config, tokens = model.config.text_config, rough.tokens_of(model, plan.clip_s)
    whole = bool(by_part.get("language_model"))
    how = Trained(base=whole, feed_forward=whole, checkpointing=stage.gradient_checkpointing)
    decoder = train_flops(config, tokens, text=plan.text_tokens, labels=plan.label_tokens, trained=how)
    forward = forward_flops(config, tokens, text=plan.text_tokens, heads_at=plan.label_tokens)
    beside = rough.train_flops(model, stage, work, sample) - forward * (3 if whole else 2)
    return decoder + beside


if __name__ == "__main__":
    sys.stdout.write(json.dumps({"assumed": asdict(Assumed()), "runs": [estimate(plan) for plan in PLANS]}) + "\n")
