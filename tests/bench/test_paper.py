"""Time and cost on paper: the formula by hand, and plans that are those of the recipes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ossicle.bench import paper
from ossicle.training.recipe import load

KEPT = Path(__file__).parents[2] / "docs/performance/paper.json"
ROUND = paper.Assumed(peak=1e9, utilisation=0.5, scaling={1: 1.0, 8: 0.8, 64: 0.5}, price=3.0)


@pytest.fixture(scope="module")
def plan():
    stages = len(load("nano-lal").recipe.stages)
    return paper.Plan(
        recipe="nano-lal", samples=tuple(1000 * (i + 1) for i in range(stages)), text_tokens=30, label_tokens=8
    )


@pytest.fixture(scope="module")
def found(plan):
    return paper.estimate(plan, ROUND)


def test_hours_and_dollars_by_hand(plan, found):
    total = sum(samples * stage["flops"] for samples, stage in zip(plan.samples, found["stages"], strict=True))
    assert found["flops"] == total > 0
    for count, left in ROUND.scaling.items():
        hours = total / (count * 1e9 * 0.5 * left) / 3600
        assert found["hours"][str(count)] == pytest.approx(hours, abs=0.05)
        assert found["dollars"][str(count)] == pytest.approx(hours * count * 3.0, abs=0.5)


def test_what_a_plan_holds_is_what_it_costs(plan, found):
    twice = paper.estimate(replace(plan, samples=tuple(2 * n for n in plan.samples)), ROUND)
    assert twice["flops"] == 2 * found["flops"]
    longer = paper.estimate(replace(plan, clip_s=2 * plan.clip_s), ROUND)
    assert found["flops"] < longer["flops"] < 2 * found["flops"], "the text costs as before"
    with pytest.raises(ValueError, match=r"shorter|longer"):
        paper.estimate(replace(plan, samples=(*plan.samples, 1)), ROUND)


def test_the_plan_of_ltu_as_is_its_recipe():
    plan = next(plan for plan in paper.PLANS if plan.recipe == "ltu-as")
    stages = load("ltu-as").recipe.stages
    assert plan.samples == tuple(stage.steps * stage.batch_size for stage in stages)
    assert plan.samples[-1] == pytest.approx(9.6e6, rel=0.01)


def test_what_is_kept_for_the_page_follows_the_formula():
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["result"]
    given = kept["assumed"]
    assert {run["recipe"] for run in kept["runs"]} == {plan.recipe for plan in paper.PLANS}
    for run, plan in zip(kept["runs"], paper.PLANS, strict=True):
        assert [stage["samples"] for stage in run["stages"]] == list(plan.samples)
        assert run["flops"] == sum(stage["samples"] * stage["flops"] for stage in run["stages"])
        for count, left in given["scaling"].items():
            hours = run["flops"] / (int(count) * given["peak"] * given["utilisation"] * left) / 3600
            assert run["hours"][count] == pytest.approx(hours, abs=0.05)
            assert run["dollars"][count] == pytest.approx(hours * int(count) * given["price"], abs=0.5)


@pytest.mark.slow
@pytest.mark.parametrize("plan", paper.PLANS, ids=lambda plan: plan.recipe)
def test_the_page_holds_what_the_recipes_cost_today(plan):
    kept = json.loads(KEPT.read_text(encoding="utf-8"))["result"]["runs"]
    assert paper.estimate(plan) == next(run for run in kept if run["recipe"] == plan.recipe)
