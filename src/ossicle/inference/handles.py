"""Audio handles: a clip is heard once and asked about for as long as it is remembered.

    clip ──► encoder ──► connector ──► tokens ──► K, V of every layer, before rotation ──► the decoder's softmax
                                         │                    │
                              tier "tokens"              tier "keys"            both kept, bounded by bytes
             (audio, encoder, connector)   (that + K/V weights, adapters, options)

Nothing kept depends on the question, the system prompt or the place in a conversation: keys are rotated when used. Of a
model with an encoder that listens to the question only the tier "features" (encoder outputs) is reused.

A handle is found by the audio's own samples and by hashes of exactly the weights that made it, so that other weights,
adapters or adapter scales never meet old entries; `refresh` is needed only after weights changed behind autograd's back
(through `.data`). Source: our choice; what makes it possible is PAL v2's LAL (arXiv 2506.10423).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ossicle.audio.chunk import pad_rows
from ossicle.errors import DataError
from ossicle.inference.store import HandleStore, Key, Recording
from ossicle.inference.weights import Fingerprints
from ossicle.integration.base import Placement, attends
from ossicle.integration.memory import AudioMemory, AudioSegment, project
from ossicle.types import AudioTokens, Stretches


@dataclass(slots=True, kw_only=True)
class Heard:
    """What the decoder needs of a text's clips, and what it cost.

    Attributes:
        memory: For `AudioLM.forward` or `generate`.
        placement: Positions of the text.
        audio_tokens: Audio tokens of all streams.
        cached_tokens: Those of them that came from handles.
        hits: Handles found.
        misses: Handles made.
        saved_s: Seconds that the found ones cost when they were made.
        stretches: Of each clip the (start, end) seconds that were heard; None = all of it (see `ossicle.focus`).
    """

    memory: AudioMemory
    placement: Placement
    audio_tokens: int = 0
    cached_tokens: int = 0
    hits: int = 0
    misses: int = 0
    saved_s: float = 0.0
    stretches: tuple[Stretches | None, ...] = ()


class Made(NamedTuple):
    """What was made of one clip: tokens of each stream, and the seconds that each of them cost."""

    rows: dict[str, _Rows]
    cost_s: float


class _Rows(NamedTuple):
    """Kept tokens of one clip: (N, D), their rate, and the stretches of it that they stand for."""

    values: Tensor
    rate_hz: float
    stretches: Stretches | None = None


Ahead = Mapping[tuple[str, str], Made]
"""What was made of clips before their texts are at hand, by scope and audio."""


@dataclass(slots=True)
class _Pass:
    """One hearing under way."""

    scope: str
    clips: Sequence[Recording]
    ahead: Ahead
    heard: list[bool] = field(default_factory=list)
    hits: int = 0
    misses: int = 0
    saved_s: float = 0.0


class Listener:
    """Hears clips for a model, through a store of handles.

    Args:
        model: An `AudioLM`; not trained meanwhile.
        store: Where handles are kept; several listeners may share one.

    Example:
        >>> Listener(model).hear(ids, mask, [recording(load_audio("clip.wav"))])  # doctest: +SKIP
    """

    def __init__(self, model: Any, store: HandleStore | None = None) -> None:
        self.model = model
        self.store = store if store is not None else HandleStore()
        self.prints = Fingerprints(model)
        self.listens = any(s.plan.facts.prompt_dependent for s in model.streams.values())

    def refresh(self) -> None:
        """Hash all weights anew at the next hearing."""
        self.prints.refresh()

    @torch.no_grad()
    def encode(self, clips: Sequence[tuple[str, Recording]]) -> Ahead:
        """Encode clips together, of like length where time matters; those that handles hold are left out.

        Args:
            clips: Each with the scope that it is heard in.

        Returns:
            What `hear` takes as `ahead`.
        """
        self.prints.look()
        tier, made_by, finish = self._tier()
        fresh = {
            (scope, clip.audio): clip
            for scope, clip in clips
            if clip.samples is not None
            and not all(self.store.holds(Key(tier, scope, clip.audio, by)) for by in made_by.values())
        }
        return dict(zip(fresh, self._make(list(fresh.values()), finish), strict=True)) if fresh else {}

    @torch.no_grad()
    def hear(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        clips: Sequence[Recording],
        *,
        scope: str = "",
        ahead: Ahead | None = None,
    ) -> Heard:
        """Lay clips out for a text, computing only what no handle holds.

        Args:
            input_ids: (B, L) text with one marker per clip, clips in row-major order.
            attention_mask: (B, L) 1 = real.
            clips: The clips; at least one.
            scope: Whose handles these are; another scope never finds them.
            ahead: What `encode` has made of some of the clips since weights last changed.

        Raises:
            DataError: A clip without samples is no longer remembered.
        """
        work = _Pass(scope, clips, ahead or {})
        if not ahead:
            self.prints.look()
        connected = self._tokens(work)
        if self.listens:
            connected = self.model.connect(connected, self.model.prompts(input_ids, attention_mask))
        memory, placement = self.model.remember(input_ids, attention_mask, connected)
        for name, segment in zip(self._attended(), memory.segments, strict=True):
            self._fill(work, name, connected[name], segment, placement)
        counts = torch.stack([tokens.counts() for tokens in connected.values()]).sum(0).tolist()
        return Heard(
            memory=memory,
            placement=placement,
            audio_tokens=sum(counts),
            cached_tokens=sum(count for count, before in zip(counts, work.heard, strict=True) if before),
            hits=work.hits,
            misses=work.misses,
            saved_s=work.saved_s,
            stretches=next(iter(connected.values())).stretches or (None,) * len(counts),
        )

    def _attended(self) -> Iterator[str]:
        """Yield the streams that have keys and values in the decoder's attention, as `remember` orders them."""
        yield from (name for name, stream in self.model.streams.items() if attends(stream.integration))

    def _take(self, work: _Pass, key: Key) -> Any:
        found = self.store.get(key)
        if found is None:
            work.misses += 1
            return None
        work.hits += 1
        work.saved_s += found[1]
        return found[0]

    def _tier(self) -> tuple[str, dict[str, str], Callable[[dict[str, AudioTokens]], dict[str, AudioTokens]]]:
        """Return the tier of what depends on no question, by stream what made it, and the way there from features."""
        if self.listens:
            return "features", self.prints.features(), lambda encoded: encoded
        return "tokens", self.prints.tokens(), self.model.connect

    def _tokens(self, work: _Pass) -> dict[str, AudioTokens]:
        """Return (C, N, D) tokens of all clips, from handles or made now."""
        tier, made_by, finish = self._tier()
        keys = [{name: Key(tier, work.scope, clip.audio, made_by[name]) for name in made_by} for clip in work.clips]
        kept = [{name: self._take(work, key) for name, key in row.items()} for row in keys]
        work.heard = [all(value is not None for value in row.values()) for row in kept]
        missing = [i for i, whole in enumerate(work.heard) if not whole]
        made = {i: work.ahead[name] for i in missing if (name := (work.scope, work.clips[i].audio)) in work.ahead}
        rest = [i for i in missing if i not in made]
        if rest:
            made |= zip(rest, self._make([work.clips[i] for i in rest], finish), strict=True)
        for i, (rows, cost_s) in made.items():
            kept[i] = dict(rows)
            for name, row in rows.items():
                self.store.put(keys[i][name], row, num_bytes=_size(row.values), cost_s=cost_s)
        out = {}
        for name in made_by:
            values, valid = pad_rows([row[name].values for row in kept])
            tokens = AudioTokens(values=values, valid=valid, rate_hz=kept[0][name].rate_hz)
            out[name] = tokens.of([row[name].stretches for row in kept])
        return out

    def _make(
        self, clips: Sequence[Recording], finish: Callable[[dict[str, AudioTokens]], dict[str, AudioTokens]]
    ) -> list[Made]:
        """Return what clips sound like, encoded together."""
        began = time.perf_counter()
        streams = finish(self._encode(clips))
        cost_s = (time.perf_counter() - began) / len(clips) / len(streams)
        counts = {name: tokens.counts().tolist() for name, tokens in streams.items()}
        made = []
        for i in range(len(clips)):
            rows = {
                name: _Rows(t.values[i, : counts[name][i]].clone(), t.rate_hz, t.stretches and t.stretches[i])
                for name, t in streams.items()
            }
            made.append(Made(rows, cost_s))
        return made

    def _encode(self, clips: Sequence[Recording]) -> dict[str, AudioTokens]:
        waves = []
        for clip in clips:
            if clip.samples is None:
                raise DataError("a clip known only by its uuid is no longer remembered; send its audio again")
            waves.append(torch.from_numpy(clip.samples))
        audio = nn.utils.rnn.pad_sequence(waves, batch_first=True).to(self.model.device)
        encoded: dict[str, AudioTokens] = self.model.encode(audio, torch.tensor([len(wave) for wave in waves]))
        return encoded

    def _fill(self, work: _Pass, name: str, tokens: AudioTokens, segment: AudioSegment, placement: Placement) -> None:
        """Put one stream's keys and values into its segment, clip by clip from handles where they may be kept."""
        if self.model.streams[name].plan.facts.prompt_dependent:
            return
        made_by, counts = self.prints.keys(name, segment), tokens.counts()
        by_clip = []
        for row, clip in enumerate(work.clips):
            key = Key("keys", work.scope, clip.audio, made_by)
            pairs = self._take(work, key)
            if pairs is None:
                began = time.perf_counter()
                pairs = self._project(tokens.values[row : row + 1, : int(counts[row])], segment)
                size = sum(_size(part) for pair in pairs.values() for part in pair)
                self.store.put(key, pairs, num_bytes=size, cost_s=time.perf_counter() - began)
            by_clip.append(pairs)
        for layer in segment.layers:
            parts = (pad_rows([pairs[layer][side] for pairs in by_clip])[0] for side in (0, 1))
            key_rows, value_rows = (placement.gather(part, counts)[0].transpose(1, 2) for part in parts)
            segment.kv[layer] = key_rows, value_rows

    def _project(self, states: Tensor, segment: AudioSegment) -> dict[int, tuple[Tensor, Tensor]]:
        """Return by layer (N, heads, width) unrotated keys and values of one clip's (1, N, D) tokens."""
        pairs = {}
        for layer, attention, norm in self.prints.attentions(segment.layers):
            states_in = norm(states) if segment.norm and norm is not None else states
            own = attention if segment.own is None else segment.own[str(layer)]
            key, value = project(attention, own, states_in)
            pairs[layer] = key[0].transpose(0, 1).contiguous(), value[0].transpose(0, 1).contiguous()
        return pairs


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
