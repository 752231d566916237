"""Two linear layers with a GELU between: the plain PLITS connector.

    (C, N, D_encoder) ──linear──► hidden ──GELU──linear──► (C, N, D)

Source: LLaVA-style projector, named as the PLITS baseline's class in PAL (v2, abstract).
"""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from ossicle.connectors.base import Connector, ConnectorConfig
from ossicle.types import AudioTokens, EncoderFacts


class MlpConfig(ConnectorConfig):
    """Settings of `mlp`: `hidden` is the middle width, None = the decoder's width."""

    kind: str = "mlp"
    hidden: int | None = None

    @property
    def group_tokens(self) -> int:
        """Each token by itself."""
        return 1


class MlpConnector(Connector):
    """Two linear layers with a GELU between; the rate stays."""

    Config: ClassVar[type[ConnectorConfig]] = MlpConfig

    def __init__(self, config: MlpConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        hidden = config.hidden or width
        self.layers = nn.Sequential(nn.Linear(facts.dim, hidden), nn.GELU(), nn.Linear(hidden, width))

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map each token by itself."""
        return tokens.with_values(self.layers(tokens.values))
