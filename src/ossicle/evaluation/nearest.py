"""The last step of reading a label: by the meaning of the whole answer, where no listed word was found.

    answer without any known word ──embed──► cosine with every label and alias ──► nearest, if near and alone

Off unless an embedder is named, and then in the card with its thresholds. An answer that names two labels, denies one
or declines to answer stays unparsed: an embedding would only guess there.
Source: our choice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ossicle.evaluation.embedding import Embed, cosine
from ossicle.evaluation.parse import mentions, plain, refuses

LEAST = 0.75
MARGIN = 0.05
DENIED = re.compile(r"\b(?:no|not|never|without|neither|nor|cannot|\w+n't|or)\b")


class NearestLabel:
    """Finds the label whose name or alias means what an answer says.

    Args:
        embed: Text embedder.
        name: Its name, for the card.
        least: Smallest cosine that counts.
        margin: By how much the second label must be farther away.
    """

    def __init__(self, embed: Embed, name: str, *, least: float = LEAST, margin: float = MARGIN) -> None:
        self.embed, self.name, self.least, self.margin = embed, name, least, margin
        self.known: dict[tuple[str, ...], tuple[list[str], np.ndarray]] = {}

    def facts(self) -> dict[str, Any]:
        """Return what readings depend on, for the card."""
        return {"embedder": self.name, "least_cosine": self.least, "margin": self.margin}

    def __call__(self, text: str, vocabulary: Mapping[str, Sequence[str]]) -> str | None:
        """Return a label, or None where the answer is not clearly one."""
        words = plain(text)
        if not words or len(vocabulary) < 2 or refuses(text) or DENIED.search(words):
            return None
        if mentions(words, vocabulary):
            return None
        owners, vectors = self._classes(vocabulary)
        near = cosine(self.embed([words]), vectors)[0]
        best: dict[str, float] = {}
        for owner, value in zip(owners, near, strict=True):
            best[owner] = max(best.get(owner, -1.0), float(value))
        first, second = sorted(best, key=lambda label: -best[label])[:2]
        clear = best[first] >= self.least and best[first] - best[second] >= self.margin
        return first if clear else None

    def _classes(self, vocabulary: Mapping[str, Sequence[str]]) -> tuple[list[str], np.ndarray]:
        forms = [(label, form) for label, aliases in vocabulary.items() for form in dict.fromkeys((label, *aliases))]
        key = tuple(f"{label}\0{form}" for label, form in forms)
        if key not in self.known:
            self.known[key] = [label for label, _ in forms], self.embed([form.lower() for _, form in forms])
        return self.known[key]
