"""What every row of a study spends: samples, steps and operations, known before anything is run.

    by: steps     as many samples for every row; operations are printed beside
    by: flops     steps of a row × (operations of the first row / its own); samples are printed beside

Stages that do not ask the decoder (an encoder's or a tagger's own task) are counted apart, as `before`.
Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ossicle.errors import ConfigError
from ossicle.study.plan import Budget, Job
from ossicle.training import estimate
from ossicle.training.build import outline
from ossicle.training.inspection import encoder_work, stream_facts
from ossicle.training.recipe import Loaded, Recipe
from ossicle.training.run import prepare


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a row spends.

    Attributes:
        steps: Optimiser steps of the stages that ask the decoder.
        samples: Samples they see.
        train_flops: Their operations.
        before_flops: Operations of the other stages.
        ask_flops: Operations of one question about a clip.
        memory_bytes: About the most that training holds at once.
        parameters: Of the whole model.
        trainable: Of the last stage.
        tokens: Audio tokens of a clip, by integration.
    """

    steps: int
    samples: int
    train_flops: int
    before_flops: int
    ask_flops: int
    memory_bytes: int
    parameters: int
    trainable: int
    tokens: dict[str, int]


def cost_of(loaded: Loaded, budget: Budget) -> Cost:
    """Return what a recipe spends.

    Raises:
        ConfigError: A stage has epochs instead of steps.
    """
    recipe, sample = loaded.recipe, budget.sample
    model = outline(recipe)
    work = encoder_work(model, stream_facts(model))
    steps = samples = spent = before = memory = 0
    for stage in recipe.stages:
        if stage.steps is None:
            raise ConfigError(f"study: stage '{stage.name}' of '{recipe.name}' has epochs; give 'steps'")
        trained = prepare(model, stage)
        flops = stage.steps * stage.batch_size * estimate.train_flops(model, stage, work, sample)
        memory = max(memory, estimate.memory_bytes(model, stage, sample))
        if estimate.asks_decoder(stage):
            steps, samples, spent = steps + stage.steps, samples + stage.steps * stage.batch_size, spent + flops
        else:
            before += flops
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    tokens: dict[str, int] = {}
    for kind, count in estimate.tokens_of(model, sample.clip_s):
        tokens[kind] = tokens.get(kind, 0) + count
    return Cost(
        steps=steps,
        samples=samples,
        train_flops=spent,
        before_flops=before,
        ask_flops=estimate.ask_flops(model, work, sample),
        memory_bytes=memory,
        parameters=sum(sizes.values()),
        trainable=sum(sizes[name] for name in trained),
        tokens=tokens,
    )


def settle(jobs: Sequence[Job], budget: Budget) -> list[tuple[Job, Cost]]:
    """Return every job with its cost, its steps scaled where the budget is operations.

    Raises:
        ConfigError: Rows see different numbers of samples under a budget of steps.
    """
    known: dict[str, tuple[Cost, float]] = {}
    reference: Cost | None = None
    settled = []
    for job in jobs:
        if job.row.name not in known:
            cost, share = cost_of(job.loaded, budget), 1.0
            reference = reference or cost
            if budget.by == "flops":
                share = reference.train_flops / max(1, cost.train_flops)
                cost = cost_of(_scaled(job.loaded, share), budget)
            elif cost.samples != reference.samples:
                raise ConfigError(
                    f"study: row '{job.row.name}' sees {cost.samples:,} samples and the first row "
                    f"{reference.samples:,}; give both the same steps and batch_size, or budget.by: flops"
                )
            known[job.row.name] = cost, share
        cost, share = known[job.row.name]
        settled.append((job if share == 1.0 else replace(job, loaded=_scaled(job.loaded, share)), cost))
    return settled


def _scaled(loaded: Loaded, share: float) -> Loaded:
    """Return a recipe whose stages that ask the decoder have `share` of their steps, at least one."""
    stages = [
        stage.model_copy(update={"steps": max(1, round(share * (stage.steps or 0)))})
        if estimate.asks_decoder(stage)
        else stage
        for stage in loaded.recipe.stages
    ]
    recipe: Recipe = loaded.recipe.model_copy(update={"stages": stages})
    return replace(loaded, recipe=recipe)


def budget_text(settled: Sequence[tuple[Job, Cost]]) -> str:
    """Return the budget for people, a line for each row."""
    rows: dict[str, tuple[Cost, list[int]]] = {}
    for job, cost in settled:
        rows.setdefault(job.row.name, (cost, []))[1].append(job.seed)
    width = max(len(name) for name in rows)
    return "\n".join(
        f"{name:<{width}}  {cost.steps:,} steps, {cost.samples:,} samples, {si(cost.train_flops)}FLOP to train, "
        f"{si(cost.ask_flops)}FLOP a question, seeds {', '.join(map(str, seeds))}"
        for name, (cost, seeds) in rows.items()
    )


def si(value: Any) -> str:
    """Return a number with three digits and a prefix.

    Example:
        >>> si(1234567)
        '1.23 M'
    """
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")):
        if abs(value) >= 10**power:
            return f"{value / 10**power:.3g} {prefix}"
    return f"{value:.3g} "
