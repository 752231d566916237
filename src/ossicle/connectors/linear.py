"""A LayerNorm without parameters and one linear layer: LTU's projection.

    (C, N, D_encoder) ──LayerNorm──linear──► (C, N, D)

`time_embedding: false, output_norm: false` is LTU exactly; at 768 to 4096 it has 3,149,824 parameters.
Source: LTU (arXiv 2305.10790).
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from ossicle.connectors.base import Connector, ConnectorConfig
from ossicle.connectors.tltr import Float32LayerNorm
from ossicle.types import AudioTokens, EncoderFacts


class LinearConfig(ConnectorConfig):
    """Settings of `linear`: those of every connector."""

    kind: str = "linear"

    @property
    def group_tokens(self) -> int:
        """Each token by itself."""
        return 1


class LinearConnector(Connector):
    """Each token by itself; the rate stays."""

    Config: ClassVar[type[ConnectorConfig]] = LinearConfig

    def __init__(self, config: LinearConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        self.layers = nn.Sequential(Float32LayerNorm(facts.dim, elementwise_affine=False), nn.Linear(facts.dim, width))

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map each token by itself."""
        return tokens.with_values(self.layers(tokens.values))
