"""Answers do not depend on company: batching, shared clips, streaming and long neighbours change nothing."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
import torch

from ossicle.inference.engine import batches, load
from ossicle.types import Waveform


def test_batched_equals_alone_and_streamed(engine, waves):
    items = [
        (waves[0], "What do you hear?"),
        (waves[1], "Then?"),
        (waves[0], "A dog?"),
        (None, "rain?"),
        (waves[2], "x"),
    ]
    together = [answer.text for answer in engine.answer(items, max_new_tokens=6)]
    alone = [engine.answer([item], max_new_tokens=6)[0].text for item in items]
    assert together == alone
    for (wave, question), text in zip(items, together, strict=True):
        clips = [] if wave is None else [wave]
        pieces = engine.stream(engine.prompt(question, clips=len(clips)), clips, max_new_tokens=6)
        assert "".join(pieces).strip() == text


def test_what_fails_while_an_answer_streams_is_raised_and_nothing_is_timed(engine, waves, monkeypatch):
    streamers = []

    def failing(*_, streamer, **__):
        streamers.append(streamer)
        streamer.put(torch.tensor([0]))  # the prompt
        streamer.on_finalized_text("A ")
        raise RuntimeError("out of memory")

    monkeypatch.setattr(engine.model, "generate", failing)
    pieces = engine.stream(engine.prompt("What?"), [waves[0]])
    assert next(pieces) == "A "
    assert streamers[0].timeout is None
    with pytest.raises(RuntimeError, match="out of memory"):
        list(pieces)


def test_an_answer_that_nobody_reads_to_its_end_ends_by_itself(engine, waves):
    before = threading.active_count()
    pieces = engine.stream(engine.prompt("What?"), [waves[0]], max_new_tokens=12)
    next(pieces)
    pieces.close()
    until = time.monotonic() + 20
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.01)
    assert threading.active_count() == before


def test_an_answer_says_what_it_cost(engine, waves):
    answer = engine.answer([(waves[1], "What?")], max_new_tokens=3)[0]
    assert answer.audio_tokens > 0 and answer.tokens <= 3
    assert set(answer.timing_s) == {"encode", "prefill", "decode"}
    assert all(seconds >= 0 for seconds in answer.timing_s.values())
    assert engine.answer([(None, "What?")], max_new_tokens=3)[0].audio_tokens == 0


def test_an_answer_ends_at_any_token_that_ends_one(waves):
    engine = load("nano", device="cpu")
    items, tokenizer = [(waves[0], "What do you hear?")], engine.processor.tokenizer
    before, end = engine.answer(items, max_new_tokens=40)[0], tokenizer.eos_token_id
    assert before.tokens < 40
    tokenizer.eos_token = "<|system|>"  # as Gemma 3 has it: the tokenizer names the text's end, a turn has another
    engine.model.generation_config.eos_token_id = [tokenizer.eos_token_id, end]
    for after in (engine.answer(items, max_new_tokens=40)[0], dict(engine.answer_each(items, max_new_tokens=[40]))[0]):
        assert (after.text, after.tokens) == (before.text, before.tokens)
    assert engine.ends == sorted([tokenizer.eos_token_id, end])


def test_a_clip_of_one_sample_and_a_silent_one(engine):
    one = Waveform(samples=np.zeros(1, np.float32))
    long = Waveform(samples=np.zeros(16000 * 65, np.float32))
    assert len(engine.answer([(one, "What?"), (long, "What?")], max_new_tokens=2)) == 2


def test_batches_keep_padded_audio_within_bounds():
    groups = batches([3600.0, 5.0, 4.0, 400.0, 300.0, 6.0], 4, budget_s=600.0)
    assert sorted(i for group in groups for i in group) == list(range(6))
    assert [0] in groups and groups[0] == [2, 1, 5]
