"""Scenes composed of the user's recordings, with questions whose answers follow from how they were composed.

    recordings with different labels ──► one after the other ──► "What do you hear?" → "A kick, then a snare."

A hundred recordings are soon known by heart; ten thousand pairs of them are not, and a label that is told in company is
told from its neighbours. It also teaches the other questions: what comes first, how many, whether one is there.
Source: our choice; the shipped model learnt from composed audios too. What it brings alone was not measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.adapt.folder import Recording
from ossicle.adapt.views import changed, message, write
from ossicle.audio.io import load_audio
from ossicle.data.material import Sound, trim
from ossicle.questions import closed
from ossicle.questions.heard import Event, Heard
from ossicle.types import SAMPLE_RATE_HZ

LONGEST_PART_S = 2.5
GAP_S = (0.1, 0.5)
TASKS = ("hear", "hear", "first", "last", "count", "presence", "presence")
"""What a scene is asked, each as often as it stands here."""
QUESTIONS = 3


def scene_samples(recordings: Sequence[Recording], folder: Path, *, count: int, seed: int) -> list[dict[str, Any]]:
    """Write scenes into a folder; return questions about them as messages.

    Args:
        recordings: Those of the training side; what has no label is left out.
        folder: Where sounds are written.
        count: How many scenes; none where fewer than two labels are known.
        seed: Of every draw.

    Raises:
        OSError: The disk is full.
    """
    rng = np.random.default_rng([seed, 3])
    by_label: dict[str, list[Recording]] = {}
    for recording in recordings:
        if recording.label:
            by_label.setdefault(recording.label, []).append(recording)
    if len(by_label) < 2:
        return []
    scenes = []
    for index in range(count):
        name = f"scene-{index:05d}.flac"
        facts, wave = _scene(by_label, rng)
        write(folder / name, wave)
        scenes.append((name, facts))
    everything = Heard(events=tuple(_event(label, 0.0) for label in by_label), duration_s=0.0)
    rows = []
    for name, facts in scenes:
        whole = len(facts.events) == len(by_label)  # nothing is absent
        tasks = [task for task in TASKS if not (whole and task == "presence")]
        for task in rng.choice(tasks, QUESTIONS, replace=False):
            _, question, answer = closed.question(facts, rng, lambda: everything, str(task))
            rows.append(message(name, question, answer, facts.duration_s))
    return rows


def _event(label: str, start_s: float) -> Event:
    return Event(sound=Sound(samples=np.zeros(0, np.int16), pool="own", label=label), start_s=start_s, level_db=0.0)


def _scene(by_label: dict[str, list[Recording]], rng: np.random.Generator) -> tuple[Heard, np.ndarray]:
    """Return the facts of a scene and its samples."""
    labels = rng.choice(sorted(by_label), min(len(by_label), int(rng.integers(2, 4))), replace=False)
    events, pieces, at_s = [], [], 0.0
    for label in map(str, labels):
        choice = by_label[label]
        wave = trim(load_audio(choice[int(rng.integers(len(choice)))].path).samples)
        piece = changed(wave[: round(LONGEST_PART_S * SAMPLE_RATE_HZ)], rng)
        events.append(_event(label, at_s))
        gap = np.zeros(round(float(rng.uniform(*GAP_S)) * SAMPLE_RATE_HZ), np.float32)
        pieces += [piece, gap]
        at_s += (len(piece) + len(gap)) / SAMPLE_RATE_HZ
    return Heard(events=tuple(events), duration_s=at_s), np.concatenate(pieces)
