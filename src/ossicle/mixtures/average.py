"""Average: the base beside the plain mean of all weak encoders. z = concat(z_base, mean_k map_k(E_k))

MoWE with its routers taken away, at the same width as one router's: what routing itself adds is the difference to it.
Source: our choice.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from ossicle.encoders.base import EncoderConfig
from ossicle.mixtures.base import Maps, Mixture, MixtureConfig


class AverageConfig(MixtureConfig):
    """Settings of `average`: those of every mixture."""

    kind: str = "average"

    def out_dim(self) -> int:
        """Return the base's width and one map's."""
        return self.base_config.facts().dim + self.map_width


class Average(Mixture):
    """Base and the mean of the weak encoders."""

    Config: ClassVar[type[EncoderConfig]] = AverageConfig

    def __init__(self, config: AverageConfig) -> None:
        super().__init__(config)
        self.router = Maps(config)

    def mix(self, base: Tensor, weak: list[Tensor], valid: Tensor, prompt: Tensor | None) -> Tensor:
        """Join the base and the mean along the feature axis."""
        mean = torch.stack([self.router(values, k) for k, values in enumerate(weak)]).mean(0)
        return torch.cat([base, mean], -1)
