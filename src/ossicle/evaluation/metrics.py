"""Scores and their uncertainty: accuracy, macro-F1, average precision, word error rate; Wilson and cluster bootstrap.

    accuracy   = right / n                      95 % interval: Wilson, or a bootstrap that draws whole clusters
    macro-F1   = mean over classes of 2·TP / (2·TP + FP + FN)
    AP         = Σ (R_k − R_{k−1}) · P_k        over falling score thresholds, equal scores at once
    WER        = (S + D + I) / reference words  summed over the corpus, by jiwer

Clips of one recording or speaker are alike, so they are drawn together; with fewer than `MIN_CLUSTERS` clusters that
says nothing, the interval is by clip, and flagged. Source: our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ossicle.errors import require

MIN_CLUSTERS = 8
Z_95 = 1.959963984540054


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A 95 % interval.

    Attributes:
        low: Lower end.
        high: Upper end.
        method: `wilson`, `cluster bootstrap` or `bootstrap`.
        clusters: How many groups of clips there are.
        flagged: There are too few clusters, so clips were treated as independent.
    """

    low: float
    high: float
    method: str
    clusters: int
    flagged: bool = False


def wilson(right: float, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson interval of a share.

    Example:
        >>> [round(end, 3) for end in wilson(8, 10)]
        [0.49, 0.943]
    """
    if n == 0:
        return 0.0, 1.0
    share, z2 = right / n, Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def resample_sums(
    columns: np.ndarray, clusters: Sequence[str], *, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, int]:
    """Draw clusters with replacement and sum their rows.

    Args:
        columns: (n, K) values of each clip.
        clusters: Group of each clip.
        resamples: How many draws.
        seed: Of the draws.

    Returns:
        (resamples, K) sums, and the number of clusters.
    """
    names, index = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, index, columns)
    weights = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=resamples)
    return weights @ sums, len(names)


def interval(values: Sequence[float], clusters: Sequence[str], *, seed: int = 0) -> Interval:
    """Return the 95 % interval of the mean of values in 0..1.

    Args:
        values: Score of each clip, 0..1.
        clusters: Group of each clip (speaker, recording).
        seed: Of the bootstrap.
    """
    scores = np.asarray(values, dtype=float)
    count = len(set(clusters))
    low, high = wilson(float(scores.sum()), len(scores))
    flagged = count < min(MIN_CLUSTERS, len(scores))
    if flagged or count == len(scores):
        return Interval(low=low, high=high, method="wilson", clusters=count, flagged=flagged)
    sums, _ = resample_sums(np.stack([scores, np.ones_like(scores)], 1), clusters, seed=seed)
    low, high = np.quantile(sums[:, 0] / sums[:, 1], [0.025, 0.975])
    if low == high:  # every clip alike: the bootstrap cannot see any spread, the number of clusters still bounds it
        low, high = wilson(float(scores.mean()) * count, count)
    return Interval(low=float(low), high=float(high), method="cluster bootstrap", clusters=count)


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[str]) -> Interval:
    """Return the 95 % bootstrap interval of Σ numerators / Σ denominators, as for an error rate."""
    count = len(set(clusters))
    flagged = count < min(MIN_CLUSTERS, len(numerators))
    groups = [str(i) for i in range(len(numerators))] if flagged else list(clusters)
    sums, _ = resample_sums(np.stack([np.asarray(numerators, float), np.asarray(denominators, float)], 1), groups)
    low, high = np.quantile(sums[:, 0] / np.maximum(sums[:, 1], 1e-12), [0.025, 0.975])
    method = "bootstrap" if flagged or count == len(numerators) else "cluster bootstrap"
    return Interval(low=float(low), high=float(high), method=method, clusters=count, flagged=flagged)


def macro_f1(truths: Sequence[str], predictions: Sequence[str]) -> float:
    """Return the unweighted mean of the F1 of every class that occurs in either list (0 where it is undefined)."""
    classes = sorted(set(truths) | set(predictions))
    return sum(f1_of(truths, predictions, name) for name in classes) / len(classes)


def f1_of(truths: Sequence[str], predictions: Sequence[str], name: str) -> float:
    """Return the F1 of one class, 0 where it neither occurs nor is predicted."""
    hits = sum(t == name == p for t, p in zip(truths, predictions, strict=True))
    total = sum(t == name for t in truths) + sum(p == name for p in predictions)
    return 2 * hits / total if total else 0.0


def average_precision(truth: Sequence[bool], scores: Sequence[float]) -> float:
    """Return the average precision of one class; clips of equal score enter together; 0 without positives."""
    order = np.argsort(-np.asarray(scores, dtype=float), kind="stable")
    ranked = np.asarray(scores, dtype=float)[order]
    hits = np.cumsum(np.asarray(truth, dtype=float)[order])
    if hits[-1] == 0:
        return 0.0
    ends = np.append(np.nonzero(np.diff(ranked))[0], len(ranked) - 1)
    recall = hits[ends] / hits[-1]
    precision = hits[ends] / (ends + 1)
    return float(np.sum(np.diff(recall, prepend=0.0) * precision))


def edits(reference: str, hypothesis: str, *, characters: bool = False) -> tuple[int, int]:
    """Return (edits, units of the reference) between two normalised texts, units being words or characters."""
    jiwer = require("jiwer", "eval")
    if not reference:
        return len(hypothesis if characters else hypothesis.split()), 0
    measure: Callable = jiwer.process_characters if characters else jiwer.process_words
    out = measure(reference, hypothesis)
    return out.substitutions + out.deletions + out.insertions, out.hits + out.substitutions + out.deletions


def error_rate(references: Sequence[str], hypotheses: Sequence[str], *, characters: bool = False) -> float:
    """Return the corpus word (or character) error rate of normalised texts."""
    pairs = [edits(r, h, characters=characters) for r, h in zip(references, hypotheses, strict=True)]
    return sum(e for e, _ in pairs) / max(1, sum(n for _, n in pairs))
