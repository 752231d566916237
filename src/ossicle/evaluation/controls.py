"""What a score is worth: the same questions asked without the sound, with another sound, or answered by habit.

    gain = score − max(blind, shuffled, majority)          (for error rates: min(…) − score)

    blind      the model hears nothing
    shuffled   the model hears a clip with another label
    majority   always the commonest right answer of the training split; of the set where that is unknown (flagged)
    length     what the clips of most similar length would have answered: no sound is heard, its end is only awaited

`length` is for composed clips, where more sounds take longer: a model that hears some other clip, cut to the right
length, would else seem to listen. It does not enter the gain; `listens` asks for more than it.
Source: our choice.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ossicle.evaluation.answers import BLIND, Request
from ossicle.evaluation.task import Item, RowSpec

NEAREST = 5
"""Clips of like length whose commonest truth stands for what the length alone tells."""


def asked(item: Item, row: RowSpec) -> Request:
    """Return the request of an item itself."""
    return Request(task=item.task, audio=item.audio, question=item.question, max_new_tokens=row.max_new_tokens)


def asked_blind(item: Item, row: RowSpec) -> Request:
    """Return the request without sound."""
    return Request(task="", audio=BLIND, question=item.question, max_new_tokens=row.max_new_tokens)


def shuffled_requests(items: Sequence[Item], row: RowSpec, *, seed: int) -> dict[str, Request]:
    """Return item key → the same question about a clip with another label, for the items of one row.

    A partner that is asked in the same words is taken where there is one: its answer is known already. Where no clip
    has another label (a set of one class) the item has no partner and is left out.

    Args:
        items: Items of one row.
        row: Its settings.
        seed: Of the draw.
    """
    rng = np.random.default_rng(seed)
    by_question: dict[str, list[Item]] = defaultdict(list)
    for item in items:
        by_question[item.question].append(item)
    found = {}
    for item in items:
        partner = _other(item, by_question[item.question], row, rng) or _other(item, items, row, rng)
        if partner is not None:
            found[item.key] = Request(
                task=item.task, audio=partner.audio, question=item.question, max_new_tokens=row.max_new_tokens
            )
    return found


def _other(item: Item, pool: Sequence[Item], row: RowSpec, rng: np.random.Generator) -> Item | None:
    """Return a random item of the pool whose label differs, or None."""
    for index in rng.permutation(len(pool)):
        other = pool[index]
        if other.audio != item.audio and _differs(item, other, row):
            return other
    return None


def _differs(item: Item, other: Item, row: RowSpec) -> bool:
    """Return whether the labels differ; for yes/no what counts is what is in the clip, not the answer."""
    return item.content != other.content if row.parser == "yes_no" else item.truth != other.truth


def majority_answer(items: Sequence[Item], row: RowSpec) -> tuple[Any, bool]:
    """Return the commonest right answer, and whether it had to be taken from the evaluated set itself.

    Of several commonest labels of the training split the one that scores best is taken.
    """
    here = Counter(_frozen(item.truth) for item in items)
    if row.training_counts:
        top = max(row.training_counts.values())
        tied = [label for label, count in row.training_counts.items() if count == top]
        by_text = {str(truth): (count, truth) for truth, count in here.items()}
        best = max(tied, key=lambda label: by_text.get(label, (0, label))[0])
        return by_text.get(best, (0, best))[1], False
    truth = max(here, key=lambda value: here[value])
    return (list(truth) if isinstance(truth, tuple) else truth), True


def length_answers(items: Sequence[Item], row: RowSpec, seconds: Mapping[str, float]) -> list[Any]:
    """Return what each item's nearest others by length answer: the commonest truth of `NEAREST` and of all that tie.

    Args:
        items: Items of one row.
        row: Its settings; of an absolute error the median truth is taken.
        seconds: Sound → length; of a sound that could not be read, 0.

    Returns:
        One answer per item; None where no other sound is there.
    """
    lengths = np.log(np.maximum([seconds.get(item.audio, 0.0) for item in items], 1e-3))
    sounds = np.unique([item.audio for item in items], return_inverse=True)[1]
    answers: list[Any] = []
    for index in range(len(items)):
        apart = np.where(sounds == sounds[index], np.inf, np.abs(lengths - lengths[index]))
        order = np.argsort(apart, kind="stable")
        order = order[np.isfinite(apart[order])]
        near = [items[i].truth for i in order if apart[i] <= apart[order[:NEAREST][-1]] + 1e-9]
        if not near:
            answers.append(None)
        elif row.metric == "mae":
            answers.append(float(np.median(near)))
        else:
            truth = Counter(map(_frozen, near)).most_common(1)[0][0]  # of equally common ones the nearest
            answers.append(list(truth) if isinstance(truth, tuple) else truth)
    return answers


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def gain(value: float, controls: Mapping[str, float | None], *, lower_is_better: bool) -> float | None:
    """Return how much better the score is than the best control; None without any control."""
    known = [control for control in controls.values() if control is not None]
    if not known:
        return None
    return min(known) - value if lower_is_better else value - max(known)
