"""The optimiser and its learning rate over a stage.

    lr(s) = peak · s/w                          for s < w (warm-up, from 1/w)
    lr(s) = peak · decay((s − w) / (S − w))     cosine: (1 + cos πx)/2   linear: 1 − x   constant: 1   step: γ^⌊s/every⌋

AdamW; weight decay on matrices only, never on norms, biases, scales and other vectors. Source: Loshchilov and Hutter
(arXiv 1711.05101); decay on matrices only is the usual practice.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Literal

import torch
from torch import nn

from ossicle.config import Section
from ossicle.training import freeze, shard


class Schedule(Section):
    """How the learning rate falls after warm-up.

    Attributes:
        kind: Form of the fall.
        floor: Share of the peak at which `cosine` and `linear` end.
        factor: What `step` multiplies by.
        every: Steps between two such falls.
        after: First step at which `step` may fall.
    """

    kind: Literal["cosine", "linear", "constant", "step"] = "cosine"
    floor: float = 0.0
    factor: float = 0.5
    every: int = 1000
    after: int = 0


def scale(step: int, *, steps: int, warmup: int, schedule: Schedule) -> float:
    """Return the share of the peak learning rate at a step (from 0) of a stage of `steps`.

    Example:
        >>> [round(scale(s, steps=4, warmup=2, schedule=Schedule(kind="linear")), 2) for s in range(4)]
        [0.5, 1.0, 1.0, 0.5]
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule.kind == "constant":
        return 1.0
    if schedule.kind == "step":
        falls = max(0, step - schedule.after) // schedule.every + (1 if step >= schedule.after > 0 else 0)
        return float(schedule.factor**falls)
    x = (step - warmup) / max(1, steps - warmup)
    fall = (1 + math.cos(math.pi * x)) / 2 if schedule.kind == "cosine" else 1 - x
    return schedule.floor + (1 - schedule.floor) * fall


def build_optimizer(
    named: Iterable[tuple[str, nn.Parameter]],
    *,
    learning_rate: float,
    part_rates: Mapping[str, float],
    weight_decay: float,
    betas: tuple[float, float],
) -> torch.optim.AdamW:
    """Return AdamW over what trains; each group keeps its peak rate in `peak`.

    Args:
        named: Parameters with names; those without `requires_grad` are left out.
        learning_rate: Peak rate of all that `part_rates` does not name.
        part_rates: Part, prefix or regular expression to its own peak rate; the first that matches wins.
        weight_decay: On parameters with two or more dimensions.
        betas: Decay of the two moments.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}  # torch steps shares and whole ones apart
    for name, parameter in named:
        if parameter.requires_grad:
            rate = next((r for pattern, r in part_rates.items() if freeze.matches(name, pattern)), learning_rate)
            decay = weight_decay if parameter.dim() >= 2 else 0.0
            groups.setdefault((rate, decay, shard.is_share(parameter)), []).append(parameter)
    listed = [
        {"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay}
        for (rate, decay, _), parameters in groups.items()
    ]
    return torch.optim.AdamW(listed, betas=betas)


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> float:
    """Set every group to a share of its peak; return the first group's rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return float(optimizer.param_groups[0]["lr"])
