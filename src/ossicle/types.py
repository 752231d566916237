"""The nouns that travel between rooms. Verbs are functions elsewhere.

    Waveform ──► AudioTokens (encoder) ──► AudioTokens at LM width (connector)

One convention everywhere: a mask is boolean, True = real; valid tokens are always a prefix of their row.
Dimension legend: `B` batch, `C` clips, `S` samples, `F` mel bins, `T` frames, `N` audio tokens, `L` text tokens,
`D` width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from torch import Tensor

SAMPLE_RATE_HZ = 16_000
"""The one rate of audio inside ossicle; a front end that wants another resamples for itself."""

Stretches = tuple[tuple[float, float], ...]
"""The (start, end) seconds of a clip that are heard, in order (see `ossicle.focus`); None in its place = all of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waveform:
    """One mono recording in memory.

    Attributes:
        samples: (S,) float32, nominally in -1..1.
        sample_rate_hz: Samples per second.
        name: Where it came from, for messages: a path, or `<bytes>`.
        truncated: The source was damaged, and only its beginning could be decoded.
        lost_s: Seconds known to be missing at the end when `truncated`, 0 when unknown.
    """

    samples: np.ndarray
    sample_rate_hz: int = SAMPLE_RATE_HZ
    name: str = "<array>"
    truncated: bool = False
    lost_s: float = 0.0

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFacts:
    """What an encoder declares about itself; others read this and never its name.

    Attributes:
        dim: Width of a token; `num_layers` tapped layers are stacked inside it.
        rate_hz: Tokens per second.
        sample_rate_hz: Rate its front end works at (it receives 16 kHz and resamples for itself).
        max_seconds: Length of one window. A longer clip is cut on a fixed grid of such windows.
        num_layers: How many hidden layers are tapped; a token is their concatenation, first layer first.
        windowed: Each window is encoded by itself, so that live audio can be appended.
        prompt_dependent: The output depends on the question, so that it cannot be reused for another one.
    """

    dim: int
    rate_hz: float
    sample_rate_hz: int = SAMPLE_RATE_HZ
    max_seconds: float = 30.0
    num_layers: int = 1
    windowed: bool = True
    prompt_dependent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioTokens:
    """What every encoder and connector returns.

    Attributes:
        values: (C, N, D), one row per clip.
        valid: (C, N) boolean, True = real token; a prefix of each row.
        rate_hz: Tokens per second.
        start_s: Absolute time of the first token in the clip, in seconds (live audio starts later than 0).
        stretches: Of each clip the (start, end) seconds that its tokens stand for, one right after the other; None =
            all of it (see `ossicle.focus`).
    """

    values: Tensor
    valid: Tensor
    rate_hz: float
    start_s: float = 0.0
    stretches: tuple[Stretches | None, ...] | None = None

    def times_s(self) -> Tensor:
        """Return (N,) the time of each token's middle in seconds."""
        import torch

        # In double precision, so that an hour into a live stream a token's time is that in the whole file.
        index = torch.arange(self.values.shape[1], dtype=torch.float64)
        return (self.start_s + (index + 0.5) / self.rate_hz).to(self.values.device, torch.float32)

    def counts(self) -> Tensor:
        """Return (C,) the number of real tokens of each clip."""
        return self.valid.sum(1)

    def with_values(self, values: Tensor, *, valid: Tensor | None = None, rate_hz: float | None = None) -> AudioTokens:
        """Return the same tokens with other values, and with another mask and rate where given."""
        return replace(
            self,
            values=values,
            valid=self.valid if valid is None else valid,
            rate_hz=self.rate_hz if rate_hz is None else rate_hz,
        )

    def of(self, stretches: Sequence[Sequence[tuple[float, float]] | None]) -> AudioTokens:
        """Return the same tokens, standing for stretches of their clips."""
        return replace(self, stretches=tuple(None if each is None else tuple(each) for each in stretches))

    def take(self, which: Tensor) -> AudioTokens:
        """Return the tokens of some clips, in that order."""
        parts = self.stretches and tuple(self.stretches[clip] for clip in which.tolist())
        return replace(self, values=self.values[which], valid=self.valid[which], stretches=parts)

    def to(self, device: object = None, dtype: object = None) -> AudioTokens:
        """Return the tokens on another device, values in another dtype."""
        return replace(self, values=self.values.to(device=device, dtype=dtype), valid=self.valid.to(device=device))  # type: ignore[call-overload]
