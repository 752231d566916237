"""Concatenation: every weak encoder beside the base, none chosen. z = concat(z_base, map_1(E_1), …, map_M(E_M))

The baseline that a router has to beat with fewer encoders run. Source: our choice.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ossicle.encoders.base import EncoderConfig
from ossicle.mixtures.base import Maps, Mixture, MixtureConfig


class ConcatConfig(MixtureConfig):
    """Settings of `concat`: those of every mixture."""

    kind: str = "concat"

    def out_dim(self) -> int:
        """Return the base's width and one map's for each weak encoder."""
        return self.base_config.facts().dim + len(self.pool) * self.map_width


class Concat(Mixture):
    """Base and all weak encoders side by side."""

    Config: ClassVar[type[EncoderConfig]] = ConcatConfig

    def __init__(self, config: ConcatConfig) -> None:
        super().__init__(config)
        self.router = Maps(config)

    def mix(self, base: Tensor, weak: list[Tensor], valid: Tensor, prompt: Tensor | None) -> Tensor:
        """Join along the feature axis."""
        return torch.cat([base, *(self.router(values, k) for k, values in enumerate(weak))], -1)
