"""Many questions through one running batch: whatever is finished leaves at once, and the next question takes its place.

    clips ──shortest first──► groups of like length, encoded together, each clip once
                                   │ their questions wait, the shortest prompt in front
                                   ▼
              prompts read together ──► [ slots ] ──a token of every row, again and again──► answers

A batch that is made to its end computes until its longest answer is over; here a row leaves when its answer ends, and
another begins. Questions with and without audio and of any length stand side by side. Answers are those of
`Engine.answer`, greedy.

Source: iteration-level scheduling, Orca (OSDI 2022) §3.1; the slots are `integration.slots`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ossicle.audio.chunk import pad_rows
from ossicle.errors import UnsupportedError
from ossicle.inference.engine import BATCH_SECONDS, Answer, Engine
from ossicle.integration.base import Placement, attends
from ossicle.integration.memory import AudioMemory, layers_of, segment_keys_values, unit_states
from ossicle.integration.slots import Slots
from ossicle.types import AudioTokens, Stretches, Waveform

ENCODED_TOGETHER = 16
"""Clips at most."""
MOST_PADDING = 0.125
"""Share of what is encoded together that may be padding."""
PLAIN = {"eos_token_id", "pad_token_id", "bos_token_id", "do_sample", "temperature", "top_p", "top_k", "max_length"}
PLAIN |= {"max_new_tokens", "use_cache", "transformers_version", "_from_model_config", "return_dict_in_generate"}
PLAIN |= {"output_attentions", "output_hidden_states", "output_scores", "output_logits", "cache_implementation"}
"""Settings of a model's `generation_config` that leave greedy answers alone."""


@dataclass(slots=True, kw_only=True)
class Row:
    """One question under way.

    Attributes:
        index: Its place among the items.
        ids: Its prompt.
        clip: Its clip, None = asked without audio.
        most: Longest answer.
        transcript: What is said in its clip, where that was read.
        said: Tokens so far.
        position: Of the last token.
        audio_tokens: How many it hears.
        stretches: The seconds of its clip that it hears, None = all.
    """

    index: int
    ids: list[int]
    clip: int | None
    most: int
    transcript: str
    said: list[int] = field(default_factory=list)
    position: int = 0
    audio_tokens: int = 0
    stretches: Stretches | None = None


def runs(engine: Engine) -> bool:
    """Return whether a model's answers can be made in a running batch: greedy ones that nothing but the model shapes.

    What cannot is a decoder whose attention scores are capped or whose layers keep keywords from their attention, and a
    model folder that asks for penalties of its own.
    """
    if set(engine.model.generation_config.to_diff_dict()) - PLAIN:
        return False
    try:
        Slots(engine.model)
    except UnsupportedError:
        return False
    return True


class Running:
    """Questions about clips, answered in one running batch.

    Args:
        engine: The model; `runs` says whether it can.
        items: (clip, question); None = without audio.
        most: Longest answer of each.
        size: Rows at once.

    Example:
        >>> dict(Running(engine, [(wave, "What?")], most=[32], size=8))  # doctest: +SKIP
    """

    def __init__(
        self, engine: Engine, items: Sequence[tuple[Waveform | None, str]], *, most: Sequence[int], size: int
    ) -> None:
        self.engine, self.model, self.size = engine, engine.model, size
        self.slots = Slots(engine.model)
        self.rows: list[Row] = []
        self.waiting: list[Row] = []
        self._any = torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.model.device)
        self._silent = [engine.processor.audio_token_id, engine.processor.audio_slot_id]
        self._ends = engine.ends
        self._tokens: dict[int, dict[str, Tensor]] = {}
        self._rates: dict[str, float] = {}
        self._unasked: dict[int, int] = {}
        self._clips, self._questions = self._sorted(items, most)
        self._groups = deque(like_lengths([wave.duration_s for wave in self._clips]))

    def _sorted(
        self, items: Sequence[tuple[Waveform | None, str]], most: Sequence[int]
    ) -> tuple[list[Waveform], dict[int | None, list[Row]]]:
        """Return the clips, shortest first, and the questions about each."""
        hearing, engine = self.engine.hearing, self.engine
        known = {id(wave): wave for wave, _ in items if wave is not None}
        texts = {key: hearing.transcript(wave) for key, wave in known.items()}
        clips = [] if hearing.mode == "text_only" else sorted(known.values(), key=lambda wave: len(wave.samples))
        places = {id(wave): place for place, wave in enumerate(clips)}
        questions: dict[int | None, list[Row]] = {}
        for index, (wave, question) in enumerate(items):
            clip = places.get(id(wave)) if wave is not None else None
            said = texts.get(id(wave), "") if wave is not None else hearing.transcript(None)
            prompt = engine.prompt(question, clips=clip is not None, transcript=said)
            lengths = [] if clip is None or wave is None else [len(wave.samples)]
            ids = engine.processor.prompt_ids(prompt, lengths)
            row = Row(index=index, ids=ids, clip=clip, most=most[index], transcript=said)
            questions.setdefault(clip, []).append(row)
        return clips, questions

    def __iter__(self) -> Iterator[tuple[int, Answer]]:
        """Yield (place among the items, answer) as answers end."""
        self._wait(self._questions.pop(None, []))
        while self.waiting or self.rows or self._groups:
            with torch.inference_mode():
                while self._groups and len(self.waiting) < self.size:
                    self._encode(self._groups.popleft())
                free = self._places() - len(self.rows)
                over = []
                if self.waiting and (not self.rows or free * 4 >= self.size):
                    ready, self.waiting = self.waiting[: max(1, free)], self.waiting[max(1, free) :]
                    over = self._begin(ready)
                over += self._step() if self.rows else []
            yield from over

    def _places(self) -> int:
        """Return how many rows may run: fewer where clips are long."""
        clips = [row.clip for row in (*self.rows, *self.waiting) if row.clip is not None]
        longest = self._clips[max(clips)].duration_s if clips else 0.0
        return max(1, min(self.size, int(BATCH_SECONDS / max(longest, 1e-3))))

    def _encode(self, clips: list[int]) -> None:
        """Hear clips of like length; their questions may begin."""
        encoded = self.engine.encode([self._clips[clip] for clip in clips])
        if not self._listens:
            encoded = self.model.connect(encoded)
        self._rates = {name: tokens.rate_hz for name, tokens in encoded.items()}
        stretches = next(iter(encoded.values())).stretches
        for place, clip in enumerate(clips):
            rows = {name: tokens.values[place, : int(tokens.counts()[place])] for name, tokens in encoded.items()}
            self._tokens[clip] = rows
            self._unasked[clip] = len(self._questions[clip])
            for row in self._questions[clip]:
                row.stretches = stretches[place] if stretches else None
        self._wait([row for clip in clips for row in self._questions.pop(clip)])

    def _wait(self, rows: list[Row]) -> None:
        """Let questions wait by the length of their prompts: what is read together has little padding."""
        self.waiting = sorted(self.waiting + rows, key=lambda row: len(row.ids))

    @property
    def _listens(self) -> bool:
        """Whether what a clip sounds like depends on the question."""
        return any(stream.plan.facts.prompt_dependent for stream in self.model.streams.values())

    def _hear(self, rows: Sequence[Row], ids: Tensor, mask: Tensor) -> tuple[AudioMemory | None, Tensor]:
        """Return what the decoder needs of the rows' clips, and the positions of the text."""
        heard = [row for row in rows if row.clip is not None]
        if not heard:
            return None, (mask.cumsum(1) - 1).clamp(min=0)
        clips = list(dict.fromkeys(row.clip for row in heard if row.clip is not None))
        which = torch.tensor([clips.index(row.clip) for row in heard if row.clip is not None], device=ids.device)
        each, tokens = {}, {}
        for name, rate_hz in self._rates.items():
            values, valid = pad_rows([self._tokens[clip][name] for clip in clips])
            each[name] = AudioTokens(values=values, valid=valid, rate_hz=rate_hz)
            tokens[name] = each[name].with_values(values[which], valid=valid[which])
        if self._listens:
            tokens = self.model.connect(tokens, self.model.prompts(ids, mask))
        counts = torch.stack([one.counts() for one in tokens.values()]).sum(0).tolist()
        for row, count in zip(heard, counts, strict=True):
            row.audio_tokens = count
        memory, placement = self.model.remember(ids, mask, tokens)
        if not self._listens and len(clips) < len(heard):
            self._share(memory, placement, each, which)
        return memory, placement.positions

    def _share(self, memory: AudioMemory, placement: Placement, each: dict[str, AudioTokens], which: Tensor) -> None:
        """Project each clip's keys and values once for all rows that hear it."""
        attended = [name for name, part in self.model.streams.items() if attends(part.integration)]
        decoder = self.model.language_model
        for name, segment in zip(attended, memory.segments, strict=True):
            states, counts = each[name].values, each[name].counts()[which]
            unit = None if segment.unit is None else unit_states(decoder.config, states)
            clip = replace(segment, states=states, unit=unit, kv={})
            for layer in segment.layers:
                attention = layers_of(decoder)[layer].self_attn
                pair = segment_keys_values(attention, memory.norms[layer], clip, layer)
                rows = [placement.gather(part.transpose(1, 2)[which], counts)[0].transpose(1, 2) for part in pair]
                segment.kv[layer] = rows[0], rows[1]

    def _begin(self, rows: list[Row]) -> list[tuple[int, Answer]]:
        """Read the prompts of rows in one forward, and take their first tokens."""
        device = self.model.device
        inputs = self.engine.processor.pad([row.ids for row in rows])
        ids, mask = (inputs[key].to(device) for key in ("input_ids", "attention_mask"))
        memory, positions = self._hear(rows, ids, mask)
        embeddings = self.model.embed(ids, memory)
        seen = [mask[i].nonzero()[:, 0] for i in range(len(rows))]  # a hidden marker is not run at all
        counts = [len(columns) for columns in seen]
        embeddings = pad_rows([embeddings[i, columns] for i, columns in enumerate(seen)])[0]
        placed = torch.zeros(len(rows), max(counts), dtype=torch.long, device=device)
        for i, columns in enumerate(seen):
            placed[i, : counts[i]] = positions[i, columns]
            placed[i, counts[i] :] = positions[i, columns[-1]]
            rows[i].position = int(positions[i, columns[-1]])
        slots = self.slots.extend(memory, len(rows))
        ends = sorted({count - 1 for count in counts})
        logits = self._forward(slots, embeddings, placed, torch.tensor(ends, device=device))
        self.slots.wrote(slots, counts)
        self.rows += rows
        last = [ends.index(count - 1) for count in counts]
        for row in rows:
            if row.clip is not None:
                self._asked(row.clip)
        return self._take(rows, logits[range(len(rows)), last])

    def _asked(self, clip: int) -> None:
        """Let go of a clip's tokens when all its questions have them."""
        self._unasked[clip] -= 1
        if not self._unasked[clip]:
            del self._tokens[clip]

    def _step(self) -> list[tuple[int, Answer]]:
        """Make one token of every row."""
        device, rows = self.model.device, list(self.rows)
        ids = torch.tensor([[row.said[-1]] for row in rows], device=device)
        positions = torch.tensor([[row.position] for row in rows], device=device)
        slots = list(range(len(rows)))
        logits = self._forward(slots, self.model.embed(ids, None), positions, 1)
        self.slots.wrote(slots, [1] * len(rows))
        return self._take(rows, logits[:, -1])

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
        logits: Tensor = out.logits
        return logits

    def _take(self, rows: list[Row], logits: Tensor) -> list[tuple[int, Answer]]:
        """Take the likeliest token of each row from (B, V) logits; rows that end leave, and are returned."""
        logits = logits.float()
        logits[:, self._silent] = float("-inf")
        for row, token in zip(rows, logits.argmax(-1).tolist(), strict=True):
            row.said.append(token)
            row.position += 1
        over = [place for place, row in enumerate(self.rows) if row.said[-1] in self._ends or len(row.said) >= row.most]
        return [self._leave(place) for place in reversed(over)]  # so that no row is moved that leaves as well

    def _leave(self, place: int) -> tuple[int, Answer]:
        """Take a row out; the last one fills its slot."""
        row = self.rows[place]
        self.slots.move(len(self.rows) - 1, place)
        self.rows[place] = self.rows[-1]
        self.rows.pop()
        self.slots.pop()
        return row.index, Answer(
            text=self.engine.text(row.said),
            tokens=len(row.said),
            audio_tokens=row.audio_tokens,
            transcript=row.transcript,
            stretches=row.stretches,
        )


def like_lengths(seconds: Sequence[float], most_s: float = BATCH_SECONDS) -> list[list[int]]:
    """Return groups of clips (shortest first) that are encoded together, with little padding in each.

    Args:
        seconds: Of each clip.
        most_s: Seconds of a group, padding included; a longer clip is a group of its own.

    Example:
        >>> like_lengths([1.0, 1.1, 5.0, 3600.0])
        [[0, 1], [2], [3]]
    """
    groups: list[list[int]] = []
    real = 0.0
    for index, length in enumerate(seconds):
        padded = length * (len(groups[-1]) + 1) if groups else 0.0
        fits = groups and len(groups[-1]) < ENCODED_TOGETHER and padded <= most_s
        if fits and padded - real - length <= MOST_PADDING * padded:
            groups[-1].append(index)
            real += length
        else:
            groups.append([index])
            real = length
    return groups
