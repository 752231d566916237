"""Time as people see it: clips cut into stretches, and how much of each audio token lies in each.

    clip     0 ───── 1 ───── 2 ───── 3 s            stretches
    tokens   │ │ │ │ │ │ │ │ │ │ │ │ │              token i of a stream begins at start_s + i / rate_hz

Every stream has its own rate. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ossicle.audio.chunk import ceil_div
from ossicle.types import AudioTokens, Waveform

MOST_STRETCHES = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A part of a clip.

    Attributes:
        clip: Which clip of the question.
        start: Its first sample.
        end: The sample after its last.
        rate_hz: Samples per second.
    """

    clip: int
    start: int
    end: int
    rate_hz: int

    @property
    def start_s(self) -> float:
        """Where it starts in its clip."""
        return self.start / self.rate_hz

    @property
    def end_s(self) -> float:
        """Where it ends."""
        return self.end / self.rate_hz

    def told(self, weight: float, **more: float) -> dict[str, Any]:
        """Return it with its weight, for people and JSON."""
        return {"clip": self.clip, "start_s": self.start_s, "end_s": self.end_s, "weight": weight, **more}


def several(clips: Waveform | Sequence[Waveform]) -> list[Waveform]:
    """Return one clip or several as a list."""
    return [clips] if isinstance(clips, Waveform) else list(clips)


def stretches(waves: Sequence[Waveform], stretch_s: float = 1.0) -> list[Stretch]:
    """Return the stretches of clips, longer ones where clips would have more than 60 together.

    Example:
        >>> [piece.end_s for piece in stretches([Waveform(samples=np.zeros(40000, np.float32))])]
        [1.0, 2.0, 2.5]
    """
    total_s = sum(wave.duration_s for wave in waves)
    found = []
    for clip, wave in enumerate(waves):
        most = max(1, int(MOST_STRETCHES * wave.duration_s / total_s))
        size = max(round(stretch_s * wave.sample_rate_hz), ceil_div(len(wave.samples), most))
        for start in range(0, len(wave.samples), size):
            end = min(start + size, len(wave.samples))
            found.append(Stretch(clip=clip, start=start, end=end, rate_hz=wave.sample_rate_hz))
    return found


def shares(tokens: AudioTokens, count: int, piece: Stretch) -> Tensor:
    """Return (count,) which part of each of a clip's first tokens lies in a stretch, by the tokens' own clock."""
    start = tokens.times_s()[:count] - 0.5 / tokens.rate_hz
    parts = tokens.stretches[piece.clip] if tokens.stretches else None
    start = start if parts is None else in_recording(start, parts)
    end = start + 1 / tokens.rate_hz
    inside = torch.minimum(end, torch.full_like(end, piece.end_s)) - start.clamp(min=piece.start_s)
    return inside.clamp(min=0) * tokens.rate_hz


def in_recording(times_s: Tensor, parts: Sequence[tuple[float, float]]) -> Tensor:
    """Return where in a recording times lie that count its (start, end) parts alone, one right after the other.

    Example:
        >>> in_recording(torch.tensor([0.0, 3.0]), [(10.0, 12.0), (60.0, 64.0)]).tolist()
        [10.0, 61.0]
    """
    found, before = times_s.clone(), 0.0
    for start, end in parts:
        found = torch.where(times_s >= before - 1e-4, times_s - before + start, found)
        before += end - start
    return found
