"""Base only: the pool is named and neither built nor run. z = z_base

The other end of the comparison, under the same settings as the mixtures. Source: our choice.
"""

from __future__ import annotations

from functools import cached_property
from typing import ClassVar

from torch import Tensor

from ossicle.encoders.base import EncoderConfig
from ossicle.mixtures.base import Mixture, MixtureConfig


class BaseOnlyConfig(MixtureConfig):
    """Settings of `base-only`: those of every mixture; all but `base` is left aside."""

    kind: str = "base-only"

    @cached_property
    def pool_configs(self) -> list[EncoderConfig]:
        """Nothing: the pool is not built."""
        return []

    def out_dim(self) -> int:
        """Return the base's width."""
        return self.base_config.facts().dim


class BaseOnly(Mixture):
    """The base alone."""

    Config: ClassVar[type[EncoderConfig]] = BaseOnlyConfig

    def mix(self, base: Tensor, weak: list[Tensor], valid: Tensor, prompt: Tensor | None) -> Tensor:
        """Return the base's tokens."""
        return base
