"""K/V of many texts in fixed slots, each with its own length, so that texts join and leave one running batch.

                 audio        text, written so far
    slot 0   [ a a a a a | t t t t t t t · · · · ]      one buffer (slots, heads, columns, width) for each layer's keys
    slot 1   [ t t t · · · · · · · · · · · · · · ]      and values; a step writes each row's new keys at that row's own
    slot 2   [ a a | t t t t t t t t t t t · · · ]      column and reads all slots as one view: nothing is copied

A layer's audio stands in front of its text, already rotated, laid down once when the text joins. What a query sees is
decided by text columns (causal, sliding window) and, for audio, by positions, as in `joined.full_mask`. A chunk of a
prompt is written like a step with more columns, so that prompts are prefilled in pieces between steps. A prompt may be
read in slots of its own; when it is read, `adopt` copies it, once, to where the running texts are.

Source: iteration-level scheduling, Orca (OSDI 2022) §3.1, and chunked prefill, Sarathi-Serve (OSDI 2024) §4; the layout
with audio in front is our choice.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.errors import UnsupportedError
from ossicle.integration.base import NEVER
from ossicle.integration.memory import ATTENTION, AudioMemory, AudioSegment, head_dim, layers_of, use_audio_attention
from ossicle.integration.reach import reaches_attention

COLUMNS = 64
"""Columns are allocated in multiples of this."""

Kind = tuple[int, ...]
"""Which attended streams a layer hears; layers of one kind share their masks."""


class Slots:
    """Keys and values of the texts that run together; stands where transformers expects a cache.

    Args:
        model: An `AudioLM`.
        slots: So many have room from the first on, and it is kept when the last has left; for more, all is copied.
        columns: So wide they are, at least.

    Attributes:
        lengths: Text tokens written, by slot.

    Raises:
        UnsupportedError: The decoder caps its attention scores, or does not let its attention know of the slots.

    Example:
        >>> slots = Slots(model); slots.add(memory); slots.plan([0], 1, positions)  # doctest: +SKIP
    """

    def __init__(self, model: Any, *, slots: int = 1, columns: int = COLUMNS) -> None:
        config = model.language_model.config.get_text_config()
        if not reaches_attention(model.language_model):
            raise UnsupportedError(
                f"'{config.model_type}' does not hand keywords to the attention of its layers, which could not tell "
                "the texts of a running batch apart, nor so be served; `ossicle ask` can answer"
            )
        if config._attn_implementation != ATTENTION:  # a decoder that has none of `attend`: the mask still is ours
            use_audio_attention(model.language_model)
        self.model, self._expected = model, (slots, columns)
        self.layers: list[tuple[Tensor, Tensor] | None] = [None] * config.num_hidden_layers
        self.kinds: list[Kind] = [()] * config.num_hidden_layers
        self.lengths: list[int] = []
        heads = getattr(config, "num_key_value_heads", config.num_attention_heads)
        self.column_bytes = config.num_hidden_layers * 2 * heads * head_dim(config) * 4
        self._audio: list[dict[Kind, Tensor]] = []  # by slot, of each kind: (N,) visible_from
        self._memories: list[AudioMemory | None] = []
        self._visible: dict[Kind, Tensor] = {}
        self._plan: Plan | None = None
        self._crossed: tuple[Any, list[AudioSegment]] = None, []

    def __len__(self) -> int:
        return len(self.lengths)

    def width(self, slot: int) -> int:
        """Return the columns that a slot fills in its fullest layer."""
        return self.lengths[slot] + max((len(seen) for seen in self._audio[slot].values()), default=0)

    def add(self, memory: AudioMemory | None) -> int:
        """Take the next slot for a text, and lay its audio there; returns the slot's index."""
        return self.extend(memory, 1)[0]

    @torch.inference_mode()
    def extend(self, memory: AudioMemory | None, count: int) -> list[int]:
        """Take the next slots for the texts of a batch, and lay their audio there; returns the slots' indices.

        Args:
            memory: From `AudioLM.remember` with these texts, or None = none of them has audio.
            count: How many texts.
        """
        slots = list(range(len(self), len(self) + count))
        self.lengths += [0] * count
        self._audio += [{} for _ in slots]
        self._memories += [None] * count
        if memory is not None:
            self._lay(memory, slots)
        self._see_all(slots)
        return slots

    def _lay(self, memory: AudioMemory, slots: list[int]) -> None:
        """Write the audio of texts in front of where each one's text will stand."""
        for row, slot in enumerate(slots if memory.crosses else ()):
            self._memories[slot] = AudioMemory(crosses=[part.row(row) for part in memory.crosses])
        here = slice(slots[0], slots[-1] + 1)
        for layer, block in enumerate(layers_of(self.model.language_model)):
            self.kinds[layer] = tuple(i for i, part in enumerate(memory.segments) if layer in part.layers)
            if not self.kinds[layer]:
                continue
            found = memory.keys_values(block.self_attn)
            assert found is not None
            key, value, seen = found
            for row, slot in enumerate(slots):
                self._audio[slot][self.kinds[layer]] = seen[row]
            buffers = self._room(layer, slots[-1] + 1, key.shape[2], key)
            for buffer, part in zip(buffers, (key, value), strict=True):
                buffer[here, :, : key.shape[2]] = part.to(buffer.dtype)

    @torch.inference_mode()
    def move(self, source: int, target: int) -> None:
        """Copy a slot over another, which is lost."""
        if source == target:
            return
        for layer, held in enumerate(self.layers):
            width = self._filled(layer, source)
            for buffer in (held or ()) if width else ():
                buffer[target, :, :width] = buffer[source, :, :width]
        for seen in self._visible.values():
            seen[target] = seen[source]
        self.lengths[target] = self.lengths[source]
        self._audio[target] = self._audio[source]
        self._memories[target] = self._memories[source]

    @torch.inference_mode()
    def adopt(self, other: Slots, source: int) -> int:
        """Take the next slot for a text that stands in other slots; returns the slot's index."""
        slot = len(self)
        self.lengths.append(other.lengths[source])
        self._audio.append(other._audio[source])
        self._memories.append(other._memories[source])
        for layer, (kind, held) in enumerate(zip(other.kinds, other.layers, strict=True)):
            self.kinds[layer] = kind or self.kinds[layer]
            width = other._filled(layer, source)
            if held is None or not width:
                continue
            for buffer, part in zip(self._room(layer, slot + 1, width, held[0]), held, strict=True):
                buffer[slot, :, :width] = part[source, :, :width]
        self._see_all([slot])
        return slot

    @torch.inference_mode()
    def pop(self) -> None:
        """Give the last slot up; with the last text go the buffers, unless they are no larger than expected."""
        for rows in (self.lengths, self._audio, self._memories):
            rows.pop()
        for seen in self._visible.values():
            if len(self) < len(seen):
                seen[len(self)] = NEVER
        if not self.lengths:
            self.layers = [held if self._is_expected(held) else None for held in self.layers]
            self._visible, self._crossed = {}, (None, [])

    @torch.inference_mode()
    def plan(self, rows: Sequence[int], count: int, positions: Tensor) -> Plan:
        """Say what the next forward writes: `count` columns of every row; returns the `audio_memory` to hand it.

        Args:
            rows: Slots in the forward's order.
            count: Text columns of each row.
            positions: (B, count) of the text.
        """
        device = positions.device
        lengths = torch.tensor([self.lengths[row] for row in rows], device=device)
        plan = Plan(
            rows=torch.tensor(rows, device=device),
            span=slice(rows[0], rows[0] + len(rows))
            if list(rows) == list(range(rows[0], rows[0] + len(rows)))
            else None,
            lengths=lengths,
            count=count,
            positions=positions,
            crosses=self._crosses(rows),
        )
        for kind in set(self.kinds):
            ahead = [len(self._audio[row].get(kind, ())) for row in rows]
            plan.ahead[kind] = torch.tensor(ahead, device=device)
            starts = {a + self.lengths[row] for a, row in zip(ahead, rows, strict=True)}
            plan.longest[kind] = count + max(starts)
            if len(starts) == 1:
                plan.level[kind] = starts.pop()
            if kind:
                plan.visible[kind] = self._seen(kind, plan.longest[kind], plan.rows)
        plan.kinds = self.kinds
        self._plan = plan
        return plan

    def wrote(self, rows: Sequence[int], counts: Sequence[int]) -> None:
        """Count what a forward wrote; columns beyond a row's own count are written over by its next one."""
        for row, count in zip(rows, counts, strict=True):
            self.lengths[row] += count

    def update(self, key: Tensor, value: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write (B, H, T, W) keys and values at each row's columns; return all that its layer holds for these rows."""
        plan = self._plan
        assert plan is not None
        kind = self.kinds[layer_idx]
        longest = plan.longest[kind]
        buffers = self._room(layer_idx, len(self), longest, key)
        read = []
        for buffer, new in zip(buffers, (key, value), strict=True):
            if plan.span is not None and kind in plan.level:
                buffer[plan.span, :, plan.level[kind] : longest] = new
            elif plan.count == 1:
                buffer[plan.rows, :, plan.starts(kind)] = new[:, :, 0]
            else:
                columns = plan.starts(kind)[:, None] + torch.arange(plan.count, device=new.device)
                buffer[plan.rows[:, None], :, columns] = new.transpose(1, 2)
            held = buffer[:, :, :longest]
            read.append(held[plan.rows] if plan.span is None else held[plan.span])
        return read[0], read[1]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Return the longest text, as caches do."""
        return max(self.lengths, default=0)

    def _room(self, layer: int, slots: int, columns: int, like: Tensor) -> tuple[Tensor, Tensor]:
        """Return a layer's buffers, grown where they are too small."""
        held = self.layers[layer]
        if held is not None and held[0].shape[0] >= slots and held[0].shape[2] >= columns:
            return held
        before = (0, 0) if held is None else (held[0].shape[0], held[0].shape[2])
        rows = before[0] if before[0] >= slots else max(slots, 2 * before[0], self._expected[0])
        wide = before[1] if before[1] >= columns else max(columns, 5 * before[1] // 4, self._expected[1])
        wide = -(-wide // COLUMNS) * COLUMNS
        shape = (rows, like.shape[1], wide, like.shape[3])
        grown = _zeros(shape, like), _zeros(shape, like)
        for buffer, part in zip(grown, held or (), strict=held is not None):
            for slot in range(min(before[0], len(self))):
                filled = min(self._filled(layer, slot), before[1])
                buffer[slot, :, :filled] = part[slot, :, :filled]
        self.layers[layer] = grown
        return grown

    def _is_expected(self, held: tuple[Tensor, Tensor] | None) -> bool:
        """Return whether a layer's buffers are those that were expected, of more than one slot."""
        slots, columns = self._expected
        return slots > 1 and held is not None and held[0].shape[0] <= slots and held[0].shape[2] <= columns

    def _filled(self, layer: int, slot: int) -> int:
        """Return the columns that a slot fills in a layer."""
        return self.lengths[slot] + len(self._audio[slot].get(self.kinds[layer], ()))

    def _see_all(self, slots: list[int]) -> None:
        """Write from where the audio of slots is seen, for every kind of layer."""
        for kind in {*self._visible, *filter(None, self.kinds)}:
            for slot in reversed(slots):
                self._see(kind, slot)

    def _see(self, kind: Kind, slot: int) -> None:
        """Write from where a slot's audio is seen into its kind's table."""
        seen = self._audio[slot].get(kind)
        width = 0 if seen is None else len(seen)
        held = self._visible.get(kind)
        rows, wide = (0, 0) if held is None else held.shape
        if held is None or rows <= slot or wide < width:
            table = torch.full((max(slot + 1, rows), max(width, wide)), NEVER, device=self.model.device)
            if held is not None:
                table[:rows, :wide] = held
            self._visible[kind] = held = table
        held[slot] = NEVER
        if seen is not None:
            held[slot, :width] = seen

    def _seen(self, kind: Kind, longest: int, rows: Tensor) -> Tensor:
        """Return (B, longest) positions from which audio columns are seen; text columns never are by this rule."""
        part = self._visible[kind][rows, :longest]
        return nn.functional.pad(part, (0, longest - part.shape[1]), value=NEVER)

    def _crosses(self, rows: Sequence[int]) -> list[AudioSegment]:
        """Return the audio that gated blocks read, rows side by side; made anew only when rows change."""
        memories = [self._memories[row] for row in rows]
        if not any(memories):
            return []
        if self._crossed[0] is None or [id(m) for m in self._crossed[0]] != [id(m) for m in memories]:
            self._crossed = memories, _side_by_side([None if m is None else m.crosses for m in memories])
        return self._crossed[1]


@dataclass(slots=True, kw_only=True)
class Plan:
    """One forward over slots, as the attention function and gated blocks read it.

    Attributes:
        rows: (B,) slots.
        span: The same as a slice, where they follow one another.
        lengths: (B,) text columns before this forward.
        count: Text columns of this forward.
        positions: (B, count) of the text.
        crosses: Audio of gated blocks.
        kinds: By layer, which attended streams it hears.
        ahead: By kind, (B,) audio columns in front of the text.
        longest: By kind, columns that are read.
        level: By kind, the first column that is written, where it is the same for all.
        visible: By kind, (B, longest) first position that sees an audio column.
    """

    rows: Tensor
    span: slice | None
    lengths: Tensor
    count: int
    positions: Tensor
    crosses: list[AudioSegment]
    kinds: list[Kind] = field(default_factory=list)
    ahead: dict[Kind, Tensor] = field(default_factory=dict)
    longest: dict[Kind, int] = field(default_factory=dict)
    level: dict[Kind, int] = field(default_factory=dict)
    visible: dict[Kind, Tensor] = field(default_factory=dict)
    _masks: dict[tuple[Kind, int | None], Tensor] = field(default_factory=dict)

    def starts(self, kind: Kind) -> Tensor:
        """Return (B,) the first column that is written."""
        return self.ahead[kind] + self.lengths

    def mask(self, layer: int, window: int | None) -> Tensor:
        """Return (B, 1, count, columns) boolean: what each query of a layer sees."""
        kind = self.kinds[layer]
        if (kind, window) not in self._masks:
            self._masks[kind, window] = self._mask(kind, window)
        return self._masks[kind, window]

    def _mask(self, kind: Kind, window: int | None) -> Tensor:
        device = self.rows.device
        text = torch.arange(self.longest[kind], device=device) - self.ahead[kind][:, None]
        query = (self.lengths[:, None] + torch.arange(self.count, device=device))[:, :, None]
        text = text[:, None, :]
        seen = (text >= 0) & (text <= query)
        if window is not None:
            seen &= text > query - window
        if kind:
            seen |= self.positions[:, :, None] >= self.visible[kind][:, None, :]
        return seen[:, None]


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Return zeros; on a CPU in memory that the system fills in when it is touched, so that spare room costs little."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    size = math.prod(shape) * like.element_size()
    return torch.from_numpy(np.zeros(size, np.uint8)).view(like.dtype).view(shape)


def _side_by_side(rows: Sequence[list[AudioSegment] | None]) -> list[AudioSegment]:
    """Return the segments of several texts as those of one batch; None is a text without audio."""
    out = []
    for index in range(max(len(row or ()) for row in rows)):
        parts = [None if not row else row[index] for row in rows]
        first = next(part for part in parts if part is not None)
        seen = _stacked([None if part is None else part.visible_from for part in parts], NEVER)
        states = _stacked([None if part is None else part.states for part in parts])
        out.append(AudioSegment(states=states, visible_from=seen, positions=seen, layers=first.layers, own=first.own))
    return out


def _stacked(parts: Sequence[Tensor | None], filler: float = 0) -> Tensor:
    """Return rows (1, N, …) as (B, max N, …), filled up at the end; None is a row of nothing."""
    some = next(part for part in parts if part is not None)
    rows = [some.new_zeros(0, *some.shape[2:]) if part is None else part[0] for part in parts]
    return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=filler)
