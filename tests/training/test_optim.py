"""Learning rates by hand, and which weights decay."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from ossicle.training.optim import Schedule, build_optimizer, scale, set_rate


def curve(schedule: Schedule, steps: int = 10, warmup: int = 2) -> list[float]:
    return [scale(step, steps=steps, warmup=warmup, schedule=schedule) for step in range(steps)]


def test_schedules_by_hand() -> None:
    cosine = [0.5, 1.0, *[(1 + math.cos(math.pi * i / 8)) / 2 for i in range(8)]]
    assert curve(Schedule(kind="cosine")) == pytest.approx(cosine)
    assert curve(Schedule(kind="linear")) == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    assert curve(Schedule(kind="constant")) == pytest.approx([0.5] + [1.0] * 9)
    assert curve(Schedule(kind="linear", floor=0.5))[-1] == pytest.approx(0.5625)
    falling = curve(Schedule(kind="step", factor=0.75, every=5, after=15), steps=30, warmup=0)
    assert falling == pytest.approx([1.0] * 15 + [0.75] * 5 + [0.75**2] * 5 + [0.75**3] * 5)
    plain = curve(Schedule(kind="step", factor=0.5, every=4), steps=10, warmup=0)
    assert plain == pytest.approx([1] * 4 + [0.5] * 4 + [0.25] * 2)


def test_without_warmup_the_peak_comes_first_and_one_step_is_allowed() -> None:
    assert scale(0, steps=1, warmup=0, schedule=Schedule()) == 1.0


def test_vectors_do_not_decay_frozen_ones_are_left_out_and_parts_have_rates() -> None:
    model = nn.ModuleDict({"connector": nn.Linear(2, 3), "language_model": nn.Linear(3, 3)})
    model["language_model"].bias.requires_grad_(False)
    optimizer = build_optimizer(
        model.named_parameters(),
        learning_rate=1e-3,
        part_rates={"language_model": 1e-5},
        weight_decay=0.1,
        betas=(0.9, 0.95),
    )
    groups = {(g["peak"], g["weight_decay"]): sum(p.numel() for p in g["params"]) for g in optimizer.param_groups}
    assert groups == {(1e-3, 0.1): 6, (1e-3, 0.0): 3, (1e-5, 0.1): 9}
    set_rate(optimizer, 0.5)
    assert sorted({g["lr"] for g in optimizer.param_groups}) == pytest.approx([5e-6, 5e-4])


def test_one_step_is_torchs_adamw() -> None:
    torch.manual_seed(0)
    ours, theirs = nn.Linear(4, 4), nn.Linear(4, 4)
    theirs.load_state_dict(ours.state_dict())
    a = build_optimizer(
        ours.named_parameters(), learning_rate=1e-2, part_rates={}, weight_decay=0.0, betas=(0.9, 0.999)
    )
    b = torch.optim.AdamW(theirs.parameters(), lr=1e-2, weight_decay=0.0)
    for model, optimizer in ((ours, a), (theirs, b)):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()
    assert torch.equal(ours.weight, theirs.weight)
