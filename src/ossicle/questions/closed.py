"""Questions with one right answer, from the facts of an audio: which tasks fit, how they are asked and answered.

Each task has one style of answer, whatever its wording. What has to be judged is named first ("rain, then a bell: two
sounds", "rain, then a bell: no"), because naming is learnt long before judging. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from ossicle.data.material import DIGITS
from ossicle.questions import levels, outside
from ossicle.questions.heard import Event, Heard
from ossicle.questions.names import family, join, sentence
from ossicle.questions.wording import ask

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight")
SILENCE = "silence"
NOBODY = "Nobody is speaking."
UNKNOWN_WORDS = "Someone is speaking, but I only know digits and short commands."
EMOTIONS = {
    "anger": "angry",
    "boredom": "bored",
    "disgust": "disgusted",
    "fear": "afraid",
    "happiness": "happy",
    "neutral": "neutral",
    "sadness": "sad",
}
ALIASES = {
    "a crying baby": ("a baby", "a baby crying", "an infant"),
    "a chainsaw": ("a chain saw", "a power saw", "the noise of a chainsaw"),
    "a ticking clock": ("a clock", "a clock ticking", "ticking"),
    "a barking dog": ("a dog", "a dog barking", "barking"),
    "a crackling fire": ("a fire", "fire", "a fire crackling", "crackling"),
    "a helicopter": ("a chopper", "the noise of a helicopter"),
    "a person sneezing": ("a sneeze", "someone sneezing", "sneezing"),
    "rain": ("rain falling", "rainfall", "some rain"),
    "a rooster": ("a rooster crowing", "a crowing rooster", "a cock"),
    "sea waves": ("the sea", "waves", "ocean waves", "the ocean"),
    "speech": ("someone speaking", "a voice", "a person talking", "speech", "anybody speaking"),
}
"""Other ways to name what is asked about."""

WEIGHTS = {
    "hear": 1.0,
    "first": 0.45,
    "last": 0.7,
    "count": 0.8,
    "say": 3.5,
    "count_words": 0.35,
    "gender": 2.0,
    "emotion": 12.0,
    "loudness": 3.5,
    "pitch": 5.0,
    "rate": 2.0,
    "family": 9.0,
    "after": 0.2,
    "before": 0.2,
    "presence": 3.0,
    "anything": 0.06,
    "background": 0.35,
    "outside": 1.2,
}
"""How often a task is asked where it fits, relative to the others that fit."""


def listed(heard: Heard) -> str:
    """Return everything heard, in order, then what lies under it."""
    names = join(heard.names())
    if heard.background is None:
        return names or SILENCE
    from ossicle.questions.names import spoken

    behind = spoken(str(heard.background.label))
    return f"{names}, over {behind}" if names else behind


TRIES = 100
"""So many other audios are looked at for a name that is absent."""


def fitting(heard: Heard) -> dict[str, float]:
    """Return the tasks that can be asked about an audio, with their weights."""
    events, sounds, speech = heard.events, heard.sounds(), heard.spoken()
    single = events[0] if len(events) == 1 else None
    alone = single if heard.background is None else None
    fits = {
        "hear": True,
        "presence": True,
        "outside": True,
        "anything": True,
        "first": bool(events),
        "last": bool(events),
        "count": bool(sounds) and not speech and heard.background is None,
        "say": bool(speech) and all(event.sound.words for event in speech),
        "count_words": bool(speech) and not sounds and all(set(e.sound.words or "-") <= set(DIGITS) for e in speech),
        "gender": bool(speech) and len({event.sound.gender for event in speech}) == 1 and _gender_known(speech[0]),
        "emotion": single is not None and single.sound.emotion is not None,
        "loudness": alone is not None and not levels.near_edge(alone.level_db, levels.LOUDNESS_DB, 0.8),
        "pitch": alone is not None and alone.pitch_hz is not None and not _pitch_unclear(alone.pitch_hz),
        "rate": alone is not None and alone.words_per_minute is not None,
        "family": alone is not None and family(str(alone.sound.label)) is not None,
        "after": _neighbours(events),
        "before": _neighbours(events),
        "background": bool(events),
    }
    rare = {"first", "last", "count", "background"} if len(events) < 2 and heard.background is None else set()
    return {task: WEIGHTS[task] * (0.25 if task in rare else 1) for task, fit in fits.items() if fit}


def _gender_known(event: Event) -> bool:
    return event.sound.gender is not None and event.sound.pool != "words"


def _pitch_unclear(pitch_hz: float) -> bool:
    return levels.near_edge(float(np.log2(pitch_hz)), [float(np.log2(edge)) for edge in levels.PITCH_HZ], 0.06)


def _neighbours(events: Sequence[Event]) -> bool:
    names = [event.name for event in events]
    return len(names) > 1 and len(set(names)) == len(names) and not any(event.speech for event in events)


def question(
    heard: Heard, rng: np.random.Generator, others: Callable[[], Heard], task: str | None = None
) -> tuple[str, str, str]:
    """Return (task, question, answer) about an audio.

    Args:
        heard: The facts.
        rng: Draws task, wording and what is asked about.
        others: Returns the facts of another audio: what is asked about and absent is present there, so that a name
            asked about is there as often as not.
        task: Task to ask; None = drawn from those that fit.
    """
    if task is None:
        fits = fitting(heard)
        weights = np.array([*fits.values()])
        task = str(rng.choice([*fits], p=weights / weights.sum()))
        if task == "hear" and heard.duration_s and not heard.spoken() and rng.random() < 0.03:
            return _nobody(rng)
    if task == "outside":
        return task, outside.ask(rng), outside.answer()
    if task == "presence":
        return _presence(heard, rng, others)
    if task in ("after", "before"):
        return _neighbour(heard, rng, task)
    return task, ask(task, rng), sentence(ANSWERS[task](heard))


def _nobody(rng: np.random.Generator) -> tuple[str, str, str]:
    task = ("say", "gender", "emotion", "rate")[rng.integers(4)]
    return task, ask(task, rng), NOBODY


def _presence(heard: Heard, rng: np.random.Generator, others: Callable[[], Heard]) -> tuple[str, str, str]:
    there, absent = sorted(heard.present()), list[str]()
    if not there or rng.random() >= 0.5:
        drawn = (sorted(others().present() - heard.present()) for _ in range(TRIES))
        absent = next(filter(None, drawn), [])
    choices = absent or there or ["speech"]  # nothing is absent where all audios hold the same
    name, yes = choices[rng.integers(len(choices))], not absent and bool(there)
    asked = (name, *ALIASES.get(name, ()))
    voice = name == "speech"
    said = asked[0] if not voice and rng.random() < 0.6 else asked[rng.integers(int(voice), len(asked))]
    answer = f"{listed(heard)}: {'yes' if yes else 'no'}"
    return "presence", ask("presence", rng, said), sentence(answer)


def _neighbour(heard: Heard, rng: np.random.Generator, task: str) -> tuple[str, str, str]:
    names = [event.name for event in heard.events]
    index = int(rng.integers(len(names)))
    other = index + (1 if task == "after" else -1)
    answer = names[other] if 0 <= other < len(names) else "nothing"
    return task, ask(task, rng, names[index]), sentence(answer)


def _say(heard: Heard) -> str:
    return " ".join(word for event in heard.spoken() for word in event.sound.words or ())


def _count(heard: Heard) -> str:
    count = len(heard.events)
    return f"{listed(heard)}: {NUMBERS[count]} sound{'s' if count != 1 else ''}"


def _count_words(heard: Heard) -> str:
    count = sum(len(event.sound.words or ()) for event in heard.spoken())
    return f"{_say(heard)}: {NUMBERS[count]} digit{'s' if count != 1 else ''}"


def _background(heard: Heard) -> str:
    from ossicle.questions.names import spoken

    return spoken(str(heard.background.label)) if heard.background else "nothing"


def _anything(heard: Heard) -> str:
    return f"yes, there is {listed(heard)}" if heard.events or heard.background else "no, there is silence"


ANSWERS: dict[str, Callable[[Heard], str]] = {
    "hear": listed,
    "first": lambda heard: heard.events[0].name,
    "last": lambda heard: heard.events[-1].name,
    "count": _count,
    "say": _say,
    "count_words": _count_words,
    "gender": lambda heard: {"female": "a woman", "male": "a man"}[str(heard.spoken()[0].sound.gender)],
    "emotion": lambda heard: EMOTIONS[str(heard.events[0].sound.emotion)],
    "loudness": lambda heard: levels.level_of(heard.events[0].level_db, levels.LOUDNESS_DB, levels.LOUDNESS),
    "pitch": lambda heard: levels.level_of(float(heard.events[0].pitch_hz or 0), levels.PITCH_HZ, levels.PITCH),
    "rate": lambda heard: levels.level_of(float(heard.events[0].words_per_minute or 0), levels.RATE_WPM, levels.RATE),
    "family": lambda heard: str(family(str(heard.events[0].sound.label))),
    "background": _background,
    "anything": _anything,
}
"""Task → answer, without its capital letter and full stop."""
