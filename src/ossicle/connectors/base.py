"""What every connector is: encoder tokens to tokens at the language model's width.

    project (the family's own) ──► RMS norm to the text's scale ──► + time embedding

    out = project(x) / rms(project(x)) · s  +  g · sinusoid(t)

`s` starts at the RMS of the decoder's text embeddings, so that audio keys and values have the statistics that the
decoder's projections know; `g` starts at 0.7·s. `t` is the absolute time in the clip: without it a decoder that
attends to position-free audio cannot tell first from last. Source: our choice (both switchable).
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ossicle import registry
from ossicle.config import Section
from ossicle.types import AudioTokens, EncoderFacts

SHORTEST_PERIOD_S = 0.2
LONGEST_PERIOD_S = 7200.0


class ConnectorConfig(Section):
    """Settings that every connector has.

    Attributes:
        kind: Name in the table of `connectors`.
        time_embedding: Add the sinusoid of absolute clip time; off for paper recipes with one window.
        output_norm: Normalise to the scale of the decoder's text embeddings; off for paper recipes.
    """

    kind: str
    time_embedding: bool = True
    output_norm: bool = True

    def num_tokens(self, num_tokens: int) -> int:
        """Return how many tokens come out for `num_tokens` (at least 1) in."""
        return num_tokens

    def rate_hz(self, rate_hz: float) -> float:
        """Return the token rate that comes out; a fixed number of tokens per clip keeps the rate that went in."""
        return rate_hz

    @property
    def group_tokens(self) -> int | None:
        """Encoder tokens, on a fixed grid, that an output is made of; None = outputs look across groups."""
        return None

    @property
    def windowed(self) -> bool:
        """Each group of tokens is mapped by itself, so that live audio can be appended."""
        return self.group_tokens is not None

    @property
    def timed(self) -> bool:
        """Each output belongs to a stretch of the clip; False = to the clip as a whole."""
        return True


class Connector(nn.Module):
    """Encoder tokens to tokens at width D of the decoder. Subclasses set `Config` and implement `project`."""

    Config: ClassVar[type[ConnectorConfig]] = ConnectorConfig

    def __init__(self, config: ConnectorConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__()
        self.config: Any = config
        self.facts = facts
        self.width = width
        self.norm_scale = nn.Parameter(torch.ones(width)) if config.output_norm else None
        self.time_scale = nn.Parameter(torch.tensor(0.7)) if config.time_embedding else None

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map (C, N, D_encoder) to (C, N', D): the family's own part."""
        raise NotImplementedError

    def times_s(self, tokens: AudioTokens) -> Tensor:
        """Return (N',) or (C, N') the time of each output token in seconds."""
        return tokens.times_s()

    def load_pretrained(self) -> None:
        """Read weights that were learned elsewhere; nothing to do without any."""

    def set_output_scale(self, rms: float) -> None:
        """Start at the scale of the decoder's text embeddings (their root mean square)."""
        with torch.no_grad():
            if self.norm_scale is not None:
                self.norm_scale.fill_(rms)
            if self.time_scale is not None:
                self.time_scale.fill_(0.7 * rms)

    def forward(self, tokens: AudioTokens) -> AudioTokens:
        """Return (C, N', D) tokens at the decoder's width, zero where not real."""
        out = self.project(tokens)
        values = out.values
        if self.norm_scale is not None:
            values = nn.functional.rms_norm(values, (self.width,), eps=1e-6) * self.norm_scale
        if self.time_scale is not None:
            values = values + self.time_scale * sinusoid(self.times_s(out), self.width).to(values.dtype)
        return out.with_values(values.masked_fill(~out.valid[..., None], 0))


def sinusoid(times_s: Tensor, width: int) -> Tensor:
    """Return (..., width): sines then cosines of time, periods from 0.2 s to 2 h in geometric steps."""
    ratio = math.log(LONGEST_PERIOD_S / SHORTEST_PERIOD_S) / max(1, width // 2 - 1)
    steps = torch.arange(width // 2, device=times_s.device, dtype=torch.float32)
    angles = times_s[..., None].float() * (2 * math.pi / SHORTEST_PERIOD_S) * torch.exp(-ratio * steps)
    return nn.functional.pad(torch.cat([angles.sin(), angles.cos()], -1), (0, width % 2))


def build_connector(spec: dict[str, Any], facts: EncoderFacts, width: int) -> Connector:
    """Return a new connector from `{kind: …}` for an encoder's facts and a decoder's width."""
    config = registry.parse("connectors", spec)
    connector: Connector = registry.lookup("connectors", config.kind)(config, facts, width)
    return connector
