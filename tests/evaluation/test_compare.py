"""Comparing and checking cards, on cards whose numbers are known."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest

from ossicle.errors import DataError
from ossicle.evaluation.compare import compare_cards, comparison_table, mcnemar, swapped_signs
from ossicle.evaluation.verify import verdict


def card(marks, *, metric="accuracy", dataset="d", answers="a", ci95=(0.0, 1.0), clusters=None):
    """Return the part of a card that comparing reads: task → credits, each of weight 1."""
    rows = {
        name: {"row": [[str(i), credit, 1.0, str(clusters[i] if clusters else i)] for i, credit in enumerate(credits)]}
        for name, credits in marks.items()
    }
    tasks = {
        name: {"metric": metric, "value": float(np.mean(credits)), "ci95": list(ci95)}
        for name, credits in marks.items()
    }
    facts = {"model": "m", "versions": "v", "dataset": dataset, "answers": answers}
    return {"marks": rows, "tasks": tasks, "counted": {name: ["row"] for name in marks}, **facts}


def told(card):
    """Return the card with what its items ask: each something of its own."""
    rows = card["marks"].items()
    items = {task: {row: [f"{row}{m[0]}" for m in marks] for row, marks in found.items()} for task, found in rows}
    return {**card, "items": items}


FIRST = [1.0] * 100 + [0.0] * 60 + [1.0] * 20 + [0.0] * 20
SECOND = [1.0] * 100 + [1.0] * 60 + [0.0] * 20 + [0.0] * 20
"""Of 200 questions both answer 100, neither 20; only the second answers 60, only the first 20."""


def test_a_paired_difference_by_hand():
    found = compare_cards(card({"t": FIRST}), card({"t": SECOND}))["tasks"]["t"]
    assert found["delta"] == pytest.approx((60 - 20) / 200)
    # variance of one paired difference: (60 + 20) / 200 − 0.2²; its mean over 200 questions has 1/200 of that
    error = math.sqrt((80 / 200 - 0.2**2) / 200)
    assert found["smallest_detectable"] == pytest.approx((1.959964 + 0.841621) * error, rel=0.06)
    assert found["ci95"] == pytest.approx([0.2 - 1.96 * error, 0.2 + 1.96 * error], abs=0.012)
    tail = sum(math.comb(80, k) for k in range(21)) / 2**80
    assert found["p"] == pytest.approx(2 * tail)
    assert (found["better"], found["n"], found["left_out"]) == ("second", 200, 0)


def test_clusters_that_move_together_detect_less():
    apart = compare_cards(card({"t": FIRST}), card({"t": SECOND}))["tasks"]["t"]
    groups = [i // 10 for i in range(200)]
    both = [card({"t": credits}, clusters=groups) for credits in (FIRST, SECOND)]
    together = compare_cards(*both)["tasks"]["t"]
    # every group of ten moves as one: the standard error grows by √10
    assert together["smallest_detectable"] == pytest.approx(math.sqrt(10) * apart["smallest_detectable"], rel=0.1)
    assert together["delta"] == apart["delta"]
    # six groups are won and two lost, the others are alike
    assert together["p"] == pytest.approx(mcnemar(2, 6))


@pytest.mark.parametrize("count", [1, 5, 9])
def test_swapped_signs_are_all_counted(count):
    rng = np.random.default_rng(count)
    for differences in (rng.integers(-3, 4, count).astype(float), rng.normal(0.4, 1.0, count)):
        sums = [sum(s * d for s, d in zip(signs, differences, strict=True)) for signs in product((-1, 1), repeat=count)]
        expected = np.mean([abs(one) >= abs(differences.sum()) - 1e-9 for one in sums])
        assert swapped_signs(differences) == pytest.approx(expected, abs=0.01)
        assert swapped_signs(-differences) == pytest.approx(swapped_signs(differences))
    assert swapped_signs(np.zeros(count)) == 1.0
    assert swapped_signs(np.array([1.0] * 3 + [-1.0] * count)) == pytest.approx(mcnemar(count, 3))


def test_rotations_of_a_question_are_no_independent_questions():
    rng = np.random.default_rng(0)
    groups = [i // 4 for i in range(160)]
    found = []
    for _ in range(200):  # two models that are equally good: each knows a question, in all its rotations, or does not
        knows = [np.repeat(rng.integers(0, 2, 40), 4).astype(float) for _ in range(2)]
        found.append(compare_cards(*(card({"t": list(marks)}, clusters=groups) for marks in knows))["tasks"]["t"]["p"])
    assert np.mean(np.asarray(found) < 0.05) <= 0.08


def test_the_p_value_is_that_of_the_difference():
    # the second card wins a little on many questions of one kind, and loses as much on few of another
    first, second = card({"t": [0.0] * 40 + [1.0] * 4}), card({"t": [0.25] * 40 + [0.75] * 4})
    for one in (first, second):
        marks = one["marks"]["t"].pop("row")
        one["marks"]["t"] |= {"many": marks[:40], "few": marks[40:]}
        one["counted"]["t"] = ["many", "few"]
    found = compare_cards(first, second)["tasks"]["t"]
    assert found["delta"] == pytest.approx(0.0)
    assert found["p"] > 0.9


def test_many_tasks_are_corrected_and_lower_errors_are_better():
    names = ["a", "b", "c"]
    few = [1.0] * 9 + [0.0]
    one, two = ({"a": FIRST, "b": FIRST, "c": few}, {"a": SECOND, "b": FIRST, "c": few[::-1]})
    found = compare_cards(card(one), card(two))["tasks"]
    assert found["a"]["p_holm"] == pytest.approx(3 * found["a"]["p"])
    assert all(found[name]["p_holm"] >= found[name]["p"] for name in names)
    assert found["b"]["better"] == "neither"
    errors = compare_cards(card({"t": FIRST}, metric="wer"), card({"t": SECOND}, metric="wer"))["tasks"]["t"]
    assert errors["better"] == "first"


def test_only_what_both_cards_hold_is_compared():
    one, two = card({"t": FIRST, "x": FIRST}), told(card({"t": SECOND[:150], "y": FIRST}, dataset="other"))
    with pytest.raises(DataError, match=r"share no item.* before cards told items apart"):
        compare_cards(one, two)
    found = compare_cards(told(one), two)
    assert (found["only_in_first"], found["only_in_second"]) == (["x"], ["y"])
    assert (found["tasks"]["t"]["n"], found["tasks"]["t"]["left_out"]) == (150, 50)
    assert "different questions" in comparison_table(found)
    assert "left out, asked by one card only or with another question, truth or sound: 50 of t." in comparison_table(
        found
    )
    with pytest.raises(DataError, match="no task in common: t against y"):
        compare_cards(card({"t": FIRST}), card({"y": FIRST}))
    second = card({"t": SECOND})
    second["marks"]["t"]["row"] = [[f"other{mark[0]}", *mark[1:]] for mark in second["marks"]["t"]["row"]]
    with pytest.raises(DataError, match="share no item"):
        compare_cards(card({"t": FIRST}), second)


def two_kinds(marks, count, *, dataset="d"):
    """Return a card whose marks are of two kinds, `count` of them many and the others few."""
    one = card({"t": marks}, dataset=dataset)
    rows = one["marks"]["t"].pop("row")
    one["marks"]["t"], one["counted"]["t"] = {"many": rows[:count], "few": rows[count:]}, ["many", "few"]
    return told(one)


def test_items_that_ask_something_else_are_no_pairs():
    first, second = two_kinds(FIRST, 100), two_kinds(SECOND, 100, dataset="other")
    second["items"]["t"]["few"] = [f"another {one}" for one in second["items"]["t"]["few"]]
    second["items"]["t"]["many"][:40] = ["another"] * 40
    found = compare_cards(first, second)["tasks"]["t"]
    assert (found["n"], found["left_out"]) == (60, 140)
    assert found["delta"] == 0.0  # all of the many are right on both
    assert compare_cards(second, first)["tasks"]["t"]["left_out"] == 140


def test_kinds_that_the_cards_do_not_share_and_those_a_draw_leaves_out_are_no_difference_of_zero():
    first, second = two_kinds([0.0] * 41, 40), two_kinds([1.0] * 41, 40)
    found = compare_cards(first, second)["tasks"]["t"]
    assert (found["ci95"], found["smallest_detectable"]) == ([1.0, 1.0], 0.0)
    second["marks"]["t"]["few"][0][0] = "none of the first"
    found = compare_cards(first, second)["tasks"]["t"]
    assert (found["delta"], found["ci95"], found["n"], found["left_out"]) == (1.0, [1.0, 1.0], 40, 2)


@pytest.mark.parametrize(
    ("credits", "answers", "expected"),
    [
        ([1.0, 0.0, 1.0, 0.0], "a", "bit for bit"),
        ([1.0, 0.0, 1.0, 0.0], "b", "within the interval"),  # the same marks for other words
        ([0.0, 1.0, 0.0, 1.0], "b", "within the interval"),
        ([1.0, 1.0, 1.0, 0.0], "b", "within the interval"),  # 0.75, the end of the interval
        ([1.0, 1.0, 1.0, 1.0], "b", "no"),
        ([0.0, 0.0, 0.0, 0.0], "b", "no"),
    ],
)
def test_verdicts(credits, answers, expected):
    old = card({"t": [1.0, 0.0, 1.0, 0.0]}, ci95=(0.25, 0.75))
    assert verdict(old, card({"t": credits}, answers=answers))["reproduces"] == expected


@pytest.mark.parametrize("changed", ["old", "new", "both"])
def test_a_task_without_a_value_does_not_reproduce(changed):
    old, new = card({"t": [1.0, 0.0]}), card({"t": [0.0, 1.0]}, answers="b")
    for one in {"old": [old], "new": [new], "both": [old, new]}[changed]:
        one["tasks"]["t"]["value"] = None
    assert verdict(old, new)["reproduces"] == "no"


def test_one_task_that_fails_or_is_gone_does_not_reproduce():
    old = card({"t": FIRST, "u": FIRST})
    new = card({"t": FIRST, "u": FIRST})
    new["tasks"]["u"] = {"error": "boom"}
    assert verdict(old, new)["reproduces"] == "no"
    assert verdict(old, new)["tasks"]["t"]["verdict"] == "bit for bit"
    del new["tasks"]["u"]
    assert verdict(old, new)["tasks"]["u"]["verdict"] == "no"
    other = card({"t": FIRST, "u": FIRST}, dataset="other")
    assert verdict(old, other)["same"] == {"model": True, "dataset": False, "versions": True}
