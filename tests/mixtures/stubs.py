"""Stub encoders that hear one stretch of every frame, and nothing else: who carries a label is then known exactly.

frame of 400 samples   |  0  |  1  |  2  |  3  | …  |        encoder `place: k` hears samples 20k … 20k + dim
"""

from __future__ import annotations

from typing import ClassVar

import torch

from ossicle.audio.chunk import ceil_div
from ossicle.encoders.base import Encoder, EncoderConfig
from ossicle.types import EncoderFacts

STRIDE = 20


class StubConfig(EncoderConfig):
    kind: str = "stub"
    place: int = 0
    dim: int = 4
    hop: int = 400
    weights: int = 1

    def facts(self) -> EncoderFacts:
        return EncoderFacts(dim=self.dim, rate_hz=16_000 / self.hop, max_seconds=self.window_s or 1.0)

    def window_tokens(self, num_samples: int) -> int:
        return ceil_div(num_samples, self.hop)


class StubEncoder(Encoder):
    """`calls` counts the windows it was given."""

    Config: ClassVar = StubConfig

    def __init__(self, config: StubConfig) -> None:
        super().__init__(config)
        self.scale = torch.nn.Parameter(torch.ones(config.weights))
        self.calls = 0

    def encode_windows(self, windows, lengths):
        self.calls += len(windows)
        hop = self.config.hop
        frames = torch.nn.functional.pad(windows, (0, -windows.shape[1] % hop)).unflatten(1, (-1, hop))
        start = STRIDE * self.config.place
        return frames[..., start : start + self.config.dim] * self.scale[0]


def stub(place: int = 0, **settings):
    return {"kind": "stub", "place": place, **settings}
