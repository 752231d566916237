"""What training on audio has cost: questions in text alone, before and after.

    forgotten = accuracy(before) − accuracy(now)          p: exact test by swapping whole questions (`compare`)

Every question is asked with each rotation of its three options, so that a liked letter gains nothing; the interval is
by question. `before` is the decoder that training started from (or any model), where somebody names one.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ossicle.evaluation.answers import BLIND, Answerer, AnswerStore, Request, collect
from ossicle.evaluation.choices import asked, rotations
from ossicle.evaluation.compare import swapped_signs
from ossicle.evaluation.metrics import interval
from ossicle.evaluation.parse import choice

FILE = Path(__file__).with_name("text_only.yaml")
MAX_NEW_TOKENS = 32


@cache
def questions() -> list[tuple[str, tuple[str, ...]]]:
    """Return (question, options) of the shipped set; the first option is the right one."""
    rows = yaml.safe_load(FILE.read_text(encoding="utf-8"))["questions"]
    return [(str(question), tuple(map(str, options))) for question, *options in rows]


def measure(answerer: Answerer, store: AnswerStore, *, batch_size: int = 32, seed: int = 0) -> dict[str, Any]:
    """Ask what is missing and return the accuracy with its interval, and the mark of every question.

    Args:
        answerer: The model, asked without a sound.
        store: Where replies go.
        batch_size: Questions at once.
        seed: Of the interval.
    """
    turns = [(number, q, turn) for number, (q, options) in enumerate(questions()) for turn in rotations(options)]
    requests = [
        Request(task="", audio=BLIND, question=asked(q, turn), max_new_tokens=MAX_NEW_TOKENS) for _, q, turn in turns
    ]
    collect(answerer, requests, {}, store, batch_size=batch_size, label="text only")
    said = [choice(store[request], turn) for request, (_, _, turn) in zip(requests, turns, strict=True)]
    right = [float(text == questions()[number][1][0]) for text, (number, _, _) in zip(said, turns, strict=True)]
    spread = interval(right, [str(number) for number, _, _ in turns], seed=seed)
    return {
        "metric": "accuracy",
        "value": float(np.mean(right)),
        "ci95": [spread.low, spread.high],
        "n": len(right),
        "unparsed": sum(text is None for text in said),
        "questions": len(questions()),
        "marks": [int(mark) for mark in right],
        "before": None,
    }


def against(now: dict[str, Any], before: dict[str, Any], name: str) -> dict[str, Any]:
    """Return the result with what was known before training, and what of it is forgotten."""
    turns = now["n"] // now["questions"]  # rotations of one question are no questions of their own
    gains = np.array(now["marks"]) - np.array(before["marks"])
    kept = {key: before[key] for key in ("value", "ci95", "n", "unparsed")}
    return {
        **now,
        "before": {"model": name, **kept},
        "forgotten": before["value"] - now["value"],
        "p": swapped_signs(gains.reshape(-1, turns).sum(1).astype(float)),
    }
