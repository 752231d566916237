"""Answers made together: prompts are read in pieces, and answers join and leave, between any two tokens.

    prompts   a ▒▒▒▒▒▒░░░░   b ▒▒   c ▒      each read in slots of its own, several short ones together
                                ▼   ▼        one that is read is copied, once, to the lane that it fits
    lanes     256 columns  [ d │ e │ b │ c ]     1024 columns  [ f │ g ]     one token each per step of a lane

Short prompts are read before anything else; then lanes and the reading of longer prompts take turns, a step or a piece
at a time. So a short question waits for one step or piece, and is not padded to the width of an hour of audio. Of
longer prompts the one with the shortest rest is read, every fourth time the one that came first, which does not starve.
Source: Orca (OSDI 2022), §3.1, iteration-level scheduling; Sarathi-Serve (OSDI 2024), §4, chunked prefill. Lanes and
the order are our choice.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from ossicle.integration.memory import AudioMemory
from ossicle.integration.slots import Slots

CHUNK = 128
"""Prompt tokens of a piece, padding included, until it is known how long they take."""
CHUNKS = 16, 512
"""Shortest and longest piece."""
FAIR = 4
"""Every so often a piece is for the prompt that came first."""
LANE = 256
"""Columns of the narrowest lane; each further one is four times as wide."""

ROWS = 16
"""Answers that the narrowest lane always has room for on a CPU."""

Said = list[tuple[Any, Tensor]]
"""Answers, each with the (V,) logits of its next token."""


class Row(Protocol):
    """One answer under way.

    Attributes:
        embeddings: (L, D) of its prompt; None once that is read.
        positions: (L,) of its prompt.
        read: Tokens of the prompt that are read.
        token: Its last token, not yet run.
        position: That token's position.
        memory: Its clips; None once they lie in a slot.
    """

    embeddings: Tensor | None
    positions: Tensor
    read: int
    token: int
    position: int
    memory: AudioMemory | None


@dataclass(slots=True, kw_only=True, eq=False)
class Prompt:
    """A prompt that is not read to its end.

    Attributes:
        row: Whose it is.
        came: Which one it is, counted from the first.
        width: Columns that it will fill.
        slots: Where it is read, once that has begun.
    """

    row: Any
    came: int
    width: int
    slots: Slots | None = None

    @property
    def rest(self) -> int:
        """Tokens that are left to read."""
        return len(self.row.positions) - int(self.row.read)


class Lane:
    """Answers of similar width, which make their tokens together.

    Args:
        model: An `AudioLM`.
        columns: Widest answer.

    Attributes:
        rows: The answers, in the order of their slots.
        served: When it last had its turn.
    """

    def __init__(self, model: Any, columns: int) -> None:
        self.model, self.columns = model, columns
        roomy = columns == LANE and model.device.type == "cpu"  # which takes the memory only as it is filled
        self.slots = Slots(model, slots=ROWS, columns=LANE) if roomy else Slots(model)
        self.rows: list[Any] = []
        self.served = 0

    def join(self, row: Any, slots: Slots, place: int) -> None:
        """Take an answer that stands in other slots."""
        self.slots.adopt(slots, place)
        self.rows.append(row)

    def leave(self, place: int) -> None:
        """Take an answer out; the last one fills its place."""
        self.slots.move(len(self.rows) - 1, place)
        self.rows[place] = self.rows[-1]
        self.rows.pop()
        self.slots.pop()

    @torch.inference_mode()
    def step(self) -> Said:
        """Run every answer's token."""
        device = self.model.device
        ids = torch.tensor([[row.token] for row in self.rows], device=device)
        positions = torch.tensor([[row.position] for row in self.rows], device=device)
        logits = forward(self.model, self.slots, self.model.embed(ids, None), positions, 1)
        self.slots.wrote(range(len(self.rows)), [1] * len(self.rows))
        return list(zip(self.rows, logits[:, -1], strict=True))


class Batch:
    """Answers that are made together.

    Args:
        model: An `AudioLM`.
        piece_s: So long a piece of a prompt should take; None = pieces always have `CHUNK` tokens.

    Attributes:
        lanes: By their columns.
        prompts: Prompts of answers to come.
        chunk: Prompt tokens of a piece, padding included.
    """

    def __init__(self, model: Any, piece_s: float | None = None) -> None:
        self.model, self.piece_s = model, piece_s
        self.lanes: dict[int, Lane] = {}
        self.prompts: list[Prompt] = []
        self.chunk = CHUNK
        self.column_bytes = Slots(model).column_bytes
        self._turns = self._read_at = self._pieces = self._came = 0

    @property
    def rows(self) -> list[Any]:
        """Answers whose prompts are read."""
        return [row for lane in self.lanes.values() for row in lane.rows]

    @property
    def every(self) -> list[Any]:
        """All answers, whether their prompts are read or not."""
        return [*self.rows, *(prompt.row for prompt in self.prompts)]

    def __len__(self) -> int:
        return sum(len(lane.rows) for lane in self.lanes.values()) + len(self.prompts)

    def bytes_of(self, row: Row) -> int:
        """Return the bytes that the keys and values of a row's prompt take, at full precision."""
        return _width(row) * self.column_bytes

    def bytes_with(self, row: Row) -> int:
        """Return the bytes that keys and values would take with one more row, at full precision."""
        columns = sum(prompt.width for prompt in self.prompts)
        for lane in self.lanes.values():
            columns += len(lane.rows) * max(map(lane.slots.width, range(len(lane.rows))), default=0)
        return self.bytes_of(row) + columns * self.column_bytes

    def join(self, row: Row) -> None:
        """Take a prompt."""
        self.prompts.append(Prompt(row=row, came=self._came, width=_width(row)))
        self._came += 1

    def leave(self, gone: Sequence[Any]) -> None:
        """Take answers out, whether their prompts are read or not."""
        if not gone:
            return
        names = set(map(id, gone))
        self.prompts = [prompt for prompt in self.prompts if id(prompt.row) not in names]
        for lane in self.lanes.values():
            for place in reversed(range(len(lane.rows))):
                if id(lane.rows[place]) in names:
                    lane.leave(place)

    def read_short(self) -> Said:
        """Read the shortest prompts that fit a piece, together, to their ends; one half read waits for its piece."""
        chosen: list[Prompt] = []
        for prompt in sorted((one for one in self.prompts if one.slots is None), key=_shortest_first):
            if prompt.rest > self.chunk or (len(chosen) + 1) * prompt.rest > max(self.chunk, CHUNK):
                break
            chosen.append(prompt)
        return self._read(chosen) if chosen else []

    def advance(self) -> Said:
        """Let what has waited longest go on: a lane makes a token of every answer, or a piece of a prompt is read."""
        self._turns += 1
        lanes = [lane for lane in self.lanes.values() if lane.rows]
        lane = min(lanes, key=lambda one: one.served, default=None)
        if self.prompts and (lane is None or self._read_at < lane.served):
            self._read_at = self._turns
            return self.read_piece()
        if lane is None:
            return []
        lane.served = self._turns
        said = lane.step()
        for place in reversed(range(len(lane.rows))):
            if lane.slots.width(place) >= lane.columns:
                self._lane(lane.columns + 1).join(lane.rows[place], lane.slots, place)
                lane.leave(place)
        return said

    def read_piece(self) -> Said:
        """Read a piece of one prompt."""
        began = time.perf_counter()
        self._pieces += 1
        oldest = self._pieces % FAIR == 0
        said = self._read([min(self.prompts, key=_first_come if oldest else _shortest_first)])
        if self.piece_s is not None:
            self.chunk = paced(self.chunk, (time.perf_counter() - began) / self.piece_s)
        return said

    @torch.inference_mode()
    def _read(self, chosen: list[Prompt]) -> Said:
        """Read a piece of some prompts in one forward; those that end stand with the answers."""
        slots = self._laid(chosen)
        counts = [min(self.chunk, prompt.rest) for prompt in chosen]
        wide, device = chosen[0].row.embeddings.shape[-1], self.model.device
        embeddings = chosen[0].row.embeddings.new_zeros(len(chosen), max(counts), wide)
        positions = torch.zeros(len(chosen), max(counts), dtype=torch.long, device=device)
        for index, (prompt, count) in enumerate(zip(chosen, counts, strict=True)):
            row, place = prompt.row, slice(prompt.row.read, prompt.row.read + count)
            embeddings[index, :count] = row.embeddings[place]
            positions[index, :count] = row.positions[place]
            positions[index, count:] = positions[index, count - 1]
        ends = sorted({count - 1 for count in counts})
        logits = forward(self.model, slots, embeddings, positions, torch.tensor(ends, device=device))
        slots.wrote(range(len(chosen)), counts)
        said = []
        for index, (prompt, count) in enumerate(zip(chosen, counts, strict=True)):
            prompt.row.read += count
            if not prompt.rest:
                self._lane(slots.width(index) + 1).join(prompt.row, slots, index)
                prompt.row.embeddings = None
                said.append((prompt.row, logits[index, ends.index(count - 1)]))
        self.prompts = [prompt for prompt in self.prompts if prompt.rest]
        return said

    def _laid(self, chosen: list[Prompt]) -> Slots:
        """Return the slots that prompts are read in, with their clips; a prompt half read is read alone."""
        if chosen[0].slots is not None:
            return chosen[0].slots
        slots = Slots(self.model, slots=len(chosen), columns=max(prompt.width for prompt in chosen))
        for prompt in chosen:
            slots.add(prompt.row.memory)
            prompt.row.memory, prompt.slots = None, slots
        return slots

    def _lane(self, width: int) -> Lane:
        """Return the lane for answers of a width."""
        columns = LANE
        while columns < width:
            columns *= 4
        if columns not in self.lanes:
            self.lanes[columns] = Lane(self.model, columns)
        return self.lanes[columns]


def forward(model: Any, slots: Slots, embeddings: Tensor, positions: Tensor, keep: int | Tensor) -> Tensor:
    """Return the logits of some columns of a forward over all texts of some slots."""
    out = model(
        inputs_embeds=embeddings,
        # Four-dimensional, so that the decoder makes none: the plan has its own.
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=embeddings.device),
        position_ids=positions,
        past_key_values=slots,
        use_cache=True,
        logits_to_keep=keep,
        audio_memory=slots.plan(range(len(slots)), positions.shape[1], positions),
    )
    logits: Tensor = out.logits.float()
    return logits


def paced(tokens: int, times: float) -> int:
    """Return the length of the next piece, when one of so many tokens took so many times as long as it should.

    Example:
        >>> paced(128, 2.0), paced(128, 0.1)
        (96, 256)
    """
    wanted = tokens * min(2.0, max(0.5, 1 / times))
    return min(CHUNKS[1], max(CHUNKS[0], round(wanted if times < 1 else (tokens + wanted) / 2)))


def _shortest_first(prompt: Prompt) -> tuple[int, int]:
    return prompt.rest, prompt.came


def _first_come(prompt: Prompt) -> tuple[int, int]:
    return prompt.came, 0


def _width(row: Row) -> int:
    """Return the columns that a prompt will fill."""
    audio = 0 if row.memory is None else sum(segment.states.shape[1] for segment in row.memory.segments)
    return len(row.positions) + audio
