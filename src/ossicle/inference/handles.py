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
from collections.abc import Callable, Iterator, Sequence
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
from ossicle.types import AudioTokens


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
    """

    memory: AudioMemory
    placement: Placement
    audio_tokens: int = 0
    cached_tokens: int = 0
    hits: int = 0
    misses: int = 0
    saved_s: float = 0.0


@dataclass(slots=True)
class _Pass:
    """One hearing under way."""

    scope: str
    clips: Sequence[Recording]
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
        self.listens = any(s.plan.encoder.facts().prompt_dependent for s in model.streams.values())

    def refresh(self) -> None:
        """Hash all weights anew at the next hearing."""
        self.prints.refresh()

    @torch.no_grad()
    def hear(
        self, input_ids: Tensor, attention_mask: Tensor | None, clips: Sequence[Recording], *, scope: str = ""
    ) -> Heard:
        """Lay clips out for a text, computing only what no handle holds.

        Args:
            input_ids: (B, L) text with one marker per clip, clips in row-major order.
            attention_mask: (B, L) 1 = real.
            clips: The clips; at least one.
            scope: Whose handles these are; another scope never finds them.

        Raises:
            DataError: A clip without samples is no longer remembered.
        """
        work = _Pass(scope, clips)
        if self.listens:
            encoded = self._tokens(work, "features", self.prints.features, lambda encoded: encoded)
            connected = self.model.connect(encoded, self.model.prompts(input_ids, attention_mask))
        else:
            connected = self._tokens(work, "tokens", self.prints.tokens, self.model.connect)
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

    def _tokens(
        self, work: _Pass, tier: str, prints: Callable[[], dict[str, str]], finish: Callable[[Any], dict[str, Any]]
    ) -> dict[str, AudioTokens]:
        """Return (C, N, D) tokens of all clips, from handles or made now."""
        made_by = prints()
        keys = [{name: Key(tier, work.scope, clip.audio, made_by[name]) for name in made_by} for clip in work.clips]
        kept = [{name: self._take(work, key) for name, key in row.items()} for row in keys]
        work.heard = [all(value is not None for value in row.values()) for row in kept]
        missing = [i for i, whole in enumerate(work.heard) if not whole]
        rates = {name: stream.rate_hz for row in kept for name, stream in row.items() if stream is not None}
        if missing:
            began = time.perf_counter()
            made = finish(self._encode([work.clips[i] for i in missing]))
            each_s = (time.perf_counter() - began) / len(missing) / len(made)
            rates = {name: tokens.rate_hz for name, tokens in made.items()}
            for row, clip in enumerate(missing):
                for name, tokens in made.items():
                    rows = tokens.values[row, : int(tokens.counts()[row])].clone()
                    kept[clip][name] = _Rows(rows, tokens.rate_hz)
                    self.store.put(keys[clip][name], kept[clip][name], num_bytes=_size(rows), cost_s=each_s)
        out = {}
        for name in made_by:
            values, valid = pad_rows([row[name].values for row in kept])
            out[name] = AudioTokens(values=values, valid=valid, rate_hz=rates[name])
        return out

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
        if self.model.streams[name].plan.encoder.facts().prompt_dependent:
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


class _Rows(NamedTuple):
    """Kept tokens of one clip: (N, D) and their rate."""

    values: Tensor
    rate_hz: float


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
