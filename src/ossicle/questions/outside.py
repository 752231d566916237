"""Questions outside the model's skills, and the one answer to them: that it cannot, and what it can do instead."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ossicle.questions.wording import vary

FILE = Path(__file__).with_name("outside.yaml")


@cache
def book() -> dict[str, Any]:
    """Return the file of questions."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))


def answer() -> str:
    """Return what is said to a question outside the skills."""
    return str(book()["answer"])


def ask(rng: np.random.Generator) -> str:
    """Return one question that nano cannot answer."""
    questions, slots = book()["questions"], book()["slots"]
    text = str(questions[rng.integers(len(questions))])

    def fill(match: re.Match[str]) -> str:
        words = slots[match[1]]
        return str(words[rng.integers(len(words))])

    return vary(re.sub(r"\{(\w+)\}", fill, text), rng)
