"""Live audio: chunks are appended while questions are asked, and the answer is that of the whole file so far.

    samples   ├─ window 0 ─┤├─ window 1 ─┤├─ win…        encoder windows lie on a fixed grid
    kept      tokens, K/V    tokens, K/V    samples      a finished window is encoded once, its samples are let go
    asked     ───────────────────────────────────►       the unfinished one is encoded again: replaced, not appended

A connector maps groups of tokens on a grid of its own; what does not fill a group waits for the next window. Keys are
kept before rotation, so that each question lays its text out against all audio so far. Parts that look across windows
(`windowed` is false) or listen to the question refuse in one line. A model that hears only what stands out in a long
recording (`ossicle.focus`) keeps the encoders' tokens too, and chooses among them at each question. Source: DESIGN's
choice; PAL v2's attended audio (arXiv 2506.10423) is what makes a window's keys independent of the text.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ossicle.errors import DataError, UnsupportedError
from ossicle.focus import focused
from ossicle.inference.engine import Answer, Engine
from ossicle.integration.base import Integration, Placement
from ossicle.integration.memory import AudioMemory, AudioSegment, layers_of, project
from ossicle.types import SAMPLE_RATE_HZ, AudioTokens, Stretches


def check_live(model: Any) -> None:
    """Refuse a model with a part that cannot be appended to.

    Raises:
        UnsupportedError: Names the part.
    """
    for name, stream in model.streams.items():
        facts, connector = stream.plan.facts, stream.plan.connector
        for part, fine, why in (
            (f"encoder '{stream.plan.encoder.kind}'", facts.windowed, "looks across windows"),
            (f"encoder '{stream.plan.encoder.kind}'", not facts.prompt_dependent, "listens to the question"),
            (f"connector '{connector.kind}'", connector.windowed, "looks across windows"),
        ):
            if not fine:
                raise UnsupportedError(f"stream '{name}': {part} {why}, so it cannot hear live audio; send whole files")


@dataclass(slots=True, kw_only=True)
class _Ear:
    """What one stream keeps of finished windows."""

    name: str
    group: int
    left: Tensor | None = None  # (n, D) encoder tokens that fill no group yet
    before: int = 0  # encoder tokens before them
    done: list[Tensor] = field(default_factory=list)  # (k, D) connected
    keys: dict[int, tuple[Tensor, Tensor]] = field(default_factory=dict)  # by layer, (1, heads, k, width) each
    projected: int = 0


class LiveStream:
    """A recording that grows, and can be asked about at any time.

    Args:
        engine: The model; its weights stay as they are meanwhile.

    Raises:
        UnsupportedError: A part of the model cannot be appended to.

    Example:
        >>> live = LiveStream(load("nano"))  # doctest: +SKIP
        >>> live.append(np.zeros(16000, np.float32))  # doctest: +SKIP
        >>> live.answer("What do you hear?").text  # doctest: +SKIP
    """

    def __init__(self, engine: Engine) -> None:
        check_live(engine.model)
        self.engine, self.model = engine, engine.model
        self.num_samples = 0
        self._ears = [
            _Ear(name=name, group=stream.plan.connector.group_tokens) for name, stream in self.model.streams.items()
        ]
        owners = {owner for stream in self.model.streams.values() for owner in stream.plan.owners}
        self._waiting = {owner: np.zeros(0, np.float32) for owner in owners}
        self._kept: dict[str, list[Tensor]] = {owner: [] for owner in owners}  # (n, D) of each window, for `focus`

    @property
    def duration_s(self) -> float:
        """Seconds heard so far."""
        return self.num_samples / SAMPLE_RATE_HZ

    @torch.inference_mode()
    def append(self, samples: np.ndarray) -> None:
        """Hear more.

        Args:
            samples: (S,) mono at 16 kHz, of any length.

        Raises:
            DataError: Not one row of finite numbers.
        """
        samples = np.asarray(samples, dtype=np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise DataError(f"live audio: got shape {samples.shape}; expected (samples,) of finite numbers at 16 kHz")
        self.num_samples += len(samples)
        heard: dict[str, list[Tensor]] = {owner: [] for owner in self._waiting}
        for owner, waiting in self._waiting.items():
            encoder = self.model.streams[owner].encoder
            joined, size = np.concatenate([waiting, samples]), encoder.config.window_samples
            while len(joined) >= size:
                features = self._features(owner, joined[:size])
                heard[owner].append(_rows(encoder.finish(features)))
                if self.model.config.focus is not None:
                    self._kept[owner].append(_rows(features))
                joined = joined[size:]
            self._waiting[owner] = joined.copy()
        finished = {owner: torch.cat(windows) for owner, windows in heard.items() if windows}
        for ear in self._ears:
            tokens = self._beside(ear, finished)
            if tokens is not None:
                self._take(ear, tokens)

    @torch.inference_mode()
    def answer(self, question: str, *, max_new_tokens: int = 64, **generation: Any) -> Answer:
        """Answer a question about everything heard so far.

        Args:
            question: In words.
            max_new_tokens: At most this many tokens.
            **generation: As in transformers' `generate`; greedy by default.

        Raises:
            DataError: Nothing has been heard.
        """
        began = time.perf_counter()
        prompt = self.engine.processor.prompt_ids(self.engine.prompt(question), [self.num_samples])
        ids = torch.tensor([prompt], device=self.model.device)
        memory, placement, count, stretches = self.hear(ids)
        heard = time.perf_counter()
        out = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            audio_memory=memory,
            position_ids=placement.positions,
            **self.engine.generation(max_new_tokens=max_new_tokens, **generation),
        )
        said = out[0, ids.shape[1] :]
        timing = {"encode": heard - began, "decode": time.perf_counter() - heard}
        return Answer(
            text=self.engine.text(said),
            tokens=len(said),
            audio_tokens=count,
            stretches=stretches,
            timing_s=timing,
        )

    @torch.inference_mode()
    def hear(self, input_ids: Tensor) -> tuple[AudioMemory, Placement, int, Stretches | None]:
        """Lay everything heard so far out for a text with one marker.

        Args:
            input_ids: (1, L) text.

        Returns:
            What the decoder needs, the positions of the text, the number of audio tokens, and the (start, end) seconds
            that are heard, None = all.

        Raises:
            DataError: Nothing has been heard.
        """
        if not self.num_samples:
            raise DataError("live audio: nothing has been heard yet; append samples first")
        tails = {owner: self._features(owner, waiting) for owner, waiting in self._waiting.items() if len(waiting)}
        focus = self.model.config.focus
        if focus is not None and self.duration_s + 1 > focus["over_s"]:  # tokens last a little longer than samples
            connected = self.model.connect(focused(self._all(tails), focus))
            memory, placement = self.model.remember(input_ids, None, connected)
            stretches = next(iter(connected.values())).stretches
            count = sum(int(tokens.counts()[0]) for tokens in connected.values())
            return memory, placement, count, stretches[0] if stretches else None
        tails = {owner: _rows(self.model.streams[owner].encoder.finish(tokens)) for owner, tokens in tails.items()}
        connected, new = {}, dict[str, Tensor | None]()
        for ear in self._ears:
            rate_hz = self.model.streams[ear.name].plan.connector.rate_hz(self._facts(ear).rate_hz)
            tail = self._connect(ear, _joined(ear.left, self._beside(ear, tails)))
            new[ear.name] = tail
            values = torch.cat([*ear.done, *([tail] if tail is not None else [])])[None]
            valid = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
            connected[ear.name] = AudioTokens(values=values, valid=valid, rate_hz=rate_hz)
        memory, placement = self.model.remember(input_ids, None, connected)
        segments = iter(memory.segments)
        for ear in self._ears:
            if type(self.model.streams[ear.name].integration).segment is not Integration.segment:
                self._fill(ear, next(segments), memory, new[ear.name])
        return memory, placement, sum(tokens.values.shape[1] for tokens in connected.values()), None

    def _beside(self, ear: _Ear, tokens: Mapping[str, Tensor]) -> Tensor | None:
        """Return (N, D) a stream's encoder tokens, of several encoders side by side; None where there are none."""
        parts = [tokens[owner] for owner in self.model.streams[ear.name].plan.owners if owner in tokens]
        return torch.cat(parts, -1) if parts else None

    def _facts(self, ear: _Ear) -> Any:
        return self.model.streams[ear.name].plan.facts

    def _features(self, owner: str, samples: np.ndarray) -> AudioTokens:
        """Return the features of one window, or of the beginning of one."""
        audio = torch.from_numpy(samples)[None].to(self.model.device)
        tokens: AudioTokens = self.model.streams[owner].encoder.features(audio, torch.tensor([len(samples)]))
        return tokens

    def _all(self, tails: Mapping[str, AudioTokens]) -> dict[str, AudioTokens]:
        """Return the features of everything heard so far."""
        found = {}
        for owner, kept in self._kept.items():
            values = torch.cat([*kept, *([_rows(tails[owner])] if owner in tails else [])])[None]
            valid = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
            found[owner] = AudioTokens(values=values, valid=valid, rate_hz=self.model.streams[owner].plan.facts.rate_hz)
        return found

    def _take(self, ear: _Ear, tokens: Tensor) -> None:
        """Connect what fills groups, keep the rest."""
        joined = _joined(ear.left, tokens)
        assert joined is not None
        full = len(joined) // ear.group * ear.group
        connected = self._connect(ear, joined[:full])
        ear.done += [connected] if connected is not None else []
        ear.left, ear.before = joined[full:], ear.before + full

    def _connect(self, ear: _Ear, tokens: Tensor | None) -> Tensor | None:
        """Return (k, D) at the decoder's width of encoder tokens from `ear.before` on."""
        if tokens is None or not len(tokens):
            return None
        connector, rate_hz = self.model.streams[ear.name].connector, self._facts(ear).rate_hz
        dtype = next(connector.parameters(), tokens).dtype
        valid = torch.ones(1, len(tokens), dtype=torch.bool, device=tokens.device)
        values = tokens[None].to(dtype)
        out = connector(AudioTokens(values=values, valid=valid, rate_hz=rate_hz, start_s=ear.before / rate_hz))
        return _rows(out)

    def _fill(self, ear: _Ear, segment: AudioSegment, memory: AudioMemory, tail: Tensor | None) -> None:
        """Put keys and values into a segment: kept ones, those of windows finished since, and the tail's."""
        done = torch.cat(ear.done)[ear.projected :] if ear.done else None
        for layer in segment.layers:
            parts = [ear.keys[layer]] if layer in ear.keys else []
            parts += [self._project(layer, segment, memory, done)] if done is not None and len(done) else []
            if parts:
                ear.keys[layer] = _end_to_end(parts)
            last = [self._project(layer, segment, memory, tail)] if tail is not None else []
            kept = [ear.keys[layer]] if layer in ear.keys else []
            nothing = segment.states[0, :0]  # of a stream that has not said anything yet
            segment.kv[layer] = _end_to_end([*kept, *last] or [self._project(layer, segment, memory, nothing)])
        ear.projected += len(done) if done is not None else 0

    def _project(self, layer: int, segment: AudioSegment, memory: AudioMemory, states: Tensor) -> tuple[Tensor, Tensor]:
        attention, norm = layers_of(self.model.language_model)[layer].self_attn, memory.norms[layer]
        own = attention if segment.own is None else segment.own[str(layer)]
        rows = states[None]
        return project(attention, own, norm(rows) if segment.norm and norm is not None else rows)


def _rows(tokens: AudioTokens) -> Tensor:
    """Return (N, D) the real tokens of one clip."""
    rows: Tensor = tokens.values[0, : int(tokens.counts()[0])]
    return rows


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    parts = [part for part in (first, second) if part is not None]
    return torch.cat(parts) if parts else None


def _end_to_end(parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.cat([key for key, _ in parts], 2), torch.cat([value for _, value in parts], 2)
