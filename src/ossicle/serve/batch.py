"""Answers decoded together: rows join and leave between any two tokens.

    row a  . . . a a a a │ a        K/V of a row end at the same column, so that one step is one forward;
    row b  . b b b b b b │ b        what is left of a shorter row is masked. Positions are each row's own.
    row c  c c c c c c c │ c

A row's K/V come from its prefill, alone; they are laid beside the others' when it joins, and copied only when rows come
or go. Audio is laid out the same way: padded tokens are visible from a position that no text reaches.
Source: Orca (OSDI 2022), §3.1, iteration-level scheduling; the layout is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from transformers import DynamicCache

from ossicle.integration.base import NEVER
from ossicle.integration.memory import AudioMemory, AudioSegment


class Row(Protocol):
    """One answer under way: its token that has not been run, that token's position, and what it was prefilled to."""

    token: int
    position: int
    cache: Any
    memory: AudioMemory | None


class Batch:
    """Rows that are decoded together.

    Args:
        model: An `AudioLM`.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.rows: list[Any] = []
        self._cache: Any = None
        self._lengths: list[int] = []
        self._memory: SharedMemory | None = None

    @torch.inference_mode()
    def join(self, row: Row) -> None:
        """Add a row after its prefill; the batch takes its cache over."""
        new = [(layer.keys, layer.values) for layer in row.cache.layers]
        length = new[0][0].shape[2]
        if self.rows:
            longest = max(length, self._cache.get_seq_length())
            held = [(layer.keys, layer.values) for layer in self._cache.layers]
            new = [
                tuple(torch.cat([_left(a, longest), _left(b, longest)]) for a, b in zip(one, other, strict=True))
                for one, other in zip(held, new, strict=True)
            ]
        row.cache = None
        self.rows.append(row)
        self._lengths.append(length)
        self._keep(new)

    @torch.inference_mode()
    def leave(self, gone: Sequence[Any]) -> None:
        """Take rows out."""
        stay = [index for index, row in enumerate(self.rows) if not any(row is one for one in gone)]
        if len(stay) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in stay]
        self._lengths = [self._lengths[index] for index in stay]
        if not stay:
            self._cache = self._memory = None
            return
        longest = max(self._lengths)
        which = torch.tensor(stay, device=self.model.device)
        kept = [
            tuple(part.index_select(0, which)[:, :, -longest:] for part in (layer.keys, layer.values))
            for layer in self._cache.layers
        ]
        self._keep(kept)

    def _keep(self, layers: Sequence[Sequence[Tensor]]) -> None:
        self._cache = DynamicCache()
        for index, (key, value) in enumerate(layers):
            self._cache.update(key, value, index)
        memories = [row.memory for row in self.rows]
        self._memory = SharedMemory(memories) if any(memory is not None for memory in memories) else None

    @torch.inference_mode()
    def step(self) -> Tensor:
        """Run every row's token; return (B, V) logits of the tokens after."""
        device = self.model.device
        self._lengths = [length + 1 for length in self._lengths]
        columns = torch.arange(self._cache.get_seq_length() + 1, device=device)
        first = len(columns) - torch.tensor(self._lengths, device=device)
        out = self.model(
            input_ids=torch.tensor([[row.token] for row in self.rows], device=device),
            attention_mask=(columns >= first[:, None]).long(),
            position_ids=torch.tensor([[row.position] for row in self.rows], device=device),
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
            audio_memory=self._memory,
        )
        logits: Tensor = out.logits[:, -1].float()
        return logits


class SharedMemory:
    """The audio of several rows as the decoder reads that of one batch (see `AudioMemory`).

    Args:
        rows: Each row's own memory, already projected by its prefill; None = a row without audio.
    """

    slots = None

    def __init__(self, rows: Sequence[AudioMemory | None]) -> None:
        self.rows = rows
        self.crosses = self._crosses()
        self._ready: dict[int, tuple[Tensor, Tensor, Tensor] | None] = {}

    def keys_values(self, attention: Any) -> tuple[Tensor, Tensor, Tensor] | None:
        """Return one layer's rotated keys and values (B, heads, N, width) and (B, N) `visible_from`, or None."""
        layer: int = attention.layer_idx
        if layer not in self._ready:
            self._ready[layer] = self._lay(attention)
        return self._ready[layer]

    def _lay(self, attention: Any) -> tuple[Tensor, Tensor, Tensor] | None:
        parts = [None if row is None else row.keys_values(attention) for row in self.rows]
        if all(part is None for part in parts):
            return None
        keys = _stacked([None if part is None else part[0].transpose(1, 2) for part in parts])
        values = _stacked([None if part is None else part[1].transpose(1, 2) for part in parts])
        seen = _stacked([None if part is None else part[2] for part in parts], NEVER)
        return keys.transpose(1, 2), values.transpose(1, 2), seen

    def _crosses(self) -> list[AudioSegment]:
        heard = [row.crosses for row in self.rows if row is not None]
        out = []
        for index in range(max(map(len, heard), default=0)):
            parts = [None if row is None else row.crosses[index] for row in self.rows]
            first = next(part for part in parts if part is not None)
            seen = _stacked([None if part is None else part.visible_from for part in parts], NEVER)
            states = _stacked([None if part is None else part.states for part in parts])
            out.append(
                AudioSegment(states=states, visible_from=seen, positions=seen, layers=first.layers, own=first.own)
            )
        return out


def _left(part: Tensor, length: int) -> Tensor:
    """Return (B, H, T, W) padded at the left of T."""
    return nn.functional.pad(part, (0, 0, length - part.shape[2], 0))


def _stacked(parts: Sequence[Tensor | None], filler: float = 0) -> Tensor:
    """Return rows (1, N, …) as (B, max N, …), filled up at the end; None is a row of nothing."""
    some = next(part for part in parts if part is not None)
    rows = [some.new_zeros(0, *some.shape[2:]) if part is None else part[0] for part in parts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler)
