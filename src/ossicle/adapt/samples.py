"""What the model is taught: questions about the recordings, and replay, so that it keeps what it knew.

    recording ──► itself + changed copies (gain, speed, noise) ──► "What do you hear?" → "A bass drum."
    old sounds ──► questions of every kind ──► the answers the model gave *before* ──► replay

A tagger of the labels is fitted before (`adapt.tags`). Replay needs no old training data: whatever the model used to
say is what it should go on saying. The sounds are synthesised, the user's own (asked about other things), and
recordings under `--replay` where given.
Source: learning without forgetting, Li & Hoiem 2016; our choice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ossicle.adapt.folder import Recording
from ossicle.adapt.views import changed, message, write
from ossicle.audio.io import load_audio
from ossicle.data.material import Sound
from ossicle.errors import AudioError, UnsupportedError
from ossicle.questions import closed, outside
from ossicle.questions.heard import Event, Heard
from ossicle.questions.names import SPOKEN
from ossicle.questions.wording import ask
from ossicle.types import SAMPLE_RATE_HZ, Waveform

MOST_VIEWS = 900
"""About so many copies of recordings are made in all."""
LONGEST_S = 10.0
SAID = "What is said?"
REPLAY_KINDS = {
    "sound": (
        "hear",
        "hear",
        "hear",
        "loudness",
        "pitch",
        "presence",
        "presence",
        "first",
        "count",
        "family",
        "outside",
    ),
    "scene": ("hear", "hear", "first", "last", "count", "presence"),
    "speech": ("say", "say", "gender", "emotion", "rate", "hear", "outside"),
    "own": ("loudness", "presence", "gender", "outside", "pitch"),
}


def own_samples(recordings: Sequence[Recording], folder: Path, *, seed: int) -> list[dict[str, Any]]:
    """Write copies of the recordings into a folder; return questions about them as messages.

    Raises:
        OSError: The disk is full.
    """
    rng = np.random.default_rng([seed, 1])
    views = int(np.clip(MOST_VIEWS // len(recordings), 1, 8))
    labels = sorted({recording.label for recording in recordings if recording.label})
    rows = []
    for index, recording in enumerate(recordings):
        wave = load_audio(recording.path).samples[: round(LONGEST_S * SAMPLE_RATE_HZ)]
        for view in range(views):
            name = f"own-{index:05d}-{view}.flac"
            copy = wave if view == 0 else changed(wave, rng)
            write(folder / name, copy)
            for question, answer in asked_about(recording, labels, rng):
                rows.append(message(name, question, answer, len(copy) / SAMPLE_RATE_HZ))
    return rows


def asked_about(recording: Recording, labels: Sequence[str], rng: np.random.Generator) -> list[tuple[str, str]]:
    """Return the questions and answers that follow from what is known of a recording, and of the others' labels."""
    pairs = []
    if recording.label:
        heard = _heard(recording.label)
        tasks = ["hear", "hear", "hear", *(["presence"] if len(labels) > 1 else [])]
        for task in tasks:
            pairs.append(closed.question(heard, rng, lambda: _heard(*labels), task)[1:])
    if recording.caption:
        pairs += [(ask("hear", rng), recording.caption)]
    if recording.transcript:
        pairs += [(ask("say", rng), recording.transcript), (SAID, recording.transcript)]
    if recording.question:
        pairs += [(recording.question, recording.answer)]
    return pairs


def _heard(*labels: str) -> Heard:
    sounds = [Sound(samples=np.zeros(0, np.int16), pool="own", label=label) for label in labels]
    return Heard(events=tuple(Event(sound=sound, start_s=0.0, level_db=0.0) for sound in sounds), duration_s=0.0)


def replay_samples(
    engine: Any, sounds: Sequence[tuple[str, Waveform]], folder: Path, *, seed: int
) -> list[dict[str, Any]]:
    """Return old questions with the answers that the model gives now.

    Args:
        engine: The model before it is adapted.
        sounds: From `old_sounds`.
        folder: Where sounds are written.
        seed: Of every draw.
    """
    rng = np.random.default_rng([seed, 2])
    items: list[tuple[str, Waveform, str]] = []
    for index, (kind, wave) in enumerate(sounds):
        name = f"old-{index:05d}.flac"
        write(folder / name, wave.samples)
        kinds = REPLAY_KINDS[kind]
        picked = rng.choice(len(kinds), min(4, len(kinds)), replace=False)
        items += [(name, wave, _old_question(kinds[i], rng)) for i in picked]
    asked = engine.answer_each([(wave, question) for _, wave, question in items], max_new_tokens=[64] * len(items))
    answers = dict(tqdm(asked, "adapt: old questions", len(items), unit="question"))
    rows = [(*item, answers[place].text) for place, item in enumerate(items)]
    return [message(name, question, text, wave.duration_s) for name, wave, question, text in rows if text]


def _old_question(kind: str, rng: np.random.Generator) -> str:
    names = sorted(SPOKEN.values())
    return outside.ask(rng) if kind == "outside" else ask(kind, rng, names[rng.integers(len(names))])


def old_sounds(
    recordings: Sequence[Recording], others: Sequence[Path], *, count: int, seed: int
) -> Iterator[tuple[str, Waveform]]:
    """Yield what old questions are asked about, of every kind in turn, at most 10 s each.

    Args:
        recordings: The user's own, on the training side.
        others: Further recordings, of what the model should keep hearing.
        count: How many sounds; a few less where recordings cannot be read.
        seed: Of every draw.

    Yields:
        Kind (`sound`, `scene`, `speech`, or `own` for the user's) and sound.
    """
    rng = np.random.default_rng([seed, 4])
    for kind, wave in _drawn(rng, recordings, others, count):
        yield kind, replace(wave, samples=wave.samples[: round(LONGEST_S * SAMPLE_RATE_HZ)])


def some_of(recordings: Sequence[Path], root: Path | None, *, each: int, seed: int) -> Iterator[Waveform]:
    """Yield recordings, no one twice, at most 10 s each; what cannot be read is left out.

    Args:
        recordings: Under `root`.
        root: Its folders have the same share each, so that a set of thousands does not stand for everything.
        each: Most recordings of a folder.
        seed: Of the draw.
    """
    folders: dict[str, list[Path]] = {}
    for path in recordings:
        folders.setdefault(path.relative_to(root).parts[0] if root else "", []).append(path)
    rng = np.random.default_rng([seed, 5])
    for _, paths in sorted(folders.items()):
        for index in rng.permutation(len(paths))[:each]:
            try:
                wave = load_audio(paths[index])
            except AudioError:
                continue
            yield replace(wave, samples=wave.samples[: round(LONGEST_S * SAMPLE_RATE_HZ)])


def _drawn(
    rng: np.random.Generator, recordings: Sequence[Recording], others: Sequence[Path], count: int
) -> Iterator[tuple[str, Waveform]]:
    from ossicle.world.scenes import random_scene

    for index in range(count):
        turn = index % 8
        if others and turn < 4:
            try:
                kind = (
                    "sound" if rng.random() < 0.6 else "speech"
                )  # any question will do: the answer is the model's own
                yield kind, load_audio(others[int(rng.integers(len(others)))])
            except AudioError:
                continue
        elif turn in (0, 1, 4):
            yield "sound", random_scene(rng, 1).waveform
        elif turn in (2, 5):
            yield "scene", random_scene(rng, int(rng.integers(2, 5))).waveform
        elif turn in (3, 6):
            yield _speech(rng)
        else:
            yield "own", load_audio(recordings[int(rng.integers(len(recordings)))].path)


def _speech(rng: np.random.Generator) -> tuple[str, Waveform]:
    """Return spoken digits, or a synthetic sound where nothing can be spoken here."""
    from ossicle.world.scenes import random_scene
    from ossicle.world.speech import draw_voice, say

    words = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
    try:
        text = " ".join(words[i] for i in rng.integers(0, 10, int(rng.integers(1, 5))))
        return "speech", say(text, draw_voice(rng).name, float(rng.uniform(110, 220)), float(rng.uniform(20, 80)))
    except UnsupportedError:
        return "sound", random_scene(rng, 1).waveform
