"""Closed questions that a labelled clip can answer: task → what is asked about, the answer, the class behind it.

    clip, facts of the set, random numbers ──► Asked, or None where the clip does not support the task

Two styles of answer: plain, and the shapes that LTU-AS's scorers look for ("Label(s): a; b", "Spoken text: …", the age
as last word). Source: LTU and LTU-AS (official code) for the shapes; the tasks beyond theirs, and all
wordings, are our choice.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from ossicle.audio.levels import f0_phrase
from ossicle.data.clip import Clip
from ossicle.questions.corpus import Corpus
from ossicle.questions.templates import Templates

SENTIMENTS = {
    -3: "highly negative", -2: "negative", -1: "weakly negative", 0: "neutral", 1: "weakly positive", 2: "positive",
    3: "highly positive",
}  # fmt: skip
LANGUAGES = {
    "de": "German", "en": "English", "es": "Spanish", "fr": "French", "it": "Italian", "ja": "Japanese",
    "nl": "Dutch", "pl": "Polish", "pt": "Portuguese", "ru": "Russian", "zh": "Chinese",
}  # fmt: skip
LONGER, LOUDER_DB, HIGHER = 1.25, 3.0, 1.15
"""Two clips are compared only where they differ by this much."""
TRIES = 4


@dataclass(slots=True)
class Asked:
    """One question's content.

    Attributes:
        answer: The right answer.
        label: The plain class behind it.
        x: What the question asks about.
        options: The choices as they are listed.
        other: A second clip.
    """

    answer: str
    label: str | None = None
    x: str = ""
    options: str = ""
    other: Clip | None = None


Task = Callable[[Clip, Corpus, Random, bool, Templates], "Asked | None"]


def sentiment_word(value: str | None) -> str | None:
    """Return the word of a sentiment from -3 to 3, rounded; None for what is no number of that range.

    Example:
        >>> sentiment_word("1.67")
        'positive'
    """
    try:
        return None if value is None else SENTIMENTS[round(float(value))]
    except (ValueError, KeyError, OverflowError):
        return None


def _label(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if not clip.labels:
        return None
    listed = "; ".join(clip.labels)
    return Asked(f"Label(s): {listed}" if paper else _sentence(", ".join(clip.labels)), clip.labels[0])


def _caption(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if not clip.captions:
        return None
    caption = clip.captions[rng.randrange(len(clip.captions))]
    return Asked(f"Audio caption: {caption}" if paper else _sentence(caption.rstrip(".")))


def _asr(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if not clip.transcript:
        return None
    return Asked(f"Spoken text: {clip.transcript}" if paper else clip.transcript)


def _gender(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    return Asked(_sentence(clip.gender), clip.gender) if clip.gender in ("female", "male") else None


def _age(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if not clip.age:
        return None
    return Asked(f"Speaker age: {clip.age}." if paper else f"About {clip.age} years old.", clip.age)


def _emotion(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    return Asked(_sentence(clip.emotion), clip.emotion) if clip.emotion else None


def _sentiment(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    word = sentiment_word(clip.sentiment)
    return Asked(_sentence(word), word) if word else None


def _pitch(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    f0_hz = clip.facts.get(corpus.levels.config.pitch)
    if f0_hz is None or not (clip.transcript or clip.gender):
        return None
    if paper:
        return Asked(_sentence(f0_phrase(f0_hz, clip.gender or "", compat=True))) if clip.gender else None
    return _levelled(corpus.levels.word("pitch", clip))


def _volume(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    return _levelled(corpus.levels.word("volume", clip))


def _speed(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    return _levelled(corpus.levels.word("speed", clip))


def _levelled(word: str | None) -> Asked | None:
    return Asked(_sentence(word), word) if word else None


def _genre(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    return Asked(_sentence(", ".join(clip.genres)), clip.genres[0]) if clip.genres else None


def _language(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    name = LANGUAGES.get(clip.language or "")
    return Asked(f"{name}.", name) if name else None


def _duration(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    length = clip.duration_s or clip.facts.get("duration_s")
    return Asked(f"{length:.1f} seconds.") if length else None


def _count(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if not clip.events:
        return None
    name = rng.choice(clip.events)[0]
    number = sum(event[0] == name for event in clip.events)
    return Asked(f"{number}.", str(number), x=name.lower())


def _order(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    names = list(dict.fromkeys(event[0].lower() for event in sorted(clip.events, key=lambda event: event[1])))
    return Asked(_sentence(", then ".join(names))) if len(names) > 1 else None


def _onset(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if not clip.events:
        return None
    name = rng.choice(clip.events)[0]
    first = min(event[1] for event in clip.events if event[0] == name)
    return Asked(f"{first:.1f} seconds.", x=name.lower())


def _event_duration(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    once = [event for event in clip.events if sum(other[0] == event[0] for other in clip.events) == 1]
    if not once:
        return None
    name, start, end = rng.choice(once)
    return Asked(f"{end - start:.1f} seconds.", x=name.lower()) if end > start else None


def _presence(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if not clip.labels:
        return None
    if rng.random() < 0.5:
        return Asked("Yes.", "yes", x=rng.choice(clip.labels).lower())
    absent = corpus.absent(clip)
    return Asked("No.", "no", x=rng.choice(absent).lower()) if absent else None


def _choice(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    own = set(clip.labels)
    others = [label for label in corpus.labels.get(clip.source, ()) if label not in own]
    if not own or len(others) < 3:
        return None
    near = [label for label in corpus.absent(clip) if label not in own]
    wrong = list(dict.fromkeys([rng.choice(near), *rng.sample(others, 3)]))[:3]
    right = clip.labels[0]
    names = [right, *wrong]
    rng.shuffle(names)
    listed = " ".join(f"({letter}) {name}" for letter, name in zip("abcd", names, strict=False))
    return Asked(f"({'abcd'[names.index(right)]}) {right}", right, options=listed)


def _description(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    known = [label for label in clip.labels if label.lower() in templates.descriptions]
    if not known:
        return None
    label = rng.choice(known)
    return Asked(_sentence(label), label, x=rng.choice(templates.descriptions[label.lower()]))


def _compare(measure: Callable[[Clip], float | None], apart: Callable[[float, float], bool]) -> Task:
    def task(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
        mine = measure(clip)
        if mine is None or not corpus.pool:
            return None
        for _ in range(TRIES):
            other = corpus.pool[rng.randrange(len(corpus.pool))]
            theirs = measure(other)
            if theirs is not None and apart(mine, theirs):
                first = mine > theirs
                return Asked("The first." if first else "The second.", "first" if first else "second", other=other)
        return None

    return task


def _same_label(clip: Clip, corpus: Corpus, rng: Random, paper: bool, templates: Templates) -> Asked | None:
    if len(clip.labels) != 1 or not corpus.pool:
        return None
    want, mine = rng.random() < 0.5, set(clip.labels)
    for _ in range(TRIES * 4):
        other = corpus.pool[rng.randrange(len(corpus.pool))]
        theirs = set(other.labels)
        fits = theirs == mine if want else theirs.isdisjoint(mine)  # what shares some labels is neither
        if other.source == clip.source and theirs and fits:
            if other.key == clip.key:
                continue
            return Asked("Yes." if want else "No.", "yes" if want else "no", other=other)
    return None


def _voice_hz(clip: Clip) -> float | None:
    return clip.facts.get("f0_median_hz") if clip.transcript or clip.gender else None


def _ratio(limit: float) -> Callable[[float, float], bool]:
    return lambda one, other: max(one, other) > limit * min(one, other)


TASKS: dict[str, Task] = {
    "label": _label,
    "caption": _caption,
    "asr": _asr,
    "gender": _gender,
    "age": _age,
    "emotion": _emotion,
    "sentiment": _sentiment,
    "pitch": _pitch,
    "volume": _volume,
    "speed": _speed,
    "genre": _genre,
    "language": _language,
    "count": _count,
    "order": _order,
    "onset": _onset,
    "duration": _duration,
    "event_duration": _event_duration,
    "presence": _presence,
    "choice": _choice,
    "description": _description,
    "compare_length": _compare(lambda clip: clip.duration_s, _ratio(LONGER)),
    "compare_volume": _compare(lambda clip: clip.facts.get("rms_db"), lambda a, b: abs(a - b) > LOUDER_DB),
    "compare_pitch": _compare(_voice_hz, _ratio(HIGHER)),
    "same_label": _same_label,
}
PAPER_TASKS = ("label", "caption", "asr", "gender", "age", "emotion", "sentiment", "pitch", "volume", "speed", "genre")
PAPER_TASKS += ("language", "order", "onset", "description")


def _sentence(text: str | None) -> str:
    return f"{text[:1].upper()}{text[1:]}." if text else ""
