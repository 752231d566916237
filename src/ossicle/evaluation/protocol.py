"""`--protocol paper`: the same answers scored as LTU-AS and LTU scored them, beside our own score, quirks listed.

    truth ──REFERENCES──► the text the official script expects ──paper.score_*──► the paper's number

The paper's number never replaces ours; both stand in the card, the quirks with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ossicle.errors import ConfigError
from ossicle.evaluation import paper
from ossicle.evaluation.captions import cider_d
from ossicle.evaluation.embedding import Embed
from ossicle.evaluation.score import RowScore

REFERENCES: dict[str, Callable[[Any], str]] = {
    "age": lambda truth: f"Age: {int(truth)}.",
    "gender": lambda truth: f"Gender: {truth}.",
    "emotion": lambda truth: f"Emotion: {truth}.",
    "esc50": str,
    "gtzan": lambda truth: f"Genre: {truth}",
    "vocalsound": str,
    "tut": str,
    "dcase": str,
    "beijing_opera": str,
    "vggsound": str,
    "librispeech": str,
    "audioset": lambda truth: f"Labels: {'; '.join(truth)}",
    "fsd50k": lambda truth: f"Labels: {'; '.join(truth)}".replace("_", " "),
}


def paper_report(row: RowScore, labels: Sequence[str], embed: Embed, embedder: str) -> dict[str, Any]:
    """Return a row's score under the papers' protocol.

    Args:
        row: Marks of the row; its settings name the scorer.
        labels: Classes, for scorers that choose the nearest.
        embed: Text embedder.
        embedder: Its name, for the card.

    Raises:
        ConfigError: No scorer of that name.
    """
    name = row.spec.paper
    if name not in paper.QUIRKS:
        raise ConfigError(f"no paper scorer '{name}'; known: {', '.join(paper.QUIRKS)}")
    answers = [mark.answer for mark in row.marks]
    if name == "audiocaps":
        return _captions(row, answers)
    references = [REFERENCES[name](mark.item.truth) for mark in row.marks]
    score = SCORERS[name](references, answers, labels, embed)
    nearest = name in paper.NEAREST or name in paper.TAGGING
    return {
        "metric": score.metric,
        "value": score.value,
        "n": score.n,
        **score.extra,
        "quirks": paper.QUIRKS[name],
        **({"embedder": embedder} if nearest else {}),
    }


def _captions(row: RowScore, answers: list[str]) -> dict[str, Any]:
    references = [[paper.caption_text(f": {text}") for text in mark.item.truth] for mark in row.marks]
    value, _ = cider_d([paper.caption_text(answer) for answer in answers], references)
    return {"metric": "cider_d", "value": value, "n": len(answers), "quirks": paper.QUIRKS["audiocaps"]}


def _nearest(name: str) -> Callable[..., paper.PaperScore]:
    return lambda references, answers, labels, embed: paper.score_nearest(
        references, answers, labels, paper.NEAREST[name], embed
    )


def _tagging(name: str) -> Callable[..., paper.PaperScore]:
    return lambda references, answers, labels, embed: paper.score_tagging(
        references, answers, labels, embed, "label", paper.TAGGING[name]
    )


SCORERS: Mapping[str, Callable[..., paper.PaperScore]] = {
    "age": lambda references, answers, *_: paper.score_age(references, answers),
    "gender": lambda references, answers, *_: paper.score_gender(references, answers),
    "librispeech": lambda references, answers, *_: paper.score_librispeech(
        references, answers, ["\0"] * len(answers)
    ),  # without Whisper's text nothing is replaced
    **{name: _tagging(name) for name in paper.TAGGING},
    **{name: _nearest(name) for name in paper.NEAREST},
}
