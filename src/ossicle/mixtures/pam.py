"""PaM: a mixture whose weights come from the question instead of the sound.

    p = softmax(f(mean embedding of the prompt))        z = concat(z_base, Σ_k p[k] · map_k(E_k(a)))

The same clip is heard through other encoders when it is asked for its words than for its sounds. The members' features
do not depend on the prompt and can be kept; the mixture's tokens do, and it says so (`prompt_dependent`).
Source: the idea of a prompt-aware mixture of audio encoders (arXiv 2502.15178); the form here is our own reading under
MoWE's interface: soft weights, one sum beside the base, no routing loss.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, ClassVar

from pydantic import Field

from ossicle.encoders.base import EncoderConfig
from ossicle.mixtures.mowe import Mowe, MoweConfig, RouterName, Routing
from ossicle.types import EncoderFacts


class PamConfig(MoweConfig):
    """Settings of `pam`: those of `mowe`, with one router that looks at the prompt.

    Attributes:
        prompt_dim: Width of the decoder's embeddings.
        routers: Only `prompt`.
        top_k: As for `mowe`; all encoders are run in any case.
        selectivity: As for `mowe`, off by default; so is `diversity`.
        diversity: See `selectivity`.
    """

    kind: str = "pam"
    prompt_dim: int = Field(ge=1)
    routers: list[RouterName] = Field(default=["prompt"], min_length=1)
    top_k: int | None = Field(default=None, ge=1)
    selectivity: float = Field(default=0.0, ge=0)
    diversity: float = Field(default=0.0, ge=0)

    router_names: ClassVar[tuple[RouterName, ...]] = ("prompt",)

    def facts(self) -> EncoderFacts:
        """Return the facts, and that the prompt matters."""
        return replace(super().facts(), prompt_dependent=True)


class Pam(Mowe):
    """Base and weak encoders weighted by the prompt."""

    Config: ClassVar[type[EncoderConfig]] = PamConfig

    def build_router(self, config: Any) -> Routing:
        """Return a router over the decoder's embeddings."""
        return Routing(config, config.prompt_dim)
