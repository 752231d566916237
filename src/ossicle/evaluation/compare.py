"""Two cards, item by item: is the difference more than chance, and how large would it have to be to be seen?

    delta      = value(B) − value(A), over the items that both cards hold
    ci95       paired bootstrap over clusters
    p          exact test of delta that swaps the cards within clusters: McNemar's test where each item is a cluster
               of its own and marks are 0 or 1; corrected for the number of tasks by Holm's method
    smallest   = (1.96 + 0.84) · standard error of delta: seen with probability 0.8 at 5 %

Two items are one where both cards were measured on the same questions, or where question, truth and sound of that item
are the same; its key alone says nothing, as composed tasks only number what they draw.

Items of one cluster (the rotations of a question, the clips of a recording) are alike, so they swap together. With
fewer than `MIN_CLUSTERS` clusters items are taken as independent, and flagged.

Source: McNemar 1947; Fisher 1935 (the test of swapped signs); Holm 1979; our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ossicle.errors import DataError
from ossicle.evaluation.metrics import MIN_CLUSTERS, resample_sums

Z_80_PERCENT_POWER = 1.959964 + 0.841621
STEPS = 20_000
"""Steps into which the sum of all differences is cut where they have no common measure."""


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p value of a split of discordant pairs.

    Example:
        >>> round(mcnemar(1, 9), 4)
        0.0215
    """
    n, low = only_first + only_second, min(only_first, only_second)
    if n == 0:
        return 1.0
    tail = math.fsum(math.exp(_log_choose(n, k) - n * math.log(2)) for k in range(low + 1))
    return min(1.0, 2 * tail)


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)


def swapped_signs(differences: np.ndarray) -> float:
    """Return the exact two-sided p value of a sum of differences, each of which might as well have the other sign.

    Args:
        differences: (clusters,) differences; zeros say nothing.

    Example:
        >>> round(swapped_signs(np.array([1.0] * 9 + [-1.0])), 4) == round(mcnemar(1, 9), 4)
        True
    """
    sizes = np.abs(differences)
    differences = differences[sizes > 1e-9 * sizes.max(initial=0.0)]
    if not differences.size:
        return 1.0
    least, total = np.abs(differences).min(), np.abs(differences).sum()
    tried = (least / parts for parts in range(1, 13) if total / least * parts <= STEPS)
    step = next((one for one in tried if np.abs(differences / one - np.rint(differences / one)).max() < 1e-6), None)
    steps = np.rint(differences / (step or total / STEPS)).astype(int)
    reach = int(np.abs(steps).sum())
    chance = np.zeros(reach + 1)  # of each sum of the steps that have the sign +
    chance[0] = 1.0
    for size in np.abs(steps[steps != 0]):
        chance = (chance + np.concatenate([np.zeros(size), chance[:-size]])) / 2
    sums = 2 * np.arange(reach + 1) - reach
    return min(1.0, float(chance[np.abs(sums) >= abs(int(steps.sum()))].sum()))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """Return p values corrected for how many there are.

    Example:
        >>> holm({"a": 0.01, "b": 0.04})
        {'a': 0.02, 'b': 0.04}
    """
    corrected, highest = {}, 0.0
    for rank, (name, value) in enumerate(sorted(values.items(), key=lambda pair: pair[1])):
        highest = max(highest, min(1.0, value * (len(values) - rank)))
        corrected[name] = highest
    return corrected


def compare_cards(
    first: Mapping[str, Any], second: Mapping[str, Any], *, seed: int = 0, question: Callable[[str], str] = str
) -> dict[str, Any]:
    """Return the paired comparison of two cards (second minus first).

    Args:
        first: A card.
        second: Another one.
        seed: Of the bootstrap.
        question: Key of an item → what it asks; items that ask the same are never taken as independent.

    Returns:
        `tasks`: name → `delta`, `ci95`, `p`, `p_holm`, `smallest_detectable`, `n`, `left_out` (items without a
        partner), `better`; `only_in_first`, `only_in_second`: tasks without a partner; `unshared`: tasks of both
        without an item in common; `same_data`: whether both were measured on the same questions.

    Raises:
        DataError: No task or no item in common.
    """
    both = [name for name in first["marks"] if name in second["marks"]]
    if not both:
        raise DataError(
            f"the cards have no task in common: {', '.join(first['marks'])} against {', '.join(second['marks'])}"
        )
    pairs = {name: _pairs(name, first, second) for name in both}
    tasks = {name: _compare_task(name, pairs[name], first, second, seed, question) for name in both if pairs[name]}
    if not tasks:
        told = all(card.get("items") for card in (first, second))
        raise DataError(
            f"{', '.join(both)}: the cards share no item; they were measured on other clips, questions, seeds or limits"
            + ("" if told else ", or before cards told items apart: run `ossicle eval` again")
        )
    for name, value in holm({name: task["p"] for name, task in tasks.items()}).items():
        tasks[name]["p_holm"] = value
    return {
        "tasks": tasks,
        "only_in_first": sorted(set(first["marks"]) - set(both)),
        "only_in_second": sorted(set(second["marks"]) - set(both)),
        "unshared": sorted(set(both) - set(tasks)),
        "same_data": first["dataset"] == second["dataset"],
    }


def _counted(name: str, card: Mapping[str, Any]) -> list[str]:
    """Return the rows that enter a task's value."""
    return card.get("counted", {}).get(name) or list(card["marks"][name])


def _pairs(name: str, first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, list[tuple[Any, Any]]]:
    """Return the marks of the same items on both cards, of each row that has some."""
    same = first["dataset"] == second["dataset"]
    found = {}
    for row in _counted(name, first):
        mine, others = _told(name, row, first), _told(name, row, second)
        pairs = [
            (mark, others[key][0])
            for key, (mark, told) in mine.items()
            if key in others and (same or (told and told == others[key][1]))
        ]
        if pairs:
            found[row] = pairs
    return found


def _told(name: str, row: str, card: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    """Return key → mark, and the hash of what is asked; older cards have none."""
    marks = card["marks"][name].get(row, [])
    told = card.get("items", {}).get(name, {}).get(row) or [""] * len(marks)
    return {mark[0]: (mark, one) for mark, one in zip(marks, told, strict=True)}


def _compare_task(
    name: str,
    pairs: Mapping[str, list[tuple[Any, Any]]],
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    seed: int,
    question: Callable[[str], str],
) -> dict[str, Any]:
    columns, clusters, questions = [], [], []
    for index, (row, marks) in enumerate(pairs.items()):
        for (key, credit, weight, cluster), other in marks:
            line = np.zeros(4 * len(pairs))
            line[4 * index : 4 * index + 4] = credit, weight, other[1], other[2]
            columns.append(line)
            clusters.append(str(cluster))
            questions.append(f"{row}/{question(key)}")
    either = {
        (row, mark[0]) for card in (first, second) for row in _counted(name, card) for mark in card["marks"][name][row]
    }
    table = np.stack(columns)
    delta = float(_delta(table.sum(0, keepdims=True))[0])
    flagged = len(set(clusters)) < min(MIN_CLUSTERS, len(set(questions)))
    groups = questions if flagged else clusters
    drawn = _delta(resample_sums(table, groups, seed=seed)[0])
    lower_is_better = first["tasks"][name].get("metric") in ("wer", "cer", "mae")
    sign = -delta if lower_is_better else delta
    return {
        "metric": first["tasks"][name].get("metric"),
        "delta": delta,
        "ci95": [float(end) for end in np.quantile(drawn, [0.025, 0.975])],
        "p": swapped_signs(_differences(table, groups)),
        "smallest_detectable": float(Z_80_PERCENT_POWER * drawn.std(ddof=1)),
        "n": len(columns),
        "left_out": len(either) - len(columns),
        "better": "second" if sign > 0 else "first" if sign < 0 else "neither",
        "too_few_clusters": flagged,
    }


def _delta(sums: np.ndarray) -> np.ndarray:
    """Return the mean over rows of value(second) − value(first), for (R, 4·rows) sums; rows without weight are out."""
    shares = sums.reshape(len(sums), -1, 4)
    there = (shares[..., [1, 3]] > 0).any(2).sum(1)
    weights = np.maximum(shares[..., [1, 3]], 1e-12)
    return (shares[..., 2] / weights[..., 1] - shares[..., 0] / weights[..., 0]).sum(1) / np.maximum(there, 1)


def _differences(table: np.ndarray, groups: Sequence[str]) -> np.ndarray:
    """Return what each group adds to delta: (groups,), with the other sign where the cards are swapped.

    A row's weight, and the value that differing weights are held against, are those of both cards together, which
    swapping leaves as they are.
    """
    shares = table.reshape(len(table), -1, 4)
    totals = shares.sum(0)  # (rows, 4)
    weights = np.maximum(totals[:, 1] + totals[:, 3], 1e-12)
    values = (totals[:, 0] + totals[:, 2]) / weights
    moved = shares[..., 2] - shares[..., 0] - values * (shares[..., 3] - shares[..., 1])  # (items, rows)
    _, index = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    there = (totals[:, [1, 3]] > 0).any(1).sum()
    return np.bincount(index, weights=(2 * moved / weights).sum(1) / max(1, there))


def comparison_table(result: Mapping[str, Any]) -> str:
    """Return a comparison as a text table."""
    lines = [f"{'task':24} {'delta':>8} {'95 %':>18} {'p':>8} {'p (Holm)':>9} {'detectable':>11} {'n':>6}"]
    for name, task in result["tasks"].items():
        spread = "–".join(f"{end:+.3f}" for end in task["ci95"])
        lines.append(
            f"{name:24} {task['delta']:+8.3f} {spread:>18} {task['p']:8.4f} {task['p_holm']:9.4f} "
            f"{task['smallest_detectable']:11.3f} {task['n']:6d}"
        )
    if not result["same_data"]:
        lines.append("The cards were measured on different questions; only the items that both hold were compared.")
    left_out = [f"{task['left_out']} of {name}" for name, task in result["tasks"].items() if task["left_out"]]
    left_out += [f"all of {name}" for name in result["unshared"]]
    if left_out:
        lines.append(
            f"Items left out, asked by one card only or with another question, truth or sound: {', '.join(left_out)}."
        )
    return "\n".join(lines)
