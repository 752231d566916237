"""Strided convolutions over time, then a linear layer: a lower rate that sees its neighbours.

    (C, N, D_encoder) ──[conv 3, stride 2, GELU] × depth──► (C, N / 2^depth, hidden) ──linear──► (C, N / 2^depth, D)

What lies after a clip's end is set to zero before each convolution, so that padding changes nothing.
Source: the length adapter of speech translation (fairseq S2T, SALMONN's and others' relatives); sizes are our choice.
"""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar

from pydantic import Field
from torch import nn

from ossicle.audio.chunk import ceil_div, prefix_mask
from ossicle.connectors.base import Connector, ConnectorConfig
from ossicle.types import AudioTokens, EncoderFacts


class ConvConfig(ConnectorConfig):
    """Settings of `conv`.

    Attributes:
        depth: Convolutions; each halves the rate.
        hidden: Channels, None = the decoder's width.
    """

    kind: str = "conv"
    depth: int = Field(default=2, ge=1)
    hidden: int | None = Field(default=None, ge=1)

    def num_tokens(self, num_tokens: int) -> int:
        """Return the tokens left after halving `depth` times, rounding up."""
        return ceil_div(num_tokens, 2**self.depth)

    def rate_hz(self, rate_hz: float) -> float:
        """Return the rate after halving `depth` times."""
        return rate_hz / 2**self.depth


class ConvConnector(Connector):
    """Convolutions of kernel 3 and stride 2, then a linear layer."""

    Config: ClassVar[type[ConnectorConfig]] = ConvConfig

    def __init__(self, config: ConvConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        hidden = config.hidden or width
        widths = [facts.dim] + [hidden] * config.depth
        self.convolutions = nn.ModuleList(
            nn.Conv1d(before, after, kernel_size=3, stride=2, padding=1) for before, after in pairwise(widths)
        )
        self.linear = nn.Linear(hidden, width)

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map (C, N, D_encoder) to (C, N / 2^depth, D)."""
        counts, mask = tokens.counts(), tokens.valid
        values = tokens.values.transpose(1, 2)  # (C, D, N)
        for convolution in self.convolutions:
            values = nn.functional.gelu(convolution(values.masked_fill(~mask[:, None], 0)))
            counts = -(-counts // 2)
            mask = prefix_mask(counts, values.shape[2])
        rate_hz = self.config.rate_hz(tokens.rate_hz)
        return tokens.with_values(self.linear(values.transpose(1, 2)), valid=mask, rate_hz=rate_hz)
