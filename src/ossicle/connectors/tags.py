"""A tagger that remembers examples, whose verdict becomes audio tokens: the name of what it hears, or nothing.

    (C, N, D_encoder) ──mean ⊕ max of k real tokens──► standardised z, one for each group
    s(z) = Σ_j exp(−γ ‖z − z_j‖² / 2 D_encoder) a_j        over the examples z_j: a score for each tag, one for "any"
    tokens = the likeliest tag's name, where s_any > bound; no token at all elsewhere       (C, ≤ ⌈N/k⌉ · m, D)

A hundred clips are enough for such a tagger, where a decoder would learn a hundred clips by heart; the decoder only has
to say what the tokens name, and hears the rest through its other streams. A clip without a verdict has no tokens, so
that the model answers about it as if the stream were not there. Encoders that train learn through it as through a
softmax (straight-through). `adapt` fits the examples and starts the names, m
tokens each, at the embeddings of a tag's own words. Source: kernel ridge regression, Saunders, Gammerman & Vovk 1998;
that a verdict is input is our choice, as LTU-AS (arXiv 2309.14405) gives the decoder a transcript.
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
        examples: How many examples it remembers.
        gamma: How near an example has to be: the larger, the nearer.
    """

    kind: str = "tags"
    tags: list[str] = Field(default=["speech", "music", "noise"], min_length=1)
    factor: int = Field(default=250, ge=1)
    length: int = Field(default=4, ge=1)
    examples: int = Field(default=32, ge=1)
    gamma: float = Field(default=1.0, gt=0)
    time_embedding: bool = False
    output_norm: bool = False

    def num_tokens(self, num_tokens: int) -> int:
        """Return the most tokens there can be: a verdict on every group, the last one perhaps of fewer tokens."""
        return ceil_div(num_tokens, self.factor) * self.length

    def rate_hz(self, rate_hz: float) -> float:
        """Return m tokens for k."""
        return rate_hz * self.length / self.factor

    @property
    def group_tokens(self) -> int:
        """The tokens of a verdict."""
        return self.factor

    @property
    def timed(self) -> bool:
        """Verdicts are packed to the front, whatever lies between."""
        return False


class TagsConnector(Connector):
    """Examples, what each of them says about a sound near it, and the tags' names; the names alone learn."""

    Config: ClassVar[type[ConnectorConfig]] = TagsConfig
    examples: Tensor
    says: Tensor
    mean: Tensor
    spread: Tensor
    bound: Tensor

    def __init__(self, config: TagsConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        self.names = nn.Parameter(torch.randn(len(config.tags), config.length, width))
        self.register_buffer("examples", torch.randn(config.examples, 2 * facts.dim))
        self.register_buffer("says", torch.randn(config.examples, len(config.tags) + 1))
        self.register_buffer("mean", torch.zeros(2 * facts.dim))
        self.register_buffer("spread", torch.ones(2 * facts.dim))
        self.register_buffer(
            "bound", torch.tensor(-torch.inf)
        )  # until it is fitted, everything has a verdict, a random one

    def set_output_scale(self, rms: float) -> None:
        """Start the names at the scale of the decoder's text embeddings."""
        super().set_output_scale(rms)
        with torch.no_grad():
            self.names.mul_(rms / self.names.square().mean().sqrt())

    def scores(self, seen: Tensor) -> Tensor:
        """Return (..., tags + 1) of (..., 2 · D_encoder) pooled tokens: each tag's score, then that of any of them."""
        near = kernel((seen.float() - self.mean) / self.spread, self.examples.float(), self.config.gamma)
        return near @ self.says.float()

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Judge each group by itself; verdicts stand one after the other, whatever lies between."""
        scores = self.scores(pooled(tokens, self.config.factor))
        judged = shrunk_mask(tokens, self.config.factor) & (scores[..., -1] > self.bound)
        order = (~judged).to(torch.uint8).argsort(dim=1, stable=True)
        likely = scores[..., :-1].softmax(-1)
        verdict = nn.functional.one_hot(likely.argmax(-1), len(self.names)) + (likely - likely.detach())
        named = (verdict @ self.names.float().flatten(1)).gather(
            1, order[..., None].expand(-1, -1, self.names[0].numel())
        )
        valid = judged.gather(1, order).repeat_interleave(self.config.length, 1)
        spoken = named.unflatten(-1, self.names.shape[1:]).flatten(1, 2).to(tokens.values.dtype)
        longest = int(valid.sum(1).max())  # columns that nobody hears would still change how the decoder's sums round
        spoken, valid = spoken[:, :longest], valid[:, :longest]
        return tokens.with_values(spoken, valid=valid, rate_hz=self.config.rate_hz(tokens.rate_hz))


def pooled(tokens: AudioTokens, factor: int) -> Tensor:
    """Return (C, ⌈N/k⌉, 2 · D_encoder) mean and max of each group's real tokens; what is compared with the examples."""
    values, real = grouped(tokens, factor)
    count = real.sum(2, keepdim=True)
    mean = values.sum(2) / count.clamp_min(1)
    most = values.masked_fill(~real[..., None], -torch.inf).amax(2).masked_fill(count == 0, 0)
    return torch.cat([mean, most], -1)


def kernel(these: Tensor, those: Tensor, gamma: float) -> Tensor:
    """Return (..., n) how near (..., D) vectors are to (n, D) others: 1 for the same, 0 far away."""
    squared = these.square().sum(-1, keepdim=True) + those.square().sum(-1) - 2 * these @ those.T
    return torch.exp(squared.clamp(min=0) * (-gamma / these.shape[-1]))
