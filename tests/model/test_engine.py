"""Answers do not depend on company: batching, shared clips, streaming and long neighbours change nothing."""

from __future__ import annotations

import numpy as np

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
