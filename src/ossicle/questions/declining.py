"""How much a sentence sounds like one that declines to answer, learnt from two lists of sentences.

    sentence ─► which words and pairs of neighbours it has: x ∈ {0, 1}ᴰ ─► p = 1 / (1 + exp(−w·x))
    w = Σ αᵢ xᵢ          (K + S⁻¹) α = K α + S⁻¹ (t − p),   K = X Xᵀ,   S = diag(C cᵢ pᵢ (1 − pᵢ))

The lists (`templates/declines.yaml`) are data: a user may add to them. Learning takes a tenth of a second and gives the
same weights everywhere; both classes weigh the same. Source: logistic regression by Newton's method in its dual form;
lists and features are ours.
"""

from __future__ import annotations

import re
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import yaml

FILE = Path(__file__).parent / "templates" / "declines.yaml"
FAITH = 1.0
"""C: how much the sentences weigh against small weights."""
STEPS = 12
LEAST = 1e-6
WORD = re.compile(r"[a-z]+|\d+|[.;,!?]")
SENTENCE = re.compile(r"(?<=[.!?])\s+")


def features(sentence: str) -> set[str]:
    """Return the words of a sentence and the pairs of neighbours, its beginning and end among them.

    Example:
        >>> sorted(features("It can't be."))
        ['$', '.', '. $', '^', '^ it', 'be', 'be .', 'can', 'can not', 'it', 'it can', 'not', 'not be']
    """
    plain = sentence.lower().replace("’", "'").replace("can't", "can not").replace("cannot", "can not")
    words = ["^", *WORD.findall(plain.replace("n't", " not")), "$"]
    return {*words, *(f"{one} {other}" for one, other in pairwise(words))}


@lru_cache(maxsize=2)
def weights(path: Path = FILE) -> dict[str, float]:
    """Return what every word and pair adds to the log-odds of declining.

    Args:
        path: YAML with two lists, `none` (they decline) and `answers`.
    """
    book = yaml.safe_load(path.read_text(encoding="utf-8"))
    return learn(book["none"], book["answers"])


def learn(none: list[str], answers: list[str]) -> dict[str, float]:
    """Return the weights that two lists of sentences teach."""
    rows = [features(text) for text in (*none, *answers)]
    names = sorted(set().union(*rows))
    number = {name: i for i, name in enumerate(names)}
    held = np.zeros((len(rows), len(names)))
    for row, found in enumerate(rows):
        held[row, [number[name] for name in found]] = 1
    target = np.array([1.0] * len(none) + [0.0] * len(answers))
    count = FAITH * len(rows) / 2 / np.where(target == 1, len(none), len(answers))
    kernel = held @ held.T
    alpha = np.zeros(len(rows))
    for _ in range(STEPS):
        odds = kernel @ alpha
        share = 1 / (1 + np.exp(-odds))
        bend = np.maximum(share * (1 - share), LEAST)
        alpha = np.linalg.solve(kernel + np.diag(1 / (count * bend)), odds + (target - share) / bend)
    return dict(zip(names, (held.T @ alpha).tolist(), strict=True))


def declines(text: str) -> float:
    """Return the probability (0 to 1) that some sentence of a text declines.

    Example:
        >>> declines("Nothing lets us tell her age.") > 0.5 > declines("She is about thirty.")
        True
    """
    known = weights()
    odds = max(sum(known.get(name, 0.0) for name in features(part)) for part in SENTENCE.split(text.strip()))
    return float(1 / (1 + np.exp(-odds)))
