"""Answers made together: prompts are read in pieces, and answers join and leave, between any two tokens.

    slots   [ a │ b │ c │ d │ e ]
              rows: one token     prompts: pieces of at most `CHUNK` tokens together, the shortest rest first; every
              each per step       fourth time one more for the prompt that came first, so that it is not starved

Source: Orca (OSDI 2022), §3.1, iteration-level scheduling; Sarathi-Serve (OSDI 2024), §4, chunked prefill. The order is
our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ossicle.integration.memory import AudioMemory
from ossicle.integration.slots import Slots

CHUNK = 128
"""Prompt tokens that are run between two steps, padding included."""
FAIR = 4
"""Every so often the prompt that came first has a piece of its own, after the others'."""


class Row(Protocol):
    """One answer under way.

    Attributes:
        embeddings: (L, D) of its prompt; None once that is read.
        positions: (L,) of its prompt.
        read: Tokens of the prompt that are read.
        token: Its last token, not yet run.
        position: That token's position.
        memory: Its clips.
    """

    embeddings: Tensor | None
    positions: Tensor
    read: int
    token: int
    position: int
    memory: AudioMemory | None


class Batch:
    """Answers that are made together.

    Args:
        model: An `AudioLM`.

    Attributes:
        rows: Answers whose prompts are read, in the order of their slots.
        prompts: Answers whose prompts are not, in the slots after.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.slots = Slots(model)
        self.rows: list[Any] = []
        self.prompts: list[Any] = []
        self._pieces = 0
        self._came = 0
        self._any = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=model.device)

    def __len__(self) -> int:
        return len(self.rows) + len(self.prompts)

    def bytes_with(self, row: Row) -> int:
        """Return the bytes that keys and values would take with one more row, at full precision."""
        audio = 0
        if row.memory is not None:
            audio = sum(segment.states.shape[1] for segment in row.memory.segments)
        wide = max([row.positions.shape[0] + audio, *(self.slots.width(slot) for slot in range(len(self)))])
        return (len(self) + 1) * wide * self.slots.column_bytes

    def join(self, row: Row) -> None:
        """Take a prompt; its clips move into its slot."""
        self.slots.add(row.memory)
        self.prompts.append(row)
        row.arrived, self._came = self._came, self._came + 1  # type: ignore[attr-defined]

    def leave(self, gone: Sequence[Any]) -> None:
        """Take answers out, whether their prompts are read or not; the last ones fill their slots."""
        for row in gone:
            place = _index(self.rows, row)
            if place is None:
                place = _index(self.prompts, row)
                assert place is not None
                self.slots.move(len(self) - 1, len(self.rows) + place)
                self.prompts[place] = self.prompts[-1]
                self.prompts.pop()
            else:
                hole = len(self.rows) - 1
                self.slots.move(hole, place)
                self.rows[place] = self.rows[-1]
                self.rows.pop()
                self.slots.move(hole + len(self.prompts), hole)
                self.prompts[:] = self.prompts[-1:] + self.prompts[:-1]
            self.slots.pop()

    @torch.inference_mode()
    def prefill(self) -> list[tuple[Any, Tensor]]:
        """Read a piece of the prompts; return those that are read to their end, each with its (V,) logits."""
        if not self.prompts:
            return []
        self._pieces += 1
        oldest = min(self.prompts, key=lambda row: row.arrived)
        chosen = self._chosen()
        over = self._read(chosen)
        if self._pieces % FAIR == 0 and _index(chosen, oldest) is None:
            over += self._read([oldest])
        return over

    def _read(self, chosen: list[Any]) -> list[tuple[Any, Tensor]]:
        """Read a piece of some prompts in one forward; those that end stand with the answers."""
        counts = [min(CHUNK, len(row.positions) - row.read) for row in chosen]
        most = max(counts)
        device, wide = self.model.device, chosen[0].embeddings.shape[-1]
        embeddings = chosen[0].embeddings.new_zeros(len(chosen), most, wide)
        positions = torch.zeros(len(chosen), most, dtype=torch.long, device=device)
        for index, (row, count) in enumerate(zip(chosen, counts, strict=True)):
            embeddings[index, :count] = row.embeddings[row.read : row.read + count]
            positions[index, :count] = row.positions[row.read : row.read + count]
            positions[index, count:] = positions[index, count - 1]
        slots = [len(self.rows) + (_index(self.prompts, row) or 0) for row in chosen]
        ends = sorted({count - 1 for count in counts})
        logits = self._forward(slots, embeddings, positions, torch.tensor(ends, device=device))
        self.slots.wrote(slots, counts)
        over = []
        for index, (row, count) in enumerate(zip(chosen, counts, strict=True)):
            row.read += count
            if row.read == len(row.positions):
                row.embeddings = None
                over.append((row, logits[index, ends.index(count - 1)]))
        for row, _ in over:
            self._promote(row)
        return over

    def _chosen(self) -> list[Any]:
        """Return the prompts that are read next: as many as fit a piece, padded to the longest of them."""
        order = sorted(self.prompts, key=lambda row: (len(row.positions) - row.read, row.arrived))
        chosen: list[Any] = []
        for row in order:
            longest = min(CHUNK, len(row.positions) - row.read)
            if chosen and (len(chosen) + 1) * longest > CHUNK:
                break
            chosen.append(row)
        return chosen

    def _promote(self, row: Any) -> None:
        """Let a prompt that is read stand with the answers."""
        place, first = _index(self.prompts, row) or 0, len(self.rows)
        self.slots.swap(first + place, first)
        self.prompts[place] = self.prompts[0]
        self.prompts.pop(0)
        self.rows.append(row)

    @torch.inference_mode()
    def step(self) -> Tensor:
        """Run every answer's token; return (B, V) logits of the tokens after."""
        device, slots = self.model.device, list(range(len(self.rows)))
        ids = torch.tensor([[row.token] for row in self.rows], device=device)
        positions = torch.tensor([[row.position] for row in self.rows], device=device)
        logits = self._forward(slots, self.model.embed(ids, None), positions, 1)
        self.slots.wrote(slots, [1] * len(slots))
        return logits[:, -1]

    def _forward(self, slots: list[int], embeddings: Tensor, positions: Tensor, keep: int | Tensor) -> Tensor:
        out = self.model(
            inputs_embeds=embeddings,
            attention_mask=self._any,  # four-dimensional, so that the decoder makes none: the plan has its own
            position_ids=positions,
            past_key_values=self.slots,
            use_cache=True,
            logits_to_keep=keep,
            audio_memory=self.slots.plan(slots, positions.shape[1], positions),
        )
        logits: Tensor = out.logits.float()
        return logits


def _index(rows: Sequence[Any], row: Any) -> int | None:
    """Return where a very row stands."""
    return next((index for index, one in enumerate(rows) if one is row), None)
