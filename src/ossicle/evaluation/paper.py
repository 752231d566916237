"""The scorers of LTU and LTU-AS, quirk by quirk: `--protocol paper`. Off by default.

    reference + answer ──text as the script cuts it──► number | substring | nearest class | words ──► the paper's metric

What they do that a careful scorer would not is listed in `QUIRKS` and stands in the card. A reference that makes the
official script fail raises `DataError` here.
Source: LTU-AS (arXiv 2309.14405) and LTU (arXiv 2305.10790), evaluation code, as run on made-up answers; see the tests.
`vocalsound`, `tut`, `dcase`, `beijing_opera`, `vggsound` and `fsd50k` were read in LTU's scripts, not run.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ossicle.errors import DataError
from ossicle.evaluation.embedding import Embed, cosine, nearest
from ossicle.evaluation.metrics import average_precision, edits, f1_of, macro_f1

NUMBER = re.compile(r"\b\d+(?:-\d+)?\b")

ONE_LOST = "the text after the last colon loses its first character, also where there is no colon; punctuation stays"
TWO_LOST = "two characters are dropped after 'Audio caption', also where the phrase is absent"
LONGER = "cosines of all labels are added up: a longer list scores higher on every class"
QUIRKS: dict[str, list[str]] = {
    "age": [
        "only numerals count, a range only as 30-40; the first number wins, whatever its size",
        "an answer without a number is left out instead of being wrong",
        "the reference is its last word without its last character",
    ],
    "gender": ["an answer is female where the letters 'female' occur, else male: refusals and 'woman' too"],
    "emotion": ["the whole answer is embedded, in its own case; the class names are lower-cased"],
    "esc50": ["only what follows the last colon is embedded", "a reference with a blank after 'Label:' fails"],
    "gtzan": ["only what follows the last colon is embedded; final punctuation stays"],
    "vocalsound": [ONE_LOST],
    "tut": [ONE_LOST, "underscores of a reference are blanks"],
    "dcase": [ONE_LOST, "commas of a reference are removed; micro-F1 over one class a clip is accuracy"],
    "beijing_opera": [ONE_LOST, "commas and soft hyphens of a reference are removed"],
    "vggsound": [TWO_LOST, "references are lower-cased and follow the last ': '"],
    "librispeech": [
        "where Whisper's text is part of the answer, letter by letter, it replaces the answer; an empty one always",
        "of punctuation only Unicode category P is removed",
    ],
    "audiocaps": ["the text after the last colon loses its first character, also where there is no colon"],
    "audioset": [
        TWO_LOST,
        "labels are split at '; ' only, and a repeated one counts twice",
        LONGER,
        "classes without positives count as 0",
    ],
    "fsd50k": [
        TWO_LOST,
        "labels follow the last ': ' and are split at '; ' only, and a repeated one counts twice",
        LONGER,
        "classes without positives count as 0",
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PaperScore:
    """A metric and what was made of every answer.

    Attributes:
        metric: Its name.
        value: The paper's number.
        n: Items counted.
        items: For every answer what the scorer saw.
        extra: Other numbers that the script prints.
    """

    metric: str
    value: float
    n: int
    items: list[dict[str, Any]]
    extra: dict[str, float] = field(default_factory=dict)


def after_last_colon(text: str) -> str:
    """Return what follows the last colon, all of it where there is none."""
    return text.split(":")[-1]


def age_numbers(answer: str) -> list[float]:
    """Return the numbers an answer holds: integers, and `a-b` as their mean."""
    spans = [[int(part) for part in match.split("-")] for match in NUMBER.findall(answer)]
    return [span[0] if len(span) == 1 else sum(span) / 2 for span in spans]


def age_reference(reference: str) -> int:
    """Return the age in a reference: its last word without the last character.

    Raises:
        DataError: That is no integer.
    """
    word = reference.split(" ")[-1][:-1]
    if not re.fullmatch(r"[+-]?\d+", word):
        raise DataError(f"age reference {reference!r}: {word!r} is no integer; expected a text that ends like '34.'")
    return int(word)


def score_age(references: Sequence[str], answers: Sequence[str]) -> PaperScore:
    """Return the mean absolute error over the answers that hold a number, and Pearson's r."""
    items = []
    for reference, answer in zip(references, answers, strict=True):
        found = age_numbers(answer)
        truth = age_reference(reference) if found else None
        items.append({"numbers": found, "truth": truth, "said": found[0] if found else None})
    pairs = np.asarray([(item["truth"], item["said"]) for item in items if item["numbers"]], dtype=float)
    pearson = float(np.corrcoef(pairs.T)[0, 1]) if len(pairs) > 1 else 0.0
    error = float(np.abs(pairs[:, 0] - pairs[:, 1]).mean()) if len(pairs) else 0.0
    return PaperScore(metric="mae", value=error, n=len(pairs), items=items, extra={"pearson": pearson})


def gender_of(text: str) -> str:
    """Return `female` where the word occurs in any place, else `male`."""
    return "female" if "female" in text.lower() else "male"


def score_gender(references: Sequence[str], answers: Sequence[str]) -> PaperScore:
    """Return macro-F1, and accuracy."""
    truths, said = [gender_of(text) for text in references], [gender_of(text) for text in answers]
    items = [{"truth": t, "said": s, "right": t == s} for t, s in zip(truths, said, strict=True)]
    accuracy = sum(item["right"] for item in items) / len(items)
    return PaperScore(
        metric="macro_f1", value=macro_f1(truths, said), n=len(items), items=items, extra={"accuracy": accuracy}
    )


def left_after_colon(text: str) -> str:
    """Return what follows the last colon, without the blanks on its left."""
    return after_last_colon(text).lstrip()


def after_last_label(text: str) -> str:
    """Return what follows the last colon with a blank behind it, all of it where there is none."""
    return text.split(": ")[-1]


def less_one(text: str) -> str:
    """Return what follows the last colon less one character, meant for the blank."""
    return after_last_colon(text)[1:]


def after_caption(text: str) -> str:
    """Return what follows the last "Audio caption" less two characters, without double quotes."""
    return text.replace('"', "").split("Audio caption")[-1][2:]


@dataclass(frozen=True, slots=True, kw_only=True)
class Nearest:
    """How a nearest-class scorer cuts its texts.

    Attributes:
        prefix: In front of answers and classes.
        cut: Answer → what of it is embedded.
        lower: Lower-case the answer.
        reference: Reference → the label it names.
        underscore: What stands for an underscore of a class name.
        metric: What the script calls its number.
    """

    prefix: str = "sound of "
    cut: Callable[[str], str] = less_one
    lower: bool = True
    reference: Callable[[str], str] = after_last_colon
    underscore: str = " "
    metric: str = "accuracy"


NEAREST = {
    "emotion": Nearest(
        prefix="", cut=str.lstrip, lower=False, reference=lambda text: after_last_colon(text).split(".")[0].strip()
    ),
    "esc50": Nearest(cut=left_after_colon),
    "gtzan": Nearest(
        prefix="Music Genre: ", cut=left_after_colon, reference=lambda text: after_last_colon(text).strip()
    ),
    "vocalsound": Nearest(),
    "tut": Nearest(reference=lambda text: after_last_colon(text).replace("_", " ")),
    "dcase": Nearest(reference=lambda text: after_last_colon(text).replace(",", ""), metric="micro_f1"),
    "beijing_opera": Nearest(
        reference=lambda text: after_last_colon(text).replace("\N{SOFT HYPHEN}", "").replace(",", "")
    ),
    "vggsound": Nearest(cut=after_caption, reference=lambda text: after_last_label(text).lower(), underscore=", "),
}


def nearest_text(answer: str, rule: Nearest) -> str:
    """Return what is embedded for an answer."""
    text = rule.cut(answer)
    return rule.prefix + (text.lower() if rule.lower else text)


def nearest_truth(reference: str, labels: Sequence[str], rule: Nearest) -> str:
    """Return the label a reference names.

    Raises:
        DataError: None, letter by letter.
    """
    text = rule.reference(reference)
    if text not in labels:
        raise DataError(f"reference {reference!r}: {text!r} is no label; expected exactly one of {', '.join(labels)}")
    return text


def score_nearest(
    references: Sequence[str], answers: Sequence[str], labels: Sequence[str], rule: Nearest, embed: Embed
) -> PaperScore:
    """Return the accuracy of the class whose name is nearest to the answer, and macro-F1 over all classes."""
    classes = embed([rule.prefix + label.replace("_", rule.underscore).lower() for label in labels])
    texts = [nearest_text(answer, rule) for answer in answers]
    items = []
    for reference, text, row in zip(references, texts, cosine(embed(texts), classes), strict=True):
        truth, best = nearest_truth(reference, labels, rule), nearest(row)
        ranked = np.sort(row)[::-1]
        items.append(
            {
                "text": text,
                "truth": truth,
                "said": labels[best],
                "right": labels[best] == truth,
                "score": float(row[best]),
                "margin": float(ranked[0] - ranked[1]),
            }
        )
    accuracy = sum(item["right"] for item in items) / len(items)
    truths, said = [item["truth"] for item in items], [item["said"] for item in items]
    macro = sum(f1_of(truths, said, label) for label in labels) / len(labels)
    return PaperScore(metric=rule.metric, value=accuracy, n=len(items), items=items, extra={"macro_f1": macro})


def spoken_text(text: str) -> str:
    """Return a transcript as it is compared: after the last "spoken text: ", upper case, punctuation removed."""
    cut = text.lower().split("spoken text: ")[-1].replace("spoken text:", "").lstrip().upper()
    return "".join(letter for letter in cut if not unicodedata.category(letter).startswith("P"))


def score_librispeech(references: Sequence[str], answers: Sequence[str], whisper: Sequence[str]) -> PaperScore:
    """Return the corpus word error rate after Whisper's text has replaced every answer that contains it.

    Args:
        references: Transcripts.
        answers: Raw answers.
        whisper: Whisper's transcript of each clip.
    """
    items = []
    for reference, answer, heard in zip(references, answers, whisper, strict=True):
        truth, said, backup = spoken_text(reference), spoken_text(answer), spoken_text(heard)
        scored = backup if backup in said else said
        items.append(
            {
                "truth": truth,
                "said": said,
                "whisper": backup,
                "scored": scored,
                "substituted": backup in said,
                "edits": edits(truth, scored)[0],
                "edits_raw": edits(truth, said)[0],
                "edits_whisper": edits(truth, backup)[0],
                "words": edits(truth, scored)[1],
            }
        )
    words = sum(item["words"] for item in items)
    raw, own = (sum(item[key] for item in items) / words for key in ("edits_raw", "edits_whisper"))
    value = sum(item["edits"] for item in items) / words
    return PaperScore(metric="wer", value=value, n=len(items), items=items, extra={"raw": raw, "whisper": own})


def caption_text(text: str) -> str:
    """Return a caption as it is compared: after the last colon less one character, lower case, punctuation removed."""
    return less_one(text).lower().translate(str.maketrans("", "", string.punctuation))


def caption_trials(
    clips: Sequence[str], references: Sequence[str], answers: Sequence[str]
) -> list[tuple[dict[str, str], dict[str, list[str]]]]:
    """Return, for each of a clip's entries in turn, clip → answer and clip → all references.

    Args:
        clips: Name of the clip of each entry; every clip has as many.
        references: One reference per entry.
        answers: One answer per entry.
    """
    said: dict[str, list[str]] = {}
    truth: dict[str, list[str]] = {}
    for clip, reference, answer in zip(clips, references, answers, strict=True):
        name = clip.split("/")[-1]
        said.setdefault(name, []).append(caption_text(answer))
        truth.setdefault(name, []).append(caption_text(reference))
    trials = min(len(texts) for texts in said.values())
    return [({name: texts[i] for name, texts in said.items()}, truth) for i in range(trials)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tagging:
    """How a scorer of several labels cuts its texts.

    Attributes:
        listed: Answer → the text that lists its labels, which are split at "; ".
        reference: Reference → the text that lists its labels.
        strip: Remove blanks on the left of each label of an answer.
        underscore: What stands for an underscore of a class name.
    """

    listed: Callable[[str], str]
    reference: Callable[[str], str]
    strip: bool = False
    underscore: str = "_"


TAGGING = {
    "audioset": Tagging(listed=left_after_colon, reference=left_after_colon),
    "fsd50k": Tagging(listed=after_last_label, reference=after_last_label, strip=True, underscore=" "),
}


def tagging_texts(answer: str, mode: str, rule: Tagging = TAGGING["audioset"]) -> list[str]:
    """Return the texts embedded for an answer: one in `caption` mode, one per label in `label` mode."""
    if mode == "caption":
        return ["sound of " + after_caption(answer).lower()]
    parts = rule.listed(answer).split("; ")
    return ["sound of " + (part.lstrip() if rule.strip else part).lower() for part in parts]


def tagging_truth(reference: str, labels: Sequence[str], rule: Tagging = TAGGING["audioset"]) -> list[str]:
    """Return the labels of a reference such as `Labels: Speech; Dog`.

    Raises:
        DataError: One of them is no class, letter by letter.
    """
    named = rule.reference(reference).split("; ")
    for name in named:
        if name not in labels:
            raise DataError(f"reference {reference!r}: {name!r} is no class; expected names split by '; '")
    return named


def score_tagging(
    references: Sequence[str],
    answers: Sequence[str],
    labels: Sequence[str],
    embed: Embed,
    mode: str,
    rule: Tagging = TAGGING["audioset"],
) -> PaperScore:
    """Return mAP over all classes (0 for those without positives), from summed cosines."""
    labels = [label.replace("_", rule.underscore) for label in labels]
    classes = embed(["sound of " + label.lower() for label in labels])
    scores, truth, items = np.zeros((len(answers), len(labels))), np.zeros((len(answers), len(labels)), bool), []
    for row, (reference, answer) in enumerate(zip(references, answers, strict=True)):
        texts, named = tagging_texts(answer, mode, rule), tagging_truth(reference, labels, rule)
        scores[row] = cosine(embed(texts), classes).sum(0)
        truth[row, [list(labels).index(name) for name in named]] = True
        items.append({"texts": texts, "truth": named, "scores": scores[row]})
    by_class = [average_precision(truth[:, i], scores[:, i]) for i in range(len(labels))]
    present = [value for value, column in zip(by_class, truth.T, strict=True) if column.any()]
    return PaperScore(
        metric="map",
        value=float(np.mean(by_class)),
        n=len(items),
        items=items,
        extra={"map_present": float(np.mean(present))},
    )
