"""Hashes of the weights that made something, so that what is kept is never met by other weights.

    features   encoder weights · settings · dtype                            by the stream that owns the encoder
    tokens     that + connector weights · settings                           by stream
    keys       that + input norms, K/V projections, key norms, own projections, adapters and their scales

A hash is made anew only when a tensor was replaced or written to (autograd's version counters say so), which is seen
at the next `look`: handles look before each request. Of an adapted layer only the adapters that are switched on count,
with their scales. Source: our choice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from ossicle.integration.memory import AudioSegment, input_norms, layers_of

PROJECTIONS = ("k_proj", "v_proj", "qkv_proj", "k_norm")
"""Modules of a decoder's attention that audio passes; a fused one counts whole."""


class Fingerprints:
    """Hashes of a model's parts.

    Args:
        model: An `AudioLM`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self._known: dict[tuple[str, str], tuple[object, str]] = {}
        self._looked: dict[int, object] = {}

    def refresh(self) -> None:
        """Forget all hashes; they are made anew when asked for."""
        self._known.clear()
        self.look()

    def look(self) -> None:
        """Look at all weights anew; until the next look they are taken to be the same."""
        self._looked = {}

    def features(self) -> dict[str, str]:
        """Return the hash of every encoder, by the stream that owns it."""
        owners = [name for name, stream in self.model.streams.items() if stream.encoder is not None]
        return {name: self._of("features", name) for name in owners}

    def tokens(self) -> dict[str, str]:
        """Return the hash of every stream up to its connector."""
        return {name: self._of("tokens", name) for name in self.model.streams}

    def keys(self, stream: str, segment: AudioSegment) -> str:
        """Return the hash of a stream up to its keys and values in the decoder."""
        return self._of("keys", stream, segment)

    def attentions(self, layers: Iterable[int]) -> Iterator[tuple[int, Any, nn.Module | None]]:
        """Yield layer index, attention module and input norm of decoder layers."""
        decoder = self.model.language_model
        norms, blocks = input_norms(decoder), layers_of(decoder)
        for layer in sorted(layers):
            yield layer, blocks[layer].self_attn, norms[layer]

    def _of(self, tier: str, name: str, segment: AudioSegment | None = None) -> str:
        parts, settings = self._parts(tier, name, segment)
        state = [settings, *(self._state(part) for part in parts)]
        known = self._known.get((tier, name))
        if known is None or known[0] != state:
            known = state, _digest(parts, settings)
            self._known[tier, name] = known
        return known[1]

    def _state(self, part: nn.Module) -> object:
        """Return what changes whenever a weight or an adapter of a part does; each part is gone through once a look."""
        looked = self._looked
        if id(part) not in looked:
            looked[id(part)] = _state(part)
        return looked[id(part)]

    def _parts(self, tier: str, name: str, segment: AudioSegment | None) -> tuple[list[nn.Module], list[Any]]:
        """Return the modules that a tier of a stream depends on, and their settings."""
        stream = self.model.streams[name]
        encoders = [self.model.streams[owner].encoder for owner in stream.plan.owners]
        parts: list[nn.Module] = list(encoders)
        heard = [[encoder.config.model_dump(mode="json"), encoder.detour()] for encoder in encoders]
        settings: list[Any] = [tier, name, heard, self.model.config.focus]
        if tier != "features":
            parts.append(stream.connector)
            settings.append(stream.plan.connector.model_dump(mode="json"))
        if segment is not None:
            settings.append([segment.norm, sorted(segment.layers), segment.own is not None])
            parts += [segment.own] if segment.own is not None else []
            for _, attention, norm in self.attentions(segment.layers):
                parts += [getattr(attention, part) for part in PROJECTIONS if hasattr(attention, part)]
                parts += [norm] if segment.norm and norm is not None else []
        return parts, settings


def _adapted(part: nn.Module) -> Iterator[tuple[str, Any]]:
    """Yield the layers of a part that adapters hang on."""
    for name, layer in part.named_modules():
        if hasattr(layer, "base_layer") and hasattr(layer, "active_adapters"):
            yield name, layer


def _tensors(part: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield a part's weights, without those of adapters that are switched off."""
    idle = set()
    for prefix, layer in _adapted(part):
        off = set(layer.scaling) - set(() if layer.disable_adapters else layer.active_adapters)
        idle |= {name for name, _ in layer.named_parameters(prefix=prefix) if off & set(name.split("."))}
    for name, tensor in (*part.named_parameters(), *part.named_buffers()):
        if name not in idle:
            yield name, tensor


def _adapters(part: nn.Module) -> list[Any]:
    """Return which adapters act on a part, and how strongly."""
    return [
        [name, bool(layer.merged), {adapter: layer.scaling.get(adapter) for adapter in layer.active_adapters}]
        for name, layer in _adapted(part)
        if not layer.disable_adapters
    ]


def _state(part: nn.Module) -> object:
    """Return what changes whenever a weight or an adapter of the part does."""
    stamps = [
        (name, tensor.data_ptr(), tensor.dtype, 0 if tensor.is_inference() else tensor._version)
        for name, tensor in _tensors(part)
    ]
    return stamps, _adapters(part)


def _digest(parts: list[nn.Module], settings: list[Any]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update(json.dumps([settings, [_adapters(part) for part in parts]], sort_keys=True).encode())
    for part in parts:
        for name, tensor in _tensors(part):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b"")
    return digest.hexdigest()
