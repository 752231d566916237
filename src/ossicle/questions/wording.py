"""How a question is put: a task's wordings, filled, and varied as people vary them.

    wording ──fill slots──► opening? ──► closing? ──► lower case? no punctuation? a small word lost?

Source: our choice; unseen wordings of a known question stay within a few points when each task has many of them.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

FILE = Path(__file__).with_name("wordings.yaml")
SMALL_WORDS = frozenset(["the", "a", "do", "you", "is", "this", "in", "of", "that", "it", "can", "are"])


@cache
def grammar() -> dict[str, Any]:
    """Return the file of wordings."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def tasks() -> list[str]:
    """Return the tasks that have wordings."""
    return sorted(grammar()["tasks"])


def ask(task: str, rng: np.random.Generator, x: str = "") -> str:
    """Return one question of a task; `x` is what it asks about, where it does."""
    book = grammar()
    wordings = book["tasks"][task]
    text = wordings[rng.integers(len(wordings))]
    for slot, words in book["slots"].items():
        while f"{{{slot}}}" in text:
            word = words[0] if rng.random() < 0.5 else words[rng.integers(len(words))]
            text = text.replace(f"{{{slot}}}", word, 1)
    return vary(text.replace("{x}", x), rng)


def vary(text: str, rng: np.random.Generator) -> str:
    """Return a text as a hurried or a polite person would type it; half of the texts stay as they are."""
    if rng.random() < 0.5:
        return text
    book = grammar()
    if rng.random() < 0.3:
        text = f"{_any(book['opening'], rng)} {text[0].lower()}{text[1:]}"
    if rng.random() < 0.12:
        text = f"{text[:-1]}, {_any(book['closing'], rng)}{text[-1]}"
    if rng.random() < 0.12:
        text = _lose_a_word(text, rng)
    if rng.random() < 0.35:
        text = text.lower()
    if rng.random() < 0.3:
        text = re.sub(r"[?.,:]", "", text)
    return text


def _lose_a_word(text: str, rng: np.random.Generator) -> str:
    words = text.split()
    small = [i for i, word in enumerate(words) if word.lower() in SMALL_WORDS]
    if len(words) < 4 or not small:
        return text
    lost = small[rng.integers(len(small))]
    return " ".join(words[:lost] + words[lost + 1 :])


def _any(words: list[str], rng: np.random.Generator) -> str:
    return words[rng.integers(len(words))]
