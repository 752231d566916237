"""What a language model is told of a clip: facts as lines of text, under a versioned prompt.

    clip ─► which prompt fits (sound, speech, emotion, opinion, speaker, music, joint) ─► lines of facts ─► messages

Source: LTU and LTU-AS (official code) for the facts and the number of pairs of each; the wording is ours. In paper mode
pitch is said as the official builders say it, and what they refuse is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ossicle.audio.levels import F0_CUTS_HZ, f0_phrase
from ossicle.data.clip import Clip
from ossicle.data.set_levels import Quality
from ossicle.errors import ConfigError, suggest
from ossicle.questions.corpus import Corpus
from ossicle.questions.labelled import sentiment_word

FILE = Path(__file__).parent / "templates" / "open.yaml"
SINGING = "Singing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One kind of prompt.

    Attributes:
        name: Of the prompt.
        version: Of the file.
        pairs: Questions asked for.
        facts: Which facts it names, where the clip has them.
        paragraph: Ask for a paragraph first.
        questions: Put to a model that hears the clip (see `listening`); empty = the model writes them from facts.
    """

    name: str
    version: str
    pairs: int
    facts: tuple[str, ...]
    paragraph: bool = False
    questions: tuple[str, ...] = ()


@cache
def book() -> dict[str, Any]:
    """Return the file of prompts."""
    return yaml.safe_load(FILE.read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def prompt(name: str, pairs: int | None = None) -> Prompt:
    """Return a prompt by name.

    Raises:
        ConfigError: No such prompt.
    """
    known = book()["prompts"]
    if name not in known:
        raise ConfigError(f"no prompt '{name}'; {suggest(name, [*known, 'auto'])}")
    spec = known[name]
    return Prompt(
        name=name,
        version=str(book()["version"]),
        pairs=pairs or spec["pairs"],
        facts=tuple(spec.get("facts", ())),
        paragraph=spec.get("paragraph", False),
        questions=tuple(spec.get("questions", ())),
    )


def fitting(clip: Clip) -> str:
    """Return the name of the prompt that says most about a clip."""
    if clip.genres:
        return "music"
    if clip.transcript and clip.labels:
        return "joint"
    if not clip.transcript:
        return "sound"
    if clip.sentiment is not None:
        return "opinion"
    return "emotion" if clip.emotion else "speaker" if clip.age else "speech"


def _pitch_of_gender(clip: Clip, corpus: Corpus, paper: bool) -> str | None:
    f0_hz = clip.facts.get(corpus.levels.config.pitch)
    if f0_hz is None or (clip.gender not in F0_CUTS_HZ and not paper):
        return None
    return f0_phrase(f0_hz, clip.gender or "unknown", compat=paper)


def _level(quality: Quality) -> Callable[[Clip, Corpus, bool], str | None]:
    return lambda clip, corpus, paper: corpus.levels.word(quality, clip)


def _events(clip: Clip, corpus: Corpus, paper: bool) -> str | None:
    spans = (f"{name} ({start:.1f}-{end:.1f} s)" for name, start, end in sorted(clip.events, key=lambda e: e[1]))
    return ", ".join(spans) or None


def _f0(clip: Clip, corpus: Corpus, paper: bool) -> str | None:
    f0_hz = clip.facts.get(corpus.levels.config.pitch)
    return None if f0_hz is None else f"{f0_hz:.0f} Hz"


LINES: dict[str, tuple[str, Callable[[Clip, Corpus, bool], str | None]]] = {
    "events": ("Sounds with their times", _events),
    "labels": ("Sounds", lambda clip, corpus, paper: ", ".join(clip.labels) or None),
    "captions": ("Descriptions", lambda clip, corpus, paper: " / ".join(clip.captions) or None),
    "transcript": ("Spoken words", lambda clip, corpus, paper: clip.transcript),
    "gender": ("Gender of the speaker", lambda clip, corpus, paper: clip.gender),
    "f0": ("Fundamental frequency of the voice", _f0),
    "pitch": ("Pitch among all speakers", _level("pitch")),
    "pitch_of_gender": ("Pitch among speakers of that gender", _pitch_of_gender),
    "volume": ("Volume", _level("volume")),
    "speed": ("Speaking speed", _level("speed")),
    "emotion": ("Emotion of the speaker", lambda clip, corpus, paper: clip.emotion),
    "sentiment": ("Sentiment of what is said", lambda clip, corpus, paper: sentiment_word(clip.sentiment)),
    "age": ("Age of the speaker", lambda clip, corpus, paper: clip.age),
    "genres": ("Genre of the music", lambda clip, corpus, paper: ", ".join(clip.genres) or None),
    "lyrics": ("Lyrics", lambda clip, corpus, paper: clip.transcript),
    "title": ("Title", lambda clip, corpus, paper: clip.title),
    "spoken_or_sung": ("", lambda clip, corpus, paper: clip.transcript),
}  # fmt: skip


def lines(clip: Clip, corpus: Corpus, asked: Prompt, *, paper: bool = False) -> list[str]:
    """Return the facts of a clip that a prompt names, one line each."""
    found = []
    for name in asked.facts:
        title, line = LINES[name]
        text = line(clip, corpus, paper)
        if name == "spoken_or_sung":
            title = f"Words of the {'singing' if SINGING in clip.labels else 'speech'}"
        if text:
            found.append(f"{title}: {text}")
    return found


def messages(facts: list[str], asked: Prompt, *, paragraph: str | None = None) -> list[dict[str, str]]:
    """Return the conversation that asks for pairs, or for the paragraph that comes first.

    Args:
        facts: Lines about the clip.
        asked: The prompt.
        paragraph: What the model wrote first, where the prompt wants that; None = not yet.
    """
    words = book()
    first = asked.paragraph and paragraph is None
    system = [words["system"], *(f"- {rule}" for rule in words["rules"])]
    told = [*facts] if paragraph is None else [*facts, f"Summary: {paragraph}"]
    wanted = words["paragraph"] if first else words["format"].format(pairs=asked.pairs)
    return [
        {"role": "system", "content": "\n".join(system)},
        {"role": "user", "content": "\n".join([*told, "", wanted])},
    ]
