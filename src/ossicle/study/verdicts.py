"""What the rows of a study say: paired tests against the first row, and each claim decided, or not.

    cards of a row, one a seed ──► one table of marks (question, seed) ──compare_cards──► delta, ci95, p, smallest

Two rows are compared on the seeds both have. The bootstrap draws recordings, and p swaps them, all seeds of one
together; how much seeds differ stands beside. `all` is the mean over the kinds of questions, without word error rates
and without the tasks on another corpus.

    holds            the interval of the difference lies above what is claimed
    does not         it lies below
    cannot tell      it covers it, and `smallest_detectable` says what would have been seen; or `missing` names what was
                     not measured

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ossicle.errors import DataError
from ossicle.evaluation.compare import compare_cards, holm
from ossicle.evaluation.metrics import resample_sums
from ossicle.study.plan import Claim

LOWER_IS_BETTER = ("wer", "cer", "mae")
ALL = "all"

Cards = Mapping[int, Mapping[str, Any]]
"""Seed to card, of one row."""


def pooled(cards: Cards, seeds: Iterable[int], outside: Sequence[str]) -> dict[str, Any]:
    """Return one card of several seeds' marks, with the pooled task `all` first."""
    marks: dict[str, dict[str, list[Any]]] = {ALL: {}}
    items: dict[str, dict[str, list[str]]] = {ALL: {}}
    counted: dict[str, list[str]] = {ALL: []}
    metrics = {ALL: {"metric": "mean"}}
    for seed in seeds:
        card = cards[seed]
        for task, rows in card["marks"].items():
            kinds = card["counted"].get(task) or list(rows)
            metrics[task] = {"metric": card["tasks"][task].get("metric")}
            counted[task] = kinds
            for kind, given in rows.items():
                named = [[f"{seed}/{key}", credit, weight, f"{task}/{group}"] for key, credit, weight, group in given]
                told = card.get("items", {}).get(task, {}).get(kind) or [""] * len(given)
                marks.setdefault(task, {}).setdefault(kind, []).extend(named)
                items.setdefault(task, {}).setdefault(kind, []).extend(told)
                if kind in kinds and task not in outside and metrics[task]["metric"] not in LOWER_IS_BETTER:
                    marks[ALL].setdefault(f"{task}/{kind}", []).extend(named)
                    items[ALL].setdefault(f"{task}/{kind}", []).extend(told)
                    counted[ALL].append(f"{task}/{kind}")
    counted[ALL] = list(dict.fromkeys(counted[ALL]))
    if not marks[ALL]:
        del marks[ALL], metrics[ALL]
    dataset = [cards[seed]["dataset"] for seed in sorted(cards)]
    return {"items": items, "marks": marks, "counted": counted, "tasks": metrics, "dataset": dataset}


def score(cards: Cards, outside: Sequence[str]) -> dict[str, Any]:
    """Return a row's mean score over the kinds of questions, with its interval and what seeds differ by.

    Returns:
        `value`, `ci95`, `by_seed`, `spread` (largest minus smallest seed; None with one).
    """
    rows = pooled(cards, cards, outside)["marks"].get(ALL)
    if not rows:
        return {"value": None, "ci95": [None, None], "by_seed": {}, "spread": None}
    kinds = list(rows)
    lines, groups = [], []
    for place, kind in enumerate(kinds):
        for _, credit, weight, group in rows[kind]:
            line = np.zeros(2 * len(kinds))
            line[2 * place : 2 * place + 2] = credit, weight
            lines.append(line)
            groups.append(group)
    table = np.stack(lines)
    drawn = _mean(resample_sums(table, groups)[0])
    single = {seed: score({seed: cards[seed]}, outside)["value"] for seed in cards} if len(cards) > 1 else {}
    return {
        "value": float(_mean(table.sum(0, keepdims=True))[0]),
        "ci95": [float(end) for end in np.quantile(drawn, [0.025, 0.975])],
        "by_seed": single,
        "spread": max(single.values()) - min(single.values()) if single else None,
    }


def _mean(sums: np.ndarray) -> np.ndarray:
    """Return the mean over kinds of credit / weight, kinds that a draw left empty left out."""
    shares = sums.reshape(len(sums), -1, 2)
    there = shares[..., 1] > 0
    values = np.where(there, shares[..., 0] / np.maximum(shares[..., 1], 1e-12), 0.0)
    mean: np.ndarray = values.sum(1) / np.maximum(there.sum(1), 1)
    return mean


def compare_rows(first: Cards, second: Cards, outside: Sequence[str], *, seed: int = 0) -> dict[str, Any]:
    """Return the paired comparison of two rows, second minus first, on the seeds both have.

    Raises:
        DataError: No seed or no task in common.
    """
    seeds = sorted(set(first) & set(second))
    if not seeds:
        raise DataError("the two rows have no seed in common")
    both = [pooled({s: row[s] for s in seeds}, seeds, outside) for row in (first, second)]
    return {"seeds": seeds, **compare_cards(*both, seed=seed, question=lambda key: key.partition("/")[2])}


def tests_of(rows: Mapping[str, Cards], outside: Sequence[str]) -> list[dict[str, Any]]:
    """Return every row compared with the first one; p values of `all` are corrected for how many rows there are."""
    names = list(rows)
    tests: list[dict[str, Any]] = [
        {"first": names[0], "second": name, **compare_rows(rows[names[0]], rows[name], outside)} for name in names[1:]
    ]
    raw = {test["second"]: test["tasks"][ALL]["p"] for test in tests if ALL in test["tasks"]}
    for name, value in holm(raw).items():
        next(test for test in tests if test["second"] == name)["tasks"][ALL]["p_rows"] = value
    return tests


def decide(
    claim: Claim, rows: Mapping[str, Cards], costs: Mapping[str, Mapping[str, Any]], outside: Sequence[str]
) -> dict[str, Any]:
    """Return a claim's verdict and the numbers it stands on."""
    facts: dict[str, Any] = claim.model_dump()
    if missing := [name for name in (claim.better, claim.than) if name not in (costs if claim.cheaper else rows)]:
        return undecided(facts, missing)
    if claim.cheaper:
        share = costs[claim.better][claim.cheaper] / max(1, costs[claim.than][claim.cheaper])
        return {**facts, "measured_share": share, "verdict": "holds" if share <= claim.share else "does not"}
    found = compare_rows(rows[claim.than], rows[claim.better], outside)["tasks"]
    chosen = [found[name] for name in (claim.tasks or [ALL]) if name in found]
    if not chosen:
        return undecided(facts, claim.tasks or [ALL])
    verdicts = {_verdict(task, claim.by) for task in chosen}
    verdict = verdicts.pop() if len(verdicts) == 1 else "cannot tell"
    kept = ("delta", "ci95", "p", "smallest_detectable", "n")
    return {**facts, "verdict": verdict, "on": [{key: task[key] for key in kept} for task in chosen]}


def undecided(claim: Mapping[str, Any], missing: Sequence[str]) -> dict[str, Any]:
    """Return a claim that nobody can decide, because rows or tasks were not measured."""
    return {**claim, "verdict": "cannot tell", "missing": list(missing)}


def _verdict(task: Mapping[str, Any], by: float) -> str:
    """Return what an interval says of a claimed difference."""
    low, high = task["ci95"]
    if task["metric"] in LOWER_IS_BETTER:
        low, high = -high, -low
    return "holds" if low > by else "does not" if high < by else "cannot tell"


def pareto(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Return the names on the front: no other point costs less and scores as high, or costs the same and scores higher.

    Args:
        points: Name → (cost, score).

    Example:
        >>> pareto({"a": (1, 0.5), "b": (2, 0.4), "c": (3, 0.9)})
        ['a', 'c']
    """
    front, best = [], float("-inf")
    for name, (_, value) in sorted(points.items(), key=lambda item: (item[1][0], -item[1][1])):
        if value > best:
            front.append(name)
            best = value
    return front
