"""Where rows of the text look, gathered while a forward runs: one q·kᵀ pass over `[audio ; text]` more.

    weights of a row = softmax(q [K_a ; K]ᵀ / √d + M)       mean over the watched rows, by layer and head

It changes nothing of what the forward gives. Source: our choice.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ossicle.integration.joined import full_mask
from ossicle.integration.memory import AudioMemory, use_audio_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(slots=True, kw_only=True)
class Watch:
    """What was seen.

    Attributes:
        rows: (B, L) True = a row to watch.
        seen: (B, heads, N + L) mean weights of the watched rows over `[audio ; text]`, by layer.
        read: (B, heads, N) the same for gated blocks, by their place among `AudioMemory.crosses` and layer.
    """

    rows: Tensor
    seen: dict[int, Tensor] = field(default_factory=dict)
    read: dict[tuple[int, int], Tensor] = field(default_factory=dict)

    def see(
        self,
        layer: int,
        text: tuple[Tensor, Tensor, Tensor | None],
        audio: tuple[Tensor, Tensor, Tensor] | None,
        options: Mapping[str, Any],
    ) -> None:
        """Look at one layer.

        Args:
            layer: Its index.
            text: Queries, keys, and the text's own mask.
            audio: Rotated keys and values and `visible_from` of the audio; None where the layer attends to none.
            options: What the decoder hands its attention: `scaling`, `position_ids`.
        """
        query, key, mask = text
        positions = options.get("position_ids")
        seen_from = key.new_zeros(len(key), 0) if audio is None else audio[2]
        if positions is None:
            positions = torch.zeros(query.shape[0], query.shape[2], device=query.device)
        keys = key if audio is None else torch.cat([audio[0].to(key.dtype), key], 2)
        visible = full_mask(query, key, mask, positions, seen_from)
        self.seen[layer] = self.weights(query, keys, visible, options.get("scaling") or query.shape[-1] ** -0.5)

    def weights(self, query: Tensor, keys: Tensor, mask: Tensor, scaling: float) -> Tensor:
        """Return (B, heads, K) the mean over watched rows of softmax(q·kᵀ).

        Args:
            query: (B, heads, L, width).
            keys: (B, key-value heads, K, width).
            mask: (B, 1, L, K) True = visible.
            scaling: Factor of the scores.
        """
        keys = keys.repeat_interleave(query.shape[1] // keys.shape[1], 1).float()
        means = []
        for row, watched in enumerate(self.rows):
            scores = query[row][:, watched].float() @ keys[row].transpose(-1, -2) * scaling
            means.append(scores.masked_fill(~mask[row][:, watched], -torch.inf).softmax(-1).mean(1))
        return torch.stack(means)


@contextlib.contextmanager
def watching(decoder: PreTrainedModel, memory: AudioMemory, rows: Tensor) -> Iterator[Watch]:
    """Watch (B, L) rows of the text in the forward inside; the decoder is left as it was.

    Raises:
        UnsupportedError: The decoder caps its attention scores, so that q·kᵀ alone does not give its weights.
    """
    before = decoder.config._attn_implementation
    use_audio_attention(decoder)
    memory.watch = watch = Watch(rows=rows)
    try:
        yield watch
    finally:
        memory.watch = None
        decoder.set_attn_implementation(before)
