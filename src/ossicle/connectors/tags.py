"""A linear tagger whose verdict becomes audio tokens: the names of what it hears, weighted by how sure it is.

    (C, N, D_encoder) ──mean ⊕ max of k real tokens──► z ─┬─ W z + b ──softmax──► p   which tag
                                                          └─ v·z + c ──sigmoid──► g   any of them at all
    tokens = g · Σ_i p_i name_i                                                (C, ⌈N/k⌉ · m, D)

With k an encoder window the tagger is a linear probe, which a hundred clips are enough to fit, where a decoder would
learn a hundred clips by heart; the decoder only has to say what the tokens name, and goes on hearing through its other
streams. `adapt` fits both heads and starts `name_i`, m tokens, at the embeddings of a tag's own words. No norm at the
output: it would undo g (an integration that norms audio undoes it too, as far as g is not close to 0).
Source: our choice; a classifier's verdict as input is what LTU-AS (arXiv 2309.14405) does with a transcript.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ossicle.audio.chunk import ceil_div
from ossicle.connectors.base import Connector, ConnectorConfig
from ossicle.connectors.group import grouped, shrunk_mask
from ossicle.types import AudioTokens, EncoderFacts


class TagsConfig(ConnectorConfig):
    """Settings of `tags`.

    Attributes:
        tags: What it can name.
        factor: Tokens that are judged together, k.
        length: Tokens of a verdict, m.
    """

    kind: str = "tags"
    tags: list[str] = Field(default=["speech", "music", "noise"], min_length=1)
    factor: int = Field(default=250, ge=1)
    length: int = Field(default=4, ge=1)
    time_embedding: bool = False
    output_norm: bool = False

    def num_tokens(self, num_tokens: int) -> int:
        """Return the tokens of all verdicts, the last one perhaps about fewer tokens."""
        return ceil_div(num_tokens, self.factor) * self.length

    def rate_hz(self, rate_hz: float) -> float:
        """Return m tokens for k."""
        return rate_hz * self.length / self.factor

    @property
    def group_tokens(self) -> int:
        """The tokens of a verdict."""
        return self.factor


class TagsConnector(Connector):
    """Two linear heads over pooled tokens, then a mixture of names."""

    Config: ClassVar[type[ConnectorConfig]] = TagsConfig

    def __init__(self, config: TagsConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        self.which = nn.Linear(2 * facts.dim, len(config.tags))
        self.any = nn.Linear(2 * facts.dim, 1)
        self.names = nn.Parameter(torch.randn(len(config.tags), config.length, width))

    def set_output_scale(self, rms: float) -> None:
        """Start the names at the scale of the decoder's text embeddings."""
        super().set_output_scale(rms)
        with torch.no_grad():
            self.names.mul_(rms / self.names.square().mean().sqrt())

    def pooled(self, tokens: AudioTokens) -> Tensor:
        """Return (C, ⌈N/k⌉, 2 · D_encoder) mean and max of each group's real tokens; what the heads are fitted on."""
        values, real = grouped(tokens, self.config.factor)
        count = real.sum(2, keepdim=True)
        mean = values.sum(2) / count.clamp_min(1)
        most = values.masked_fill(~real[..., None], -torch.inf).amax(2).masked_fill(count == 0, 0)
        return torch.cat([mean, most], -1)

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Judge each group by itself."""
        pooled = self.pooled(tokens)
        mixed = self.which(pooled).softmax(-1) @ self.names.flatten(1)
        spoken = (self.any(pooled).sigmoid() * mixed).unflatten(-1, self.names.shape[1:]).flatten(1, 2)
        mask = shrunk_mask(tokens, self.config.factor).repeat_interleave(self.config.length, 1)
        return tokens.with_values(spoken, valid=mask, rate_hz=self.config.rate_hz(tokens.rate_hz))
