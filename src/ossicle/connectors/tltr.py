"""TLTR, the time- and layer-wise Transformer: one block over time in each tapped layer, one over layers at each time.

    (C, N, L·D) ──► (C·L, N, D) ──time block, 1 head, shared by all layers──►
                ──► (C·N, L, D) ──layer block, 8 heads──► mean over layers ──►
                ──► (C, N, D)   ──LayerNorm, linear──► (C, N, width)

Blocks are Whisper's: pre-norm, GELU, no bias on keys; no positions, no causal mask. The LayerNorm before the projection
has no parameters. Norms run in float32 whatever the weights are, and attention's softmax does so inside its kernel.
`inner` first brings each layer's tokens to a smaller width (TL-Tr-512). At 32 layers of width 1280 the two blocks have
39,352,320 parameters, and the projection to 4096 has 5,246,976.

`time_embedding: false, output_norm: false` is LTU-AS exactly.
Source: LTU-AS (official code `ATModel`, `audio_proj`); Gong et al., Whisper-AT, arXiv 2307.03183.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

from pydantic import Field
from torch import Tensor, nn

from ossicle.connectors.base import Connector, ConnectorConfig
from ossicle.errors import CheckpointError, ConfigError
from ossicle.types import AudioTokens, EncoderFacts


class TltrConfig(ConnectorConfig):
    """Settings of `tltr`.

    Attributes:
        heads: Heads of the layer block; the time block has one.
        inner: Width to which each layer's tokens are brought first; None = theirs.
        init: File or folder of a model, of ossicle, LTU-AS or Whisper-AT, whose time and layer blocks it starts from.
    """

    kind: str = "tltr"
    heads: int = Field(default=8, ge=1)
    inner: int | None = Field(default=None, ge=1)
    init: str | None = None


class Float32LayerNorm(nn.LayerNorm):
    """LayerNorm computed in float32, returned in the input's dtype."""

    def forward(self, input: Tensor) -> Tensor:
        """Return the normalised tensor."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return nn.functional.layer_norm(input.float(), self.normalized_shape, weight, bias, self.eps).to(input.dtype)


class Attention(nn.Module):
    """Whisper's self-attention; the key projection has no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B, N, D) for (B, N, D) and a mask (B, N), True = visible."""
        parts = [linear(x).unflatten(-1, (self.heads, -1)) for linear in (self.query, self.key, self.value)]
        query, key, value = (part.transpose(1, 2) for part in parts)
        visible = None if mask is None else mask[:, None, None]
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, visible)
        out: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out


class Block(nn.Module):
    """x + attention(norm x), then x + feed-forward(norm x)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.attn_ln = Float32LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = Float32LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return (B, N, D)."""
        x = x + self.attn(self.attn_ln(x), mask)
        out: Tensor = x + self.mlp(self.mlp_ln(x))
        return out


class TltrConnector(Connector):
    """Time block, layer block, mean over layers, projection; the rate stays."""

    Config: ClassVar[type[ConnectorConfig]] = TltrConfig

    def __init__(self, config: TltrConfig, facts: EncoderFacts, width: int) -> None:
        super().__init__(config, facts, width)
        tapped = facts.dim // facts.num_layers
        inner = config.inner or tapped
        if inner % config.heads:
            raise ConfigError(f"tltr: width {inner} is no multiple of heads {config.heads}; set heads or inner")
        self.down_layer = (
            nn.Sequential(Float32LayerNorm(tapped), nn.Linear(tapped, inner)) if config.inner else nn.Identity()
        )
        self.time_tr = Block(inner, heads=1)
        self.layer_tr = Block(inner, heads=config.heads)
        self.projection = nn.Sequential(Float32LayerNorm(inner, elementwise_affine=False), nn.Linear(inner, width))

    def load_pretrained(self) -> None:
        """Read time and layer blocks from `init`.

        Raises:
            CheckpointError: No weights there, or blocks that are missing or of another size.
        """
        if self.config.init is None:
            return
        from ossicle.encoders.tensors import read_tensors

        published = read_tensors([Path(self.config.init)])
        names = {name: re.search(r"(?:^|\.)((?:time_tr|layer_tr|down_layer)\..+)$", name) for name in published}
        state = {found[1]: published[name].float() for name, found in names.items() if found}
        wanted = {name for name in self.state_dict() if name.split(".")[0] in ("time_tr", "layer_tr", "down_layer")}
        wrong = sorted(n for n in wanted if n not in state or state[n].shape != self.get_parameter(n).shape)
        if wrong:
            raise CheckpointError(
                f"connector.init '{self.config.init}': {len(wrong)} tensors do not fit, first {wrong[0]}"
            )
        self.load_state_dict({**self.state_dict(), **{name: state[name] for name in wanted}})

    def project(self, tokens: AudioTokens) -> AudioTokens:
        """Map (C, N, L·D) to (C, N, width)."""
        return tokens.with_values(self.projection(self.fuse(tokens)))

    def fuse(self, tokens: AudioTokens, *, mean_first: bool = False) -> Tensor:
        """Return (C, N, inner): the layers mixed, before the projection.

        Args:
            tokens: (C, N, L·D).
            mean_first: Take the mean over time before the layer block, as Whisper-AT does: N is 1 then.
        """
        layers = self.facts.num_layers
        values = self.down_layer(tokens.values.unflatten(-1, (layers, -1)))  # (C, N, L, D)
        mask = None if bool(tokens.valid.all()) else tokens.valid.repeat_interleave(layers, 0)
        clips = len(values)
        values = self.time_tr(values.transpose(1, 2).flatten(0, 1), mask)  # (C·L, N, D)
        values = values.unflatten(0, (clips, layers)).transpose(1, 2)  # (C, N, L, D)
        if mean_first:
            real = tokens.valid[..., None, None]
            values = (values * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
        values = values.flatten(0, 1)  # (C·N, L, D)
        mixed: Tensor = self.layer_tr(values).mean(1)
        return mixed.unflatten(0, (clips, -1))
