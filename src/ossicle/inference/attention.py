"""Attention over time: where in the audio the rows that say an answer look.

    weight of a token    =  mean over layers, heads and answer rows of softmax(q·kᵀ)
    weight of a stretch  =  Σ over tokens: weight × the part of the token that lies in the stretch

It costs one forward over the text. In `attend` and `prepend` it is a share of one softmax over audio and text, in
`cross` of a gated block's own over audio alone. A prepended token has itself looked at others before the text looks at
it, so that its weight says less about its own time. Evidence, not proof: a row may look where nothing is that it uses.
Source: PAL v2's attended audio (arXiv 2506.10423); averaging is our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ossicle.errors import UnsupportedError
from ossicle.inference.engine import Engine
from ossicle.inference.stretches import several, shares, stretches
from ossicle.integration.base import Integration, Placement
from ossicle.integration.memory import AudioMemory
from ossicle.integration.watch import Watch, watching
from ossicle.types import AudioTokens, Waveform


def asked(engine: Engine, waves: Sequence[Waveform], question: str, answer: str) -> tuple[Tensor, int]:
    """Return (1, L) ids of a question about clips with its answer and end, and how many ids the answer has."""
    processor = engine.processor
    read = engine.hearing.transcript(waves[0]) if len(waves) == 1 else ""  # muting takes sound away, not what was read
    messages = engine.prompt(question, clips=len(waves), transcript=read)
    prompt = processor.prompt_ids(messages, [len(wave.samples) for wave in waves])
    said = [*processor.ids(answer), processor.tokenizer.eos_token_id]
    return torch.tensor([[*prompt, *said]], device=engine.model.device), len(said)


def attention(
    engine: Engine,
    clips: Waveform | Sequence[Waveform],
    question: str,
    answer: str,
    *,
    stretch_s: float = 1.0,
    encoded: dict[str, AudioTokens] | None = None,
) -> dict[str, Any]:
    """Return where in clips the rows that say an answer look.

    Args:
        engine: The model.
        clips: The clip, or the clips of one question in order.
        question: What was asked.
        answer: What was said.
        stretch_s: Length of a stretch in seconds; longer where clips have more than 60 together.
        encoded: What `Engine.encode` gave for the clips, where it is known already.

    Returns:
        `method`; `seconds`: for each stretch `clip`, `start_s`, `end_s`, `weight` (they sum to 1, or are all 0 where
        nothing is looked at); `streams`: of each whose tokens have a time, `share` (of the softmax that went to its
        audio; other audio and the text have the rest) and `weights`.

    Raises:
        UnsupportedError: No stream's tokens have a time, or the decoder's attention cannot be read.
    """
    waves = several(clips)
    pieces = stretches(waves, stretch_s)
    streams, total = {}, torch.zeros(len(pieces))
    for name, (tokens, weights) in look(engine, waves, question, answer, encoded).items():
        by_piece = torch.stack(
            [(weights[piece.clip] * shares(tokens, len(weights[piece.clip]), piece)).sum() for piece in pieces]
        ).cpu()
        streams[name] = {"share": float(by_piece.sum()), "weights": _weighed(by_piece)}
        total += by_piece
    seconds = [piece.told(weight) for piece, weight in zip(pieces, _weighed(total), strict=True)]
    return {"method": "attention", "seconds": seconds, "streams": streams}


def _weighed(by_piece: Tensor) -> list[float]:
    """Return weights that sum to 1, or are all 0 where nothing is looked at."""
    weights: list[float] = (by_piece / by_piece.sum().clamp(min=torch.finfo(by_piece.dtype).tiny)).tolist()
    return weights


@torch.inference_mode()
def look(
    engine: Engine,
    waves: Sequence[Waveform],
    question: str,
    answer: str,
    encoded: dict[str, AudioTokens] | None = None,
) -> dict[str, tuple[AudioTokens, list[Tensor]]]:
    """Return by stream its tokens and, clip by clip, (N_c,) how much the rows that say an answer look at each.

    A stream whose tokens have no time is passed over.

    Raises:
        UnsupportedError: No stream's tokens have a time, or the decoder's attention cannot be read.
    """
    model = engine.model
    timed = [name for name, stream in model.streams.items() if stream.plan.connector.timed]
    if not timed:
        kinds = " and ".join(f"'{stream.plan.connector.kind}'" for stream in model.streams.values())
        raise UnsupportedError(
            f"tokens of the connector {kinds} belong to the whole clip and to no time, so attention cannot say when; "
            "occlusion can"
        )
    ids, said = asked(engine, waves, question, answer)
    mask = torch.ones_like(ids)
    connected = model.connect(encoded or engine.encode(waves), model.prompts(ids[:, :-said], mask[:, :-said]))
    memory, placement = model.remember(ids, mask, connected)
    rows = torch.zeros_like(ids, dtype=torch.bool)
    rows[:, -said - 1 : -2] = True  # what predicts the answer's tokens; its end is left out
    if said == 1:
        rows[:, -2] = True
    with watching(model.language_model, memory, rows) as watch:
        model(input_ids=ids, attention_mask=mask, position_ids=placement.positions, audio_memory=memory)
    slots = ids[0] == model.config.audio_slot_id
    found = _by_stream(model, connected, watch, memory, placement, slots)
    return {name: found[name] for name in timed}


def _by_stream(
    model: Any,
    connected: dict[str, AudioTokens],
    watch: Watch,
    memory: AudioMemory,
    placement: Placement,
    slots: Tensor,
) -> dict[str, tuple[AudioTokens, list[Tensor]]]:
    """Sort what a watch saw of one row of text by stream and clip.

    A layer's columns are the tokens of its segments, in the order of the streams, then the text; the text's slots hold
    the tokens of prepended streams, clip by clip.
    """
    counts = {name: tokens.counts().tolist() for name, tokens in connected.items()}
    found: dict[str, list[Tensor]] = {}
    segments, crosses = iter(memory.segments), iter(range(len(memory.crosses)))
    prepended = [name for name in connected if _overrides(model, name, "rows")]
    for name, tokens in connected.items():
        if name in prepended:
            continue
        if _overrides(model, name, "segment"):
            segment = next(segments)
            seen = torch.stack([_columns(watch, memory, segment, layer) for layer in sorted(segment.layers)]).mean(0)
        else:
            place = next(crosses)
            seen = torch.stack([read[0].mean(0) for (index, _), read in watch.read.items() if index == place]).mean(0)
        of_clip = placement.gather(tokens.values, tokens.counts())[1][0]
        found[name] = [seen[of_clip == clip] for clip in range(len(counts[name]))]
    if prepended:
        if not watch.seen:
            raise UnsupportedError(
                f"'{model.language_model.config.model_type}' does not hand keywords to the attention of its layers, so "
                "that nobody can watch it; occlusion can say when"
            )
        rows = torch.stack([seen[0].mean(0)[-len(slots) :] for seen in watch.seen.values()]).mean(0)[slots]
        sizes = [counts[name][clip] for clip in range(len(placement.rows)) for name in prepended]
        parts = iter(rows.split(sizes))
        for _ in range(len(placement.rows)):
            for name in prepended:
                found.setdefault(name, []).append(next(parts))
    return {name: (tokens, found[name]) for name, tokens in connected.items()}


def _columns(watch: Watch, memory: AudioMemory, segment: Any, layer: int) -> Tensor:
    """Return (N,) the mean over heads of what one layer saw of one segment."""
    start = 0
    for other in memory.segments:
        if other is segment:
            break
        start += other.states.shape[1] if layer in other.layers else 0
    return watch.seen[layer][0].mean(0)[start : start + segment.states.shape[1]]


def _overrides(model: Any, name: str, part: str) -> bool:
    """Return whether a stream's integration has a part of its own."""
    return getattr(type(model.streams[name].integration), part) is not getattr(Integration, part)
