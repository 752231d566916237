"""`cross`: gated cross-attention blocks between decoder layers, the Flamingo-style baseline.

    H ← H + tanh(g) · W_o softmax(Q Kᵀ / √d) V      Q = Norm(H) Wq (text rows),  K, V = A Wk, A Wv (audio)

A block stands before each chosen decoder layer and is run by a hook, so the decoder stays unmodified. Unlike `attend`,
audio has a softmax of its own, and every block adds weights. A row that sees no audio token is left as it is.
Source: Flamingo (arXiv 2204.14198), §2.2. Deviations, both our choice:
- no feed-forward part;
- the gate starts at 0.1 instead of 0, so that audio is heard from the first step (`gate: 0` restores it).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ossicle.errors import ConfigError
from ossicle.integration import memory
from ossicle.integration.base import NEVER, Integration, IntegrationConfig, Layers, Placement, layer_indices
from ossicle.types import AudioTokens

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class CrossConfig(IntegrationConfig):
    """Settings of `cross`: `layers` it stands before, the `gate`'s start, `heads` (None = the decoder's)."""

    kind: str = "cross"
    layers: Layers = "all"
    gate: float = 0.1
    heads: int | None = Field(None, ge=1)


class CrossBlock(nn.Module):
    """One gated cross-attention block."""

    def __init__(self, width: int, heads: int, gate: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.RMSNorm(width, eps=1e-6)
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.o_proj = nn.Linear(width, width, bias=False)
        self.gate = nn.Parameter(torch.tensor(gate))

    def forward(self, hidden: Tensor, audio: Tensor, visible: Tensor) -> Tensor:
        """Return what is added to the text.

        Args:
            hidden: (B, L, D) text.
            audio: (B, N, D) connector output.
            visible: (B, L, N) True = this row sees this token.
        """
        query, key, value = self.heads_of(hidden, audio)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value, visible[:, None])
        out = self.o_proj(mixed.transpose(1, 2).flatten(2)) * self.gate.tanh()
        return out.masked_fill(~visible.any(-1, keepdim=True), 0)

    def heads_of(self, hidden: Tensor, audio: Tensor) -> list[Tensor]:
        """Return queries, keys and values (B, heads, ·, width)."""
        kind = self.norm.weight.dtype  # a decoder held or cut in a lower dtype hands over its states in that
        asking, audio = self.norm(hidden.to(kind)), audio.to(kind)
        pairs = ((self.q_proj, asking), (self.k_proj, audio), (self.v_proj, audio))
        return [project(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for project, x in pairs]


class Cross(Integration):
    """Audio tokens are read by gated cross-attention blocks before decoder layers."""

    Config: ClassVar[type[IntegrationConfig]] = CrossConfig

    def __init__(self, config: CrossConfig, text_config: PreTrainedConfig) -> None:
        super().__init__(config, text_config)
        self.layers = layer_indices(config.layers, text_config.num_hidden_layers)
        heads = text_config.num_attention_heads if config.heads is None else config.heads
        if text_config.hidden_size % heads:
            raise ConfigError(f"cross: {heads} heads do not divide the decoder's width of {text_config.hidden_size}")
        self.blocks = nn.ModuleDict(
            {str(i): CrossBlock(text_config.hidden_size, heads, config.gate) for i in sorted(self.layers)}
        )

    def crossing(self, tokens: AudioTokens, placement: Placement) -> memory.AudioSegment:
        """Return the stream's tokens, clips laid end to end in their rows."""
        states, clip = placement.gather(tokens.values, tokens.counts())
        markers = placement.markers[clip.clamp(min=0)]
        return memory.AudioSegment(
            states=states,
            visible_from=torch.where(clip >= 0, markers, NEVER),
            positions=markers,
            layers=self.layers,
            own=self.blocks,
        )

    def install(self, decoder: PreTrainedModel) -> None:
        """Put a hook before every chosen decoder layer."""
        for index in self.layers:
            memory.layers_of(decoder)[index].register_forward_pre_hook(_Reader(self, index), with_kwargs=True)


class _Reader:
    """Hook of one decoder layer: adds what this stream's block reads from the audio."""

    def __init__(self, cross: Cross, layer: int) -> None:
        self.blocks, self.layer = cross.blocks, layer

    def __call__(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        audio = kwargs.get("audio_memory")
        if audio is None:
            return None
        hidden, rest = (args[0], args[1:]) if args else (kwargs["hidden_states"], ())
        watch = getattr(audio, "watch", None)
        for place, segment in enumerate(audio.crosses):
            if segment.own is not self.blocks:
                continue
            states, visible_from = segment.states, segment.visible_from
            beams = len(hidden) // len(states)
            if beams > 1:
                states, visible_from = states.repeat_interleave(beams, 0), visible_from.repeat_interleave(beams, 0)
            visible = kwargs["position_ids"][:, :, None] >= visible_from[:, None, :]
            visible = visible.expand(len(hidden), -1, -1)
            block: Any = self.blocks[str(self.layer)]
            if watch is not None:
                query, key, _ = block.heads_of(hidden, states)
                seen = watch.weights(query, key, visible[:, None], query.shape[-1] ** -0.5)
                watch.read[place, self.layer] = seen
            hidden = hidden + block(hidden, states, visible).to(hidden.dtype)
        if args:
            return (hidden, *rest), kwargs
        return args, {**kwargs, "hidden_states": hidden}
