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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from ossicle.errors import UnsupportedError
from ossicle.integration.joined import Joined, attend, unit_rms

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from ossicle.integration.watch import Watch

ATTENTION = "ossicle_audio"
"""Name under which the attention function is registered with transformers."""

FAMILIES = ("gemma3_text", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3", "smollm3")
"""Decoder families whose path from hidden states to keys and values is the one `project` follows, by parity test."""

SCALES = {"gemma3_text": 1.0, "llama": 0.0, "mistral": 0.0, "phi3": 0.0, "qwen2": 0.0, "qwen3": 0.0, "smollm3": 0.0}
"""Families whose input norm is x / rms(x) · (weight + this): the quotient is the same in every layer, made once."""


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
    """Return the decoder layers.

    Raises:
        UnsupportedError: They are kept under another name.
    """
    layers: nn.ModuleList | None = getattr(decoder.get_decoder(), "layers", None)
    if layers is None:
        raise UnsupportedError(
            f"decoder family '{decoder.config.model_type}': its layers are not where others have them"
        )
    return layers


def end_of_text(rotary: Any, positions: Tensor) -> Tensor | None:
    """Return the largest of the text's positions where a decoder's rotary frequencies follow from it, else None."""
    kinds = getattr(rotary, "rope_type", None)
    kinds = kinds.values() if isinstance(kinds, dict) else (kinds,)
    return positions.max() if {"dynamic", "longrope"} & set(kinds) else None


@dataclass(slots=True, kw_only=True)
class AudioSegment:
    """One stream's audio as keys and values.

    Attributes:
        states: (B, N, D) connector output, the same for every layer.
        visible_from: (B, N) first text position that sees the token.
        positions: (B, N) position to which the token's key is rotated.
        layers: Decoder layers that attend to it.
        norm: Pass `states` through the layer's input norm.
        unit: (B, N, D) `states` over their rms, where all layers' norms differ by a scale only; see `unit_states`.
        own: Projections of the integration's own, by layer; None = the decoder's.
        kv: Stored (key before rotation, value), each (B, heads, N, head width), by layer; filled while generating.
    """

    states: Tensor
    visible_from: Tensor
    positions: Tensor
    layers: frozenset[int]
    norm: bool = True
    unit: Tensor | None = None
    own: nn.ModuleDict | None = None
    kv: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def row(self, index: int) -> AudioSegment:
        """Return the audio of one text of the batch; what was stored is left behind."""
        here = slice(index, index + 1)
        return replace(
            self,
            states=self.states[here],
            visible_from=self.visible_from[here],
            positions=self.positions[here],
            unit=None if self.unit is None else self.unit[here],
            kv={},
        )


@dataclass(slots=True, kw_only=True)
class AudioMemory:
    """Everything one forward needs to know of the audio, shared by all layers.

    Attributes:
        segments: Streams that are attended as keys and values.
        crosses: Streams that gated blocks read.
        slots: Rows for the text's audio slots, one (N_b, D) for each text row, or None.
        shift: (B, L) how far positions run ahead of a plain count; its last column holds for all later text.
        rotary: The decoder's rotary module, None where it has none.
        text_end: The text's largest position, where that decides how the decoder rotates; see `end_of_text`.
        norms: Input norm of each decoder layer, None where the family has none.
        keep: Store keys and values for the next step; only while generating, never while weights change.
        joined: What layers share when they lay audio and text together.
        watch: Gathers where text rows look, or None.
    """

    segments: list[AudioSegment] = field(default_factory=list)
    crosses: list[AudioSegment] = field(default_factory=list)
    slots: list[Tensor] | None = None
    shift: Tensor | None = None
    rotary: Callable[..., Any] | None = None
    text_end: Tensor | None = None
    norms: list[nn.Module | None] = field(default_factory=list)
    keep: bool = False
    joined: Joined = field(default_factory=Joined)
    watch: Watch | None = None
    _ready: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)
    _seen: dict[tuple[int, ...], Tensor] = field(default_factory=dict)
    _angles: dict[tuple[int, str | None], tuple[Tensor, Tensor]] = field(default_factory=dict)

    def keys_values(self, attention: Any) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return one layer's rotated keys and values (B, heads, N, width) and (B, N) `visible_from`, or None."""
        layer: int = attention.layer_idx
        segments = [segment for segment in self.segments if layer in segment.layers]
        if not segments:
            return None
        seen = self._visible(segments)
        if layer not in self._ready:
            parts = [self._project(attention, layer, segment) for segment in segments]
            ready = parts[0]
            if len(parts) > 1:
                ready = torch.cat([key for key, _ in parts], 2), torch.cat([value for _, value in parts], 2)
            if not self.keep:
                return *ready, seen
            self._ready[layer] = ready
        return *self._ready[layer], seen

    def _visible(self, segments: list[AudioSegment]) -> Tensor:
        """Return (B, N) `visible_from` of several segments, one tensor for all layers that attend to the same ones."""
        if len(segments) == 1:
            return segments[0].visible_from
        name = tuple(map(id, segments))
        if name not in self._seen:
            self._seen[name] = torch.cat([segment.visible_from for segment in segments], 1)
        return self._seen[name]

    def _project(self, attention: Any, layer: int, segment: AudioSegment) -> tuple[Tensor, Tensor]:
        if layer in segment.kv:
            key, value = segment.kv[layer]
        else:
            key, value = segment_keys_values(attention, self.norms[layer], segment, layer)
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
            positions = segment.positions
            if self.text_end is not None:  # the audio's own positions would choose frequencies of a shorter text
                positions = torch.cat([positions, self.text_end.expand(len(positions), 1)], 1)
            cos, sin = (
                part[:, None, : segment.positions.shape[1]] for part in self.rotary(segment.states, positions, **extra)
            )
            self._angles[name] = cos, sin
        return self._angles[name]


def unit_states(config: PreTrainedConfig, states: Tensor) -> Tensor | None:
    """Return states over their rms, where the decoder's input norms are that times a scale; else None."""
    return unit_rms(states, config.rms_norm_eps) if config.model_type in SCALES else None


def segment_keys_values(
    attention: Any, norm: nn.Module | None, segment: AudioSegment, layer: int
) -> tuple[Tensor, Tensor]:
    """Return one layer's unrotated keys and values (B, heads, N, width) of a segment, as `project` does."""
    projections = attention if segment.own is None else segment.own[str(layer)]
    if not segment.norm or norm is None:
        return project(attention, projections, segment.states)
    if segment.unit is None:
        return project(attention, projections, norm(segment.states))
    weight: Any = norm.weight
    scale = weight + offset if (offset := SCALES[attention.config.model_type]) else weight
    return project(attention, projections, segment.unit, scale)


def project(attention: Any, projections: Any, states: Tensor, scale: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return keys before rotation and values of audio states, exactly as the attention module makes its own.

    Args:
        attention: The decoder layer's attention module; its key norm applies.
        projections: What holds `k_proj` and `v_proj`, or the fused `qkv_proj`.
        states: (B, N, D) normalised audio; with a `scale`, normalised but for it.
        scale: (D,) scale of the norm. Where there are more tokens than weight rows it is put into the weights, which
            is less work and keeps no scaled copy of the audio for backward.

    Returns:
        Two tensors (B, key-value heads, N, head width).
    """
    width: int = attention.head_dim
    shape = (*states.shape[:2], -1, width)
    states = _as_taken(projections, states)
    plain = _plain_weights(attention, projections, many=states.shape[0] * states.shape[1])
    if plain is not None:
        weight, bias = plain
        both = nn.functional.linear(states, weight if scale is None else weight * scale.to(weight.dtype), bias)
        key, value = both.chunk(2, -1)
    else:
        key, value = _called(attention, projections, states if scale is None else (states * scale).to(states.dtype))
    norm = getattr(attention, "k_norm", None)
    # OLMo-2 normalises all heads together, the others each head by itself.
    if norm is not None and norm.weight.shape[-1] != width:
        key, norm = norm(key), None
    key, value = key.unflatten(-1, shape[2:]), value.unflatten(-1, shape[2:])
    return (norm(key) if norm is not None else key).transpose(1, 2), value.transpose(1, 2)


def _as_taken(projections: Any, states: Tensor) -> Tensor:
    """Return states in the dtype of what projects them; autocast, and weights of four bits, see to it themselves."""
    weight = getattr(projections, "qkv_proj", None) or projections.k_proj
    weight = weight.weight
    if torch.is_autocast_enabled(states.device.type) or not weight.is_floating_point():
        return states
    return states.to(weight.dtype)


def _plain_weights(attention: Any, projections: Any, *, many: int) -> tuple[Tensor, Tensor | None] | None:
    """Return K and V weights laid together, when they are plain layers and smaller than what they are applied to."""
    fused = getattr(projections, "qkv_proj", None)
    parts = [projections.k_proj, projections.v_proj] if fused is None else [fused]
    if not all(type(part) is nn.Linear and not part._forward_hooks and not part._forward_pre_hooks for part in parts):
        return None
    if fused is not None:
        start = attention.config.num_attention_heads * attention.head_dim
        return fused.weight[start:], None if fused.bias is None else fused.bias[start:]
    if many < 2 * parts[0].out_features:
        return None
    bias = None if parts[0].bias is None else torch.cat([part.bias for part in parts])
    return torch.cat([part.weight for part in parts]), bias


def _called(attention: Any, projections: Any, states: Tensor) -> tuple[Tensor, Tensor]:
    """Return keys and values by calling the layers, whatever they are; a wrapped fused one is run whole and sliced."""
    fused = getattr(projections, "qkv_proj", None)
    if fused is None:
        return projections.k_proj(states), projections.v_proj(states)
    queries = attention.config.num_attention_heads * attention.head_dim
    key, value = fused(states)[..., queries:].chunk(2, -1)
    return key, value


def rotate(key: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate keys (B, H, N, width); a rotary part narrower than the head leaves the rest alone."""
    half = cos.shape[-1] // 2
    first, second, still = key[..., :half], key[..., half : 2 * half], key[..., 2 * half :]
    turned = [
        torch.addcmul(first * cos[..., :half], second, sin[..., :half], value=-1),
        torch.addcmul(second * cos[..., half:], first, sin[..., half:]),
    ]
    return torch.cat([*turned, still] if still.shape[-1] else turned, -1)


def audio_attention(
    module: Any,
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
    watch: Watch | None = getattr(audio_memory, "watch", None)
    if watch is not None:
        watch.see(module.layer_idx, (query, key, attention_mask), extra, kwargs)
    if extra is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    audio_key, audio_value, visible_from = extra
    positions = kwargs.get("position_ids")
    if positions is None:
        raise UnsupportedError("this decoder does not hand position_ids to its attention; it cannot attend to audio")
    beams = query.shape[0] // audio_key.shape[0]
    if beams > 1:
        audio_key, audio_value = (t.repeat_interleave(beams, 0) for t in (audio_key, audio_value))
    view = audio_memory.joined.view(query, key, attention_mask, positions, visible_from)  # type: ignore[union-attr]
    options = {"dropout_p": kwargs.get("dropout", 0.0), "scale": kwargs.get("scaling")}
    return attend(query, (audio_key, audio_value), (key, value), view, **options), None


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


def attention_backend(device: str) -> str:
    """Return in words how audio and text are attended to on a kind of device."""
    if device == "cuda":
        return "sdpa, causal without a mask where the rows of a batch are alike, else one mask for all layers"
    return "sdpa, one mask for all layers"


def input_norms(decoder: PreTrainedModel) -> list[nn.Module | None]:
    """Return the live input norm of each layer; a post-norm family has none, and audio is projected as it is."""
    layers = getattr(decoder.get_decoder(), "layers", ())  # a decoder that only ever reads rows may keep them elsewhere
    return [getattr(layer, "input_layernorm", None) for layer in layers]


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
            if not source.weight.is_floating_point():
                raise UnsupportedError(
                    "own_projections cannot start as copies of a 4-bit decoder's; leave one of them out"
                )
            rows = slice(None) if fused is None else slice(start, start + keys)
            with torch.no_grad():
                target.weight.copy_(source.weight[rows])
                target.bias.zero_() if source.bias is None else target.bias.copy_(source.bias[rows])
            start += keys
