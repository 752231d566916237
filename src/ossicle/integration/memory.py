"""Audio keys and values inside an unmodified Hugging Face decoder; the one file that knows its internals.

    AudioLM.forward ──audio_memory=──► HF decoder ──kwargs──► layer ──kwargs──► self_attn ──► `audio_attention` below
                                                                                                │ projects K, V of audio

One `AudioMemory` travels per forward as a keyword through the untouched decoder. Keys and values are projected *inside*
`self_attn.forward`, so that LoRA, non-reentrant checkpointing, sharding and compilation see them. Keys are kept before
rotation and rotated for the positions at hand, so that a stored clip serves any prompt.

Which rows see what is decided on positions, never on columns: a text row at position p sees an audio token whose
`visible_from` ≤ p. Positions reach the attention function with every call, so a cached step needs no extra bookkeeping.

A decoder family is one line in `FAMILIES`; one that is not there fails loudly, because a family with another path to
its keys and values would be silently wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ossicle.errors import UnsupportedError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

ATTENTION = "ossicle_audio"
"""Name under which the attention function is registered with transformers."""

FAMILIES = ("gemma3_text", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Decoder families whose path from hidden states to keys and values is the one `project` follows, by parity test."""


def check_family(config: PreTrainedConfig) -> None:
    """Raise UnsupportedError for a decoder whose keys and values take another path."""
    if config.model_type not in FAMILIES:
        raise UnsupportedError(
            f"decoder family '{config.model_type}' cannot attend to audio: its path to keys and values has no parity "
            f"test here; use integration 'prepend', or one of {', '.join(FAMILIES)}"
        )


def head_dim(config: PreTrainedConfig) -> int:
    """Return the width of one attention head."""
    return int(getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads)


def layers_of(decoder: PreTrainedModel) -> nn.ModuleList:
    """Return the decoder layers."""
    layers: nn.ModuleList = decoder.get_decoder().layers
    return layers


@dataclass(slots=True, kw_only=True)
class AudioSegment:
    """One stream's audio as keys and values.

    Attributes:
        states: (B, N, D) connector output, the same for every layer.
        visible_from: (B, N) first text position that sees the token.
        positions: (B, N) position to which the token's key is rotated.
        layers: Decoder layers that attend to it.
        norm: Pass `states` through the layer's input norm.
        own: Projections of the integration's own, by layer; None = the decoder's.
        kv: Stored (key before rotation, value), each (B, heads, N, head width), by layer; filled while generating.
    """

    states: Tensor
    visible_from: Tensor
    positions: Tensor
    layers: frozenset[int]
    norm: bool = True
    own: nn.ModuleDict | None = None
    kv: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class AudioMemory:
    """Everything one forward needs to know of the audio, shared by all layers.

    Attributes:
        segments: Streams that are attended as keys and values.
        crosses: Streams that gated blocks read.
        slots: Rows for the text's audio slots, one (N_b, D) for each text row, or None.
        shift: (B, L) how far positions run ahead of a plain count; its last column holds for all later text.
        rotary: The decoder's rotary module.
        norms: Input norm of each decoder layer, None where the family has none.
        keep: Store keys and values for the next step; only while generating, never while weights change.
    """

    segments: list[AudioSegment] = field(default_factory=list)
    crosses: list[AudioSegment] = field(default_factory=list)
    slots: list[Tensor] | None = None
    shift: Tensor | None = None
    rotary: Callable[..., Any] | None = None
    norms: list[nn.Module | None] = field(default_factory=list)
    keep: bool = False
    _ready: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _angles: dict[tuple[int, str | None], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def keys_values(self, attention: Any) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return one layer's rotated keys and values (B, heads, N, width) and (B, N) `visible_from`, or None."""
        layer: int = attention.layer_idx
        segments = [segment for segment in self.segments if layer in segment.layers]
        if not segments:
            return None
        if layer not in self._ready:
            parts = [self._project(attention, layer, segment) for segment in segments]
            ready = torch.cat([k for k, _ in parts], 2), torch.cat([v for _, v in parts], 2)
            if not self.keep:
                return *ready, torch.cat([segment.visible_from for segment in segments], 1)
            self._ready[layer] = ready
        return *self._ready[layer], torch.cat([segment.visible_from for segment in segments], 1)

    def _project(self, attention: Any, layer: int, segment: AudioSegment) -> tuple[Tensor, Tensor]:
        if layer in segment.kv:
            key, value = segment.kv[layer]
        else:
            norm = self.norms[layer] if segment.norm else None
            states = norm(segment.states) if norm is not None else segment.states
            projections = attention if segment.own is None else segment.own[str(layer)]
            key, value = project(attention, projections, states)
            if self.keep:
                segment.kv[layer] = key, value
        if getattr(attention, "use_rope", True):
            key = rotate(key, *self.angles(segment, attention))
        return key, value

    def angles(self, segment: AudioSegment, attention: nn.Module) -> tuple[Tensor, Tensor]:
        """Return (B, 1, N, width) cosines and sines of a segment's positions for one kind of layer."""
        assert self.rotary is not None
        kinds = getattr(self.rotary, "layer_types", None)
        kind = getattr(attention, "layer_type", None) if kinds else None
        name = id(segment), kind
        if name not in self._angles:
            extra = {"layer_type": kind} if kinds else {}
            cos, sin = self.rotary(segment.states, segment.positions, **extra)
            self._angles[name] = cos[:, None], sin[:, None]
        return self._angles[name]


def project(attention: Any, projections: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys before rotation and values of audio states, exactly as the attention module makes its own.

    Args:
        attention: The decoder layer's attention module; its key norm applies.
        projections: What holds `k_proj` and `v_proj`, or the fused `qkv_proj`.
        states: (B, N, D) normalised audio.

    Returns:
        Two tensors (B, key-value heads, N, head width).
    """
    width: int = attention.head_dim
    fused = getattr(projections, "qkv_proj", None)
    if fused is not None:
        key, value = _fused_keys_values(fused, attention.config, width, states)
    else:
        key, value = projections.k_proj(states), projections.v_proj(states)
    norm = getattr(attention, "k_norm", None)
    # OLMo-2 normalises all heads together, the others each head by itself.
    if norm is not None and norm.weight.shape[-1] != width:
        key, norm = norm(key), None
    key, value = (t.view(*states.shape[:2], -1, width) for t in (key, value))
    return (norm(key) if norm is not None else key).transpose(1, 2), value.transpose(1, 2)


def _fused_keys_values(fused: Any, config: Any, width: int, states: Tensor) -> tuple[Tensor, Tensor]:
    """Compute only the K and V rows of a fused projection; a wrapped one (LoRA, 4-bit) is run whole and sliced."""
    queries, keys = config.num_attention_heads * width, config.num_key_value_heads * width
    if type(fused) is nn.Linear:
        bias = None if fused.bias is None else fused.bias[queries:]
        both = nn.functional.linear(states, fused.weight[queries:], bias)
    else:
        both = fused(states)[..., queries:]
    return both[..., :keys], both[..., keys:]


def rotate(key: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate keys (B, H, N, width); a rotary part narrower than the head leaves the rest alone."""
    turning, still = key[..., : cos.shape[-1]], key[..., cos.shape[-1] :]
    first, second = turning.chunk(2, -1)
    turned = turning * cos + torch.cat([-second, first], -1) * sin
    return torch.cat([turned, still], -1) if still.shape[-1] else turned


def audio_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    audio_memory: AudioMemory | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attend to `[audio ; text]` in one softmax; without audio exactly transformers' sdpa."""
    laid = getattr(audio_memory, "mask", None)
    if laid is not None:  # `slots.Plan`: keys and values hold the audio already
        seen = laid(module.layer_idx, kwargs.get("sliding_window"))
        return sdpa_attention_forward(module, query, key, value, seen, **kwargs)
    extra = audio_memory.keys_values(module) if audio_memory is not None else None
    if extra is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    audio_key, audio_value, visible_from = extra
    positions = kwargs.get("position_ids")
    if positions is None:
        raise UnsupportedError("this decoder does not hand position_ids to its attention; it cannot attend to audio")
    beams = query.shape[0] // audio_key.shape[0]
    if beams > 1:
        audio_key, audio_value, visible_from = (
            t.repeat_interleave(beams, 0) for t in (audio_key, audio_value, visible_from)
        )
    mask = full_mask(query, key, attention_mask, positions, visible_from)
    keys = torch.cat([audio_key.to(key.dtype), key], 2)
    values = torch.cat([audio_value.to(value.dtype), value], 2)
    return sdpa_attention_forward(module, query, keys, values, mask, **kwargs)


def full_mask(query: Tensor, key: Tensor, text: Tensor | None, positions: Tensor, visible_from: Tensor) -> Tensor:
    """Return (B, 1, Tq, N + Tk) boolean: which audio tokens and text rows each query row sees."""
    num_rows, num_queries, num_keys = query.shape[0], query.shape[2], key.shape[2]
    if text is None:
        # transformers leaves the mask out when it is plain causal (or one query that sees all).
        text = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
        text = text.tril() if num_queries > 1 else text
        text = text[None, None]
    audio = positions[:, None, :, None] >= visible_from[:, None, None, :]
    shape = (num_rows, 1, num_queries)
    return torch.cat([audio.expand(*shape, -1), text[..., :num_keys].expand(*shape, -1)], -1)


def audio_mask(*args: Any, **kwargs: Any) -> Tensor | None:
    """Make the text's mask as transformers does for sdpa."""
    mask: Tensor | None = sdpa_mask(*args, **kwargs)
    return mask


AttentionInterface.register(ATTENTION, audio_attention)
AttentionMaskInterface.register(ATTENTION, audio_mask)


def use_audio_attention(decoder: PreTrainedModel) -> None:
    """Switch a decoder to `audio_attention`; text-only results stay bit for bit those of sdpa.

    Raises:
        UnsupportedError: The decoder caps or sinks its attention scores, which sdpa cannot do.
    """
    config = decoder.config
    if getattr(config, "attn_logit_softcapping", None):
        raise UnsupportedError(f"'{config.model_type}' caps its attention scores; it cannot attend to audio here")
    decoder.set_attn_implementation(ATTENTION)


def input_norms(decoder: PreTrainedModel) -> list[nn.Module | None]:
    """Return the live input norm of each layer; a post-norm family has none, and audio is projected as it is."""
    return [getattr(layer, "input_layernorm", None) for layer in layers_of(decoder)]


def copy_projections(decoder: PreTrainedModel, own: nn.ModuleDict) -> None:
    """Start own projections as copies of the decoder's key and value projections."""
    for index, pair in own.items():
        attention: Any = layers_of(decoder)[int(index)].self_attn
        keys = attention.config.num_key_value_heads * attention.head_dim
        start = attention.config.num_attention_heads * attention.head_dim
        for name in ("k_proj", "v_proj"):
            target = getattr(pair, name)
            fused = getattr(attention, "qkv_proj", None)
            source = getattr(attention, name) if fused is None else fused
            rows = slice(None) if fused is None else slice(start, start + keys)
            with torch.no_grad():
                target.weight.copy_(source.weight[rows])
                target.bias.zero_() if source.bias is None else target.bias.copy_(source.bias[rows])
            start += keys
