"""The truth about a scene: events, room, and the scene that holds them.

    Scene = waveform + events (what, when, how loud, how high, how many, who says what) + background + room

Source: our choice; the room is noise with exponential decay behind a direct path (Moorer 1979).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from ossicle.errors import DataError
from ossicle.types import SAMPLE_RATE_HZ, Waveform


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What is heard, when, how loud, how high, and who says what; see `Item` for the facts it takes over.

    Attributes:
        kind: `sound`, `speech` or `clip`.
        label: Plain word for it.
        spoken: The label in a sentence, with its article.
        start_s: Onset in seconds.
        end_s: End of the dry sound in seconds.
        level_db: RMS over the span, in dB of full scale.
        source: Source name, voice name or file name.
        f0_hz: True F0 in Hz, or None.
        text: What is said, or None.
        gender: Who says it, `woman` or `man`, or None.
        count: How many beeps, knocks …, or None.
        parameters: Parameters of the source or the voice.
    """

    kind: str
    label: str
    spoken: str
    start_s: float
    end_s: float
    level_db: float
    source: str
    f0_hz: float | None = None
    text: str | None = None
    gender: str | None = None
    count: int | None = None
    parameters: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Reverberation.

    Attributes:
        sixty_s: Time in which the tail falls by 60 dB.
        direct_db: Energy of the direct sound over that of the tail, in dB.
        seed: Randomness of the tail.
    """

    sixty_s: float = 0.4
    direct_db: float = 6.0
    seed: int = 0

    def response(self) -> np.ndarray:
        """Return (S,) the impulse response; the direct sound is its first sample, 1."""
        if not 0.05 <= self.sixty_s <= 10.0:
            raise DataError(f"room: sixty_s is {self.sixty_s}, expected 0.05 to 10 seconds")
        size = round(self.sixty_s * SAMPLE_RATE_HZ)
        tail = np.random.default_rng(self.seed).standard_normal(size)
        tail *= np.exp(np.arange(size) * (-6.9078 / size))
        tail[: round(0.004 * SAMPLE_RATE_HZ)] = 0.0
        tail *= 10.0 ** (-self.direct_db / 20.0) / np.sqrt(np.sum(tail**2))
        tail[0] = 1.0
        return tail


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A rendered scene and the truth about it.

    Attributes:
        waveform: What is heard, 16 kHz.
        events: In order of their onset.
        background: The sound behind everything, or None.
        snr_db: Level of the events over the background, None without one.
        room: Reverberation, None when dry.
    """

    waveform: Waveform
    events: tuple[Event, ...]
    background: Event | None = None
    snr_db: float | None = None
    room: Room | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.waveform.duration_s

    def labels(self) -> list[str]:
        """Return the labels in the order they are heard."""
        return [event.label for event in self.events]

    def count(self, label: str) -> int:
        """Return how many events have the label."""
        return self.labels().count(label)

    def contains(self, label: str) -> bool:
        """Return whether the label is heard, in the foreground or behind it."""
        return label in self.labels() or (self.background is not None and self.background.label == label)

    def text(self) -> str:
        """Return everything that is said, in order."""
        return " ".join(event.text for event in self.events if event.text)

    def truth(self) -> dict[str, Any]:
        """Return the truth as plain values for JSON."""
        return {
            "duration_s": self.duration_s,
            "events": [asdict(event) for event in self.events],
            "background": asdict(self.background) if self.background else None,
            "snr_db": self.snr_db,
            "room": asdict(self.room) if self.room else None,
        }


def level_db(samples: np.ndarray) -> float:
    """Return the RMS in dB of full scale; -200 for silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0
    return float(10.0 * np.log10(max(power, 1e-20)))
