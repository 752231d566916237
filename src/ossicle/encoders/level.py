"""How loud it is, without a weight: the level of each moment and of the whole sound, as soft one-hot vectors.

    samples ──► power of 80 ms ──► dB of full scale ─────────────────────────┐
                      └──► from the first to the last moment near the peak ──┴──► a bin every 3 dB, −72 to 0, twice

A log-mel encoder that was taught to tell sources apart forgets how loud they are; beside it, this one keeps that to a
tenth of a dB. Between two bins a level is shared linearly, so that a linear layer can read any curve over the level.
The whole sound is what lies between the first and the last moment within 25 dB of the window's loudest: pauses inside
it count, silence around it does not.

Source: our choice.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from pydantic import Field, field_validator
from torch import Tensor

from ossicle.audio import chunk
from ossicle.encoders.base import Encoder, EncoderConfig
from ossicle.types import EncoderFacts

TOKEN_SAMPLES = 1280
"""80 ms, the step of `cnn`."""
STEP_DB = 3.0
NEAR_DB = 25.0
"""So far below the loudest moment of a window a sound begins and ends."""


class LevelConfig(EncoderConfig):
    """Settings of `level`.

    Attributes:
        window_s: Length of a window in seconds; the level of the whole sound is one per window.
        bins: Bins for each of the two levels, the highest one at 0 dB of full scale, each 3 dB under the next.
    """

    kind: str = "level"
    window_s: float | None = 10.0
    bins: int = Field(default=25, ge=2)

    @field_validator("layers")
    @classmethod
    def _has_none(cls, layers: Any) -> Any:
        if isinstance(layers, list):
            raise ValueError("this encoder has no layers to tap; leave it out")
        return layers

    def facts(self) -> EncoderFacts:
        """Return 12.5 tokens/s of two times `bins`."""
        return EncoderFacts(dim=2 * self.bins, rate_hz=12.5, max_seconds=self.window_s or 10.0)

    def window_tokens(self, num_samples: int) -> int:
        """Return a token for every 80 ms begun."""
        return chunk.ceil_div(num_samples, TOKEN_SAMPLES)


class LevelEncoder(Encoder):
    """RMS in dB of full scale, of 80 ms and of the whole sound: 12.5 tokens/s from 16 kHz audio.

    Example:
        >>> encoder = LevelEncoder(LevelConfig())
        >>> tokens = encoder(torch.full((1, 16000), 0.5), torch.tensor([16000])).values  # −6.02 dB, near the bin of −6
        >>> tokens.shape, tokens[0, 0, :25].argmax().item(), round(tokens[0, 0, 22].item(), 2)
        (torch.Size([1, 13, 50]), 22, 0.99)
    """

    Config: ClassVar[type[EncoderConfig]] = LevelConfig
    centres_db: Tensor

    def __init__(self, config: LevelConfig) -> None:
        super().__init__(config)
        self.register_buffer("centres_db", STEP_DB * torch.arange(1.0 - config.bins, 1.0))

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Encode windows (W, S) with `lengths` (W,) real samples."""
        count = chunk.ceil_div(windows.shape[1], TOKEN_SAMPLES)
        padded = torch.nn.functional.pad(windows.float(), (0, count * TOKEN_SAMPLES - windows.shape[1]))
        energy = padded.unflatten(1, (count, TOKEN_SAMPLES)).square().sum(-1)  # (W, N)
        begins = torch.arange(count, device=windows.device) * TOKEN_SAMPLES
        real = (lengths[:, None] - begins).clamp(0, TOKEN_SAMPLES)  # samples of each token
        moment = _decibels(energy, real)
        near = (moment >= moment.amax(1, keepdim=True) - NEAR_DB) & (real > 0)
        inside = (near.cumsum(1) > 0) & (near.flip(1).cumsum(1).flip(1) > 0)
        whole = _decibels((energy * inside).sum(1, keepdim=True), (real * inside).sum(1, keepdim=True))
        return torch.cat([self._shared(moment), self._shared(whole.expand_as(moment))], -1).to(self.centres_db.dtype)

    def _shared(self, level_db: Tensor) -> Tensor:
        """Return (W, N, bins) from levels (W, N): each shared between the two bins it lies between."""
        held = level_db.clamp((1 - self.config.bins) * STEP_DB, 0)[..., None]
        return (1 - (held - self.centres_db.float()).abs() / STEP_DB).clamp_min(0)


def _decibels(energy: Tensor, samples: Tensor) -> Tensor:
    return 10 * torch.log10(energy / samples.clamp_min(1) + 1e-12)
