"""The mean of consecutive tokens, then two linear layers: the cheapest way to a lower rate.

    (C, N, D_encoder) ──mean of k real tokens──► (C, N/k, D_encoder) ──linear, GELU, linear──► (C, N/k, D)

Source: our choice; with `factor` 1 it is `mlp`.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from ossicle.audio.chunk import ceil_div
from ossicle.connectors.base import Connector, ConnectorConfig
from ossicle.connectors.group import grouped, shrunk_mask
from ossicle.types import AudioTokens, EncoderFacts


class PoolConfig(ConnectorConfig):
    """Settings of `pool`.

    Attributes:
        factor: Tokens in a mean, k.
        hidden: Middle width, None = the decoder's width.
    """

    kind: str = "pool"
    factor: int = Field(default=4, ge=1)
    hidden: int | None = Field(default=None, ge=1)

    def num_tokens(self, num_tokens: int) -> int:
        """Return the number of means, the last one perhaps of fewer tokens."""
        return ceil_div(num_tokens, self.factor)

    def rate_hz(self, rate_hz: float) -> float:
        """Return the k-th part of the rate."""
        return rate_hz / self.factor

    @property
    def group_tokens(self) -> int:
        """The tokens of a mean."""
        return self.factor


class PoolConnector(Connector):
    """Mean of k tokens, then two linear layers with a GELU between."""

    Config: ClassVar[type[ConnectorConfig]] = PoolConfig

    def __init__(self, config: PoolConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        hidden = config.hidden or width
        self.layers = nn.Sequential(nn.Linear(facts.dim, hidden), nn.GELU(), nn.Linear(hidden, width))

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map each mean by itself."""
        values, real = grouped(tokens, self.config.factor)
        means = values.sum(2) / real.sum(2, keepdim=True).clamp_min(1)
        mask = shrunk_mask(tokens, self.config.factor)
        return tokens.with_values(self.layers(means), valid=mask, rate_hz=self.config.rate_hz(tokens.rate_hz))
