"""Consecutive tokens laid side by side, then two linear layers: fewer tokens, nothing averaged away.

    (C, N, D_encoder) ──stack k──► (C, N/k, k·D_encoder) ──linear, GELU, linear──► (C, N/k, D)

The last stack of a clip is filled with zeros.
Source: the common speech-LLM adapter (SLAM-LLM; MERaLiON stacks 15 frames); sizes are our choice.
"""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import nn

from ossicle.audio.chunk import ceil_div
from ossicle.connectors.base import Connector, ConnectorConfig
from ossicle.connectors.group import grouped, shrunk_mask
from ossicle.types import AudioTokens, EncoderFacts


class StackConfig(ConnectorConfig):
    """Settings of `stack`.

    Attributes:
        factor: Tokens in a stack, k.
        hidden: Middle width, None = the decoder's width.
    """

    kind: str = "stack"
    factor: int = Field(default=4, ge=1)
    hidden: int | None = Field(default=None, ge=1)

    def num_tokens(self, num_tokens: int) -> int:
        """Return the number of stacks, the last one perhaps not full."""
        return ceil_div(num_tokens, self.factor)

    def rate_hz(self, rate_hz: float) -> float:
        """Return the k-th part of the rate."""
        return rate_hz / self.factor

    @property
    def group_tokens(self) -> int:
        """The tokens of a stack."""
        return self.factor


class StackConnector(Connector):
    """Stack k tokens, then two linear layers with a GELU between."""

    Config: ClassVar[type[ConnectorConfig]] = StackConfig

    def __init__(self, config: StackConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        hidden = config.hidden or width
        self.layers = nn.Sequential(nn.Linear(config.factor * facts.dim, hidden), nn.GELU(), nn.Linear(hidden, width))

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map each stack by itself."""
        values, _ = grouped(tokens, self.config.factor)
        mask = shrunk_mask(tokens, self.config.factor)
        return tokens.with_values(
            self.layers(values.flatten(2)), valid=mask, rate_hz=self.config.rate_hz(tokens.rate_hz)
        )
