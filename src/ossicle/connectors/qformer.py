"""Learned queries that read the tokens by cross-attention: a fixed number per clip, or per window of the clip.

    queries (Q, H) ──[ + self-attention  + cross-attention to tokens  + feed-forward ] × depth──linear──► (Q, D)

    global         Q tokens for the whole clip, however long
    window-level   Q tokens for each `window_tokens` encoder tokens: order and a rate survive

Every sublayer is pre-norm. Keys carry the sinusoid of absolute time, for attention alone cannot tell first from last. A
global query belongs to the whole clip, so its own time is the clip's start.
Source: Q-Former (Li et al., arXiv 2301.12597), window level as SALMONN (arXiv 2310.13289); PAL's PLITS names the class
but no sizes, which are our choice.
"""

from __future__ import annotations

from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ossicle.audio.chunk import ceil_div
from ossicle.connectors.base import Connector, ConnectorConfig, sinusoid
from ossicle.connectors.group import grouped, shrunk_mask
from ossicle.types import AudioTokens, EncoderFacts


class QformerConfig(ConnectorConfig):
    """Settings of `qformer`.

    Attributes:
        queries: Queries per clip, or per window.
        window_tokens: Encoder tokens in a window; None = global queries.
        hidden: Width inside, a multiple of `heads`.
        depth: Blocks.
        heads: Attention heads.
    """

    kind: str = "qformer"
    queries: int = Field(default=32, ge=1)
    window_tokens: int | None = Field(default=None, ge=1)
    hidden: int = Field(default=768, ge=1)
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=12, ge=1)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.hidden % self.heads:
            raise ValueError(f"hidden is {self.hidden}: expected a multiple of heads, {self.heads}")
        return self

    def num_tokens(self, num_tokens: int) -> int:
        """Return the queries of the clip, or of all its windows."""
        return self.queries * (ceil_div(num_tokens, self.window_tokens) if self.window_tokens else 1)

    def rate_hz(self, rate_hz: float) -> float:
        """Return queries per second at window level; global queries have no rate, and keep the one that went in."""
        return rate_hz * self.queries / self.window_tokens if self.window_tokens else rate_hz

    @property
    def group_tokens(self) -> int | None:
        """The tokens of a window; global queries look across the whole clip."""
        return self.window_tokens

    @property
    def timed(self) -> bool:
        """Global queries belong to the clip as a whole."""
        return self.window_tokens is not None


class Attention(nn.Module):
    """Multi-head attention of one sequence to another."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, memory: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, Q, H) for queries (B, Q, H), memory (B, N, H) and mask (B, N), True = visible."""
        query = self.query(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        key, value = self.key_value(memory).unflatten(-1, (2 * self.heads, -1)).transpose(1, 2).chunk(2, 1)
        visible = None if mask is None else mask[:, None, None]
        out = nn.functional.scaled_dot_product_attention(query, key, value, visible)
        mixed: Tensor = self.out(out.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Queries look at each other, then at the tokens, then think."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.to_queries = Attention(width, heads)
        self.to_tokens = Attention(width, heads)
        self.feed_forward = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, queries: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Return (B, Q, H) queries after one round."""
        normed = self.norms[0](queries)
        queries = queries + self.to_queries(normed, normed)
        queries = queries + self.to_tokens(self.norms[1](queries), tokens, mask)
        out: Tensor = queries + self.feed_forward(self.norms[2](queries))
        return out


class QformerConnector(Connector):
    """Learned queries over a clip, or over each window of it."""

    Config: ClassVar[type[ConnectorConfig]] = QformerConfig

    def __init__(self, config: QformerConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        hidden = config.hidden
        self.queries = nn.Parameter(torch.randn(config.queries, hidden) * hidden**-0.5)
        self.token_norm = nn.LayerNorm(facts.dim)
        self.token_in = nn.Linear(facts.dim, hidden)
        self.memory_norm = nn.LayerNorm(hidden)
        self.blocks = nn.ModuleList(Block(hidden, config.heads) for _ in range(config.depth))
        self.norm = nn.LayerNorm(hidden)
        self.linear = nn.Linear(hidden, width)

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map (C, N, D_encoder) to (C, Q, D), or to (C, N / window · Q, D)."""
        times = sinusoid(tokens.times_s(), self.config.hidden)
        memory = self.token_in(self.token_norm(tokens.values))
        memory = tokens.with_values(self.memory_norm(memory + times.to(memory.dtype)))
        size = self.config.window_tokens or memory.values.shape[1]
        values, real = grouped(memory, size)  # (C, G, size, H)
        clips, groups = real.shape[:2]
        # A group without real tokens is dropped below; until then softmax needs something to look at.
        visible = real.flatten(0, 1) | ~real.flatten(0, 1).any(-1, keepdim=True)
        out = self.queries.to(values.dtype).expand(clips * groups, -1, -1)
        for block in self.blocks:
            out = block(out, values.flatten(0, 1), visible)
        out = self.linear(self.norm(out)).unflatten(0, (clips, groups)).flatten(1, 2)
        mask = shrunk_mask(tokens, size).repeat_interleave(self.config.queries, 1)
        return tokens.with_values(out, valid=mask, rate_hz=self.config.rate_hz(tokens.rate_hz))

    def times_s(self, tokens: AudioTokens) -> Tensor:
        """Return (N',) times: of each query's share of its window, or the clip's start for global queries."""
        times = tokens.times_s()
        return times if self.config.window_tokens else torch.full_like(times, tokens.start_s)
