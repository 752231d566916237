"""From raw answers to scores: parse, compare with the truth, put an interval and the controls beside every number.

    item + reply ──parser──► what it says | unparsed ──► (credit, weight) ──► value = Σ credit / Σ weight

`(credit, weight)` is (0 or 1, 1) for accuracy, (edits, reference words) for error rates, (right names, names) for the
precision of captions. An unparsed answer is counted by itself and scored wrong. A task of several rows has the mean of
its rows as value.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ossicle.evaluation import metrics
from ossicle.evaluation.answers import AnswerStore, Request
from ossicle.evaluation.captions import cider_d
from ossicle.evaluation.controls import asked, asked_blind, gain, length_answers, majority_answer, shuffled_requests
from ossicle.evaluation.nearest import NearestLabel
from ossicle.evaluation.normalise import normalise
from ossicle.evaluation.parse import parse, refuses
from ossicle.evaluation.task import Item, RowSpec, Task

LOWER_IS_BETTER = {"wer", "cer", "mae"}
GAINED = ("blind", "shuffled", "majority")
"""Controls that the gain is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Marked:
    """One answer with its mark.

    Attributes:
        item: What was asked.
        answer: Raw words.
        said: What the parser read, None = unparsed.
        credit: Numerator of the row's ratio.
        weight: Denominator of the row's ratio.
        refused: The answer says that it cannot answer.
        embedded: The reading came from a text embedding, not from a listed word.
    """

    item: Item
    answer: str
    said: Any
    credit: float
    weight: float
    refused: bool = False
    embedded: bool = False


@dataclass(slots=True, kw_only=True)
class RowScore:
    """All marks of one row, under the model and under its controls."""

    name: str
    spec: RowSpec
    marks: list[Marked]
    controls: dict[str, list[Marked]] = field(default_factory=dict)
    majority_from_set: bool = False

    @property
    def lower_is_better(self) -> bool:
        """Whether the metric is an error."""
        return self.spec.metric in LOWER_IS_BETTER


def ratio(marks: Sequence[Marked]) -> float | None:
    """Return Σ credit / Σ weight, None without marks."""
    weight = sum(mark.weight for mark in marks)
    return sum(mark.credit for mark in marks) / weight if weight else None


def balanced(marks: list[Marked]) -> list[Marked]:
    """Return the marks weighted so that every true label counts alike."""
    counts = Counter(str(mark.item.truth) for mark in marks)
    shares = {label: len(marks) / (len(counts) * count) for label, count in counts.items()}
    return [replace(m, credit=m.credit * (w := shares[str(m.item.truth)]), weight=m.weight * w) for m in marks]


def mark(
    item: Item,
    row: RowSpec,
    answer: str,
    vocabulary: Mapping[str, Sequence[str]],
    near: NearestLabel | None = None,
) -> Marked:
    """Return one answer read and compared with the truth; `near` reads labels that no listed word names."""
    said = parse(row.parser, answer, item.options or vocabulary)
    embedded = said is None and near is not None and row.parser == "label"
    if embedded and near is not None:
        said = near(answer, vocabulary)
    credit, weight = CREDITS[row.metric](item.truth, said)
    return Marked(
        item=item,
        answer=answer,
        said=said,
        credit=credit,
        weight=weight,
        refused=refuses(answer),
        embedded=embedded and said is not None,
    )


def _accuracy(truth: Any, said: Any) -> tuple[float, float]:
    return float(said is not None and said == truth), 1.0


def _errors(truth: str, said: str | None, *, characters: bool = False) -> tuple[float, float]:
    edits, units = metrics.edits(normalise(truth), normalise(said or ""), characters=characters)
    return float(edits), float(max(1, units))


def _precision(truth: list[str], said: list[str] | None) -> tuple[float, float]:
    named = set(said or ())
    return float(len(named & set(truth))), float(max(1, len(named)))


def _absolute(truth: float, said: float | None) -> tuple[float, float]:
    return abs(truth - (said if said is not None else 0.0)), 1.0


CREDITS: dict[str, Callable[[Any, Any], tuple[float, float]]] = {
    "accuracy": _accuracy,
    "balanced_accuracy": _accuracy,
    "wer": _errors,
    "cer": lambda truth, said: _errors(truth, said, characters=True),
    "precision": _precision,
    "cider_d": lambda truth, said: (0.0, 1.0),
    "mae": _absolute,
}


def captions_marked(marks: list[Marked]) -> list[Marked]:
    """Return the marks of captions: CIDEr-D of each, whose document frequencies come from all references."""
    _, scores = cider_d([mark.answer for mark in marks], [mark.item.truth for mark in marks])
    return [replace(mark, credit=score) for mark, score in zip(marks, scores, strict=True)]


def task_requests(task: Task, *, seed: int, controls: bool = True) -> list[Request]:
    """Return everything that has to be asked for a task and its controls."""
    requests = []
    for name, row in task.spec.rows.items():
        items = [item for item in task.items if item.row == name]
        requests += [asked(item, row) for item in items]
        if controls:
            requests += [asked_blind(item, row) for item in items]
            requests += list(shuffled_requests(items, row, seed=seed).values())
    return requests


def score_rows(
    task: Task, store: AnswerStore, *, seed: int, controls: bool = True, near: NearestLabel | None = None
) -> list[RowScore]:
    """Return the marks of every row of a task from the raw answers."""
    scored = []
    for name, row in task.spec.rows.items():
        items = [item for item in task.items if item.row == name]
        if not items:
            continue
        words = task.vocabularies.get(name, {})
        score = RowScore(name=name, spec=row, marks=[mark(i, row, store[asked(i, row)], words, near) for i in items])
        if controls:
            shuffled = shuffled_requests(items, row, seed=seed)
            score.controls["blind"] = [mark(i, row, store[asked_blind(i, row)], words, near) for i in items]
            score.controls["shuffled"] = [
                mark(i, row, store[shuffled[i.key]], words, near) for i in items if i.key in shuffled
            ]
            score.controls["majority"], score.majority_from_set = _majority(items, row)
            if row.parser not in ("text", "choice"):
                score.controls["length"] = _by_length(items, row, store.lengths(task.sounds, items))
        if row.metric == "cider_d":
            score.marks = captions_marked(score.marks)
            score.controls = {control: captions_marked(marks) for control, marks in score.controls.items() if marks}
        if row.metric == "balanced_accuracy":
            score.marks = balanced(score.marks)
            score.controls = {control: balanced(marks) for control, marks in score.controls.items()}
        scored.append(score)
    return scored


def _majority(items: list[Item], row: RowSpec) -> tuple[list[Marked], bool]:
    """Return the marks of the constant answer; of transcripts the best constant is to say nothing."""
    answer, from_set = ("", False) if row.parser == "text" else majority_answer(items, row)
    return [_marked(item, row, answer) for item in items], from_set


def _by_length(items: list[Item], row: RowSpec, seconds: Mapping[str, float]) -> list[Marked]:
    """Return the marks of what the length of the clips alone tells."""
    answers = length_answers(items, row, seconds)
    return [_marked(item, row, answer) for item, answer in zip(items, answers, strict=True)]


def _marked(item: Item, row: RowSpec, answer: Any) -> Marked:
    """Return an answer that no model gave, with its mark."""
    credit, weight = CREDITS[row.metric](item.truth, answer)
    return Marked(item=item, answer=str(answer), said=answer, credit=credit, weight=weight)


def row_report(score: RowScore, *, seed: int = 0) -> dict[str, Any]:
    """Return one row as it stands in the results."""
    return _report([score], seed=seed)


def task_report(scores: Sequence[RowScore], *, seed: int = 0) -> dict[str, Any]:
    """Return a task as it stands in the results: the mean of its rows, and the rows themselves."""
    counted = [score for score in scores if score.spec.counts] or list(scores)
    report = _report(counted, seed=seed)
    if len(scores) > 1:
        report["rows"] = {score.name: row_report(score, seed=seed) for score in scores}
    return report


def _report(scores: Sequence[RowScore], *, seed: int) -> dict[str, Any]:
    marks = [mark for score in scores for mark in score.marks]
    value = _mean([ratio(score.marks) for score in scores])
    names = [name for name in (*GAINED, "length") if any(name in score.controls for score in scores)]
    controls = {name: _mean([ratio(score.controls.get(name, [])) for score in scores]) for name in names}
    gained = {name: controls[name] for name in names if name in GAINED}
    spread = spread_of(scores, seed=seed)
    report: dict[str, Any] = {
        "metric": scores[0].spec.metric,
        "value": value,
        "ci95": [spread.low, spread.high],
        "n": len(marks),
        "unparsed": sum(mark.said is None for mark in marks),
        **{name: controls.get(name) for name in (*GAINED, "length")},
        "gain": gain(value, gained, lower_is_better=scores[0].lower_is_better) if value is not None else None,
        "interval": {"method": spread.method, "clusters": spread.clusters, "too_few_clusters": spread.flagged},
        "refused": sum(mark.refused for mark in marks),
    }
    if kinds := _by_kind(marks, seed=seed):
        report["by"] = kinds
    if any(mark.embedded for mark in marks):
        report["read_by_embedding"] = sum(mark.embedded for mark in marks)
    if names:
        report["controls_unparsed"] = {
            name: sum(m.said is None for s in scores for m in s.controls.get(name, [])) for name in names
        }
        report["majority_from"] = "set" if any(score.majority_from_set for score in scores) else "training split"
        report["listens"] = listens(scores, seed=seed)
    return report


def _by_kind(marks: Sequence[Marked], *, seed: int) -> dict[str, dict[str, Any]]:
    """Return field → value → the score of the items of that kind, as benchmarks report it."""
    fields = list(dict.fromkeys(name for mark in marks for name in mark.item.kinds))
    return {
        name: {
            value: _one_kind([mark for mark in marks if mark.item.kinds.get(name) == value], seed=seed)
            for value in sorted({mark.item.kinds[name] for mark in marks if name in mark.item.kinds})
        }
        for name in fields
    }


def _one_kind(marks: list[Marked], *, seed: int) -> dict[str, Any]:
    spread = metrics.interval([mark.credit for mark in marks], [mark.item.cluster for mark in marks], seed=seed)
    return {"value": ratio(marks), "ci95": [spread.low, spread.high], "n": len(marks), "clusters": spread.clusters}


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def spread_of(scores: Sequence[RowScore], *, seed: int = 0) -> metrics.Interval:
    """Return the 95 % interval of a task's value; clips of one cluster are drawn together, over all rows."""
    marks = [mark for score in scores for mark in score.marks]
    clusters = [mark.item.cluster for mark in marks]
    if len(scores) == 1 and scores[0].spec.metric == "accuracy":
        return metrics.interval([mark.credit for mark in marks], clusters, seed=seed)
    if len(scores) == 1:
        return metrics.ratio_interval([m.credit for m in marks], [m.weight for m in marks], clusters)
    count = len(set(clusters))
    flagged = count < min(metrics.MIN_CLUSTERS, len(marks))
    columns = np.zeros((len(marks), 2 * len(scores)))
    index = 0
    for row, score in enumerate(scores):
        for one in score.marks:
            columns[index, 2 * row : 2 * row + 2] = one.credit, one.weight
            index += 1
    groups = [mark.item.audio for mark in marks] if flagged else clusters
    sums, _ = metrics.resample_sums(columns, groups, seed=seed)
    means = (sums[:, 0::2] / np.maximum(sums[:, 1::2], 1e-12)).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return metrics.Interval(
        low=float(low), high=float(high), method="cluster bootstrap", clusters=count, flagged=flagged
    )


def listens(scores: Sequence[RowScore], *, seed: int = 0) -> bool:
    """Return whether the answers depend on the right sound, beyond chance and beyond the length of the clips.

    The lower end of the 95 % interval of the paired difference to each control must lie above 0: to `blind`, to
    `shuffled`, and to `length` where clips have one that tells something.
    """
    sign = -1.0 if scores[0].lower_is_better else 1.0
    for name in ("blind", "shuffled", "length"):
        pairs = []
        for score in scores:
            other = {mark.item.key: mark for mark in score.controls.get(name, [])}
            pairs += [(m, other[m.item.key]) for m in score.marks if m.item.key in other]
        if not pairs and name == "length":
            continue
        if not pairs:
            return False
        columns = np.asarray([[sign * (a.credit / a.weight - b.credit / b.weight), 1.0] for a, b in pairs])
        sums, _ = metrics.resample_sums(columns, [a.item.audio for a, _ in pairs], seed=seed)
        if np.quantile(sums[:, 0] / sums[:, 1], 0.025) <= 0:
            return False
    return True
