"""What a scene is composed of: dry sounds with the facts about them.

    sound("siren", rng) · speech("four seven", voice) · clip(waveform, label="dog")  ──►  Item

An item begins and ends with its sound, so that where it is placed is when it is heard.

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ossicle.errors import AudioError, DataError, suggest
from ossicle.types import SAMPLE_RATE_HZ, Waveform
from ossicle.world.sounds import SOURCES, Source
from ossicle.world.speech import Voice, say

SILENCE_DB = -50.0
"""Edges that stay this far under a sound's peak are not part of the event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A dry sound and what is true of it.

    Attributes:
        samples: (S,) float32 at 16 kHz.
        kind: `sound` (parametric), `speech` (synthetic) or `clip` (a real recording).
        label: Plain word: `siren`, `dog`, `speech`.
        spoken: The label in a sentence: `a siren`.
        source: Where it comes from: source name, voice name or file name.
        text: What is said, for speech.
        gender: `woman` or `man`, where known.
        f0_hz: True F0 in Hz, for sounds with one steady pitch.
        count: How many beeps, knocks, steps …, for countable sounds.
        parameters: Parameters of the source or of the voice.
    """

    samples: np.ndarray
    kind: str
    label: str
    spoken: str
    source: str
    text: str | None = None
    gender: str | None = None
    f0_hz: float | None = None
    count: int | None = None
    parameters: Mapping[str, float] = field(default_factory=dict)

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ


def find(name: str) -> Source:
    """Return the parametric source of that name.

    Raises:
        DataError: No such source.
    """
    if name not in SOURCES:
        raise DataError(f"unknown sound source '{name}'; {suggest(name, list(SOURCES))}")
    return SOURCES[name]


def sound(
    name: str,
    rng: np.random.Generator,
    duration_s: float | None = None,
    count: int | None = None,
    params: Mapping[str, float] | None = None,
) -> Item:
    """Return a parametric sound; what is not given is drawn.

    Args:
        name: A name in `SOURCES`.
        rng: Draws parameters and duration.
        duration_s: Length in seconds; what is silent at the end of it (after the last beep, say) is cut off.
        count: Exactly so many beeps, knocks …; fixes the length. Only for countable sources.
        params: Parameters that are not drawn.

    Raises:
        DataError: Unknown source or parameter, a count for a sound without one, or both a length and a count.

    Example:
        >>> import numpy as np
        >>> sound("beeps", np.random.default_rng(0), count=3).count
        3
    """
    source = find(name)
    if count is not None and (duration_s is not None or source.repeats is None or count < 1):
        raise DataError(
            f"sound '{name}': count is {count}; give it without a duration, at least 1, for a countable sound"
        )
    drawn = source.sample(rng) | dict(params or {})
    length_s = source.draw_length_s(rng) if duration_s is None else duration_s
    if count is not None:
        length_s = _length_for(source, drawn, count)
    return Item(
        samples=_audible(source.render(drawn, length_s)),
        kind="sound",
        label=name,
        spoken=source.spoken,
        source=name,
        f0_hz=source.f0_hz(drawn),
        count=source.count(drawn, length_s),
        parameters=drawn,
    )


def _audible(samples: np.ndarray) -> np.ndarray:
    """Return the samples without silence at their edges."""
    loud = np.flatnonzero(np.abs(samples) >= np.abs(samples).max() * 10.0 ** (SILENCE_DB / 20.0))
    return samples[loud[0] : loud[-1] + 1]


def _length_for(source: Source, params: Mapping[str, float], count: int) -> float:
    """Return the shortest duration (in steps of 10 ms) in which the source is heard `count` times."""
    length_s = 0.05
    while (source.count(params, length_s) or 0) < count:
        length_s += 0.01
    return length_s + 0.02


def speech(
    text: str, voice: Voice | str = "en-us", speed_wpm: float = 160.0, pitch: float = 50.0, telephone: bool = False
) -> Item:
    """Return a spoken text.

    Raises:
        UnsupportedError: espeak-ng is not installed.
        DataError: Empty text, unknown voice, or setting out of range.
    """
    name, gender = (voice.name, voice.gender) if isinstance(voice, Voice) else (voice, None)
    spoken = {"man": "a man speaking", "woman": "a woman speaking"}.get(gender or "", "speech")
    return Item(
        samples=say(text, name, speed_wpm, pitch, telephone=telephone).samples,
        kind="speech",
        label="speech",
        spoken=spoken,
        source=name,
        text=text,
        gender=gender,
        parameters={"speed_wpm": speed_wpm, "pitch": pitch, "telephone": float(telephone)},
    )


def clip(
    waveform: Waveform, label: str, spoken: str | None = None, text: str | None = None, gender: str | None = None
) -> Item:
    """Return a real recording as an item, without silence at its edges, at 16 kHz.

    Raises:
        AudioError: The recording is silent or not mono.
    """
    samples = np.asarray(waveform.samples, dtype=np.float32)
    if samples.ndim != 1 or samples.size == 0 or not np.abs(samples).max() > 1e-5:
        raise AudioError(
            f"clip '{waveform.name}' cannot be part of a scene; expected a mono recording that is not silent"
        )
    if waveform.sample_rate_hz != SAMPLE_RATE_HZ:
        import soxr

        samples = soxr.resample(samples, waveform.sample_rate_hz, SAMPLE_RATE_HZ)
    return Item(
        samples=_audible(samples),
        kind="speech" if text else "clip",
        label=label,
        spoken=spoken or label,
        source=waveform.name,
        text=text,
        gender=gender,
    )
