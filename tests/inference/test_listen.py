"""When it listened: weights in their own second, of every way of hearing, of long clips and of several."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
import torch

from model.conftest import engine, tokenizer  # noqa: F401 - fixtures
from ossicle.errors import UnsupportedError
from ossicle.inference import listen
from ossicle.inference.attention import attention, look
from ossicle.inference.listen import listened, occlusion
from ossicle.inference.stretches import MOST_STRETCHES, shares, stretches
from ossicle.types import AudioTokens, Waveform


def _wave(seconds=4.0, loud=2, seed=0):
    samples = np.random.default_rng(seed).normal(0, 1e-3, round(16000 * seconds)).astype(np.float32)
    samples[16000 * loud : 16000 * (loud + 1)] *= 300
    return Waveform(samples=samples)


def _only(monkeypatch, chance):
    """Let the log-probability be a function of the clips that were encoded."""
    monkeypatch.setattr(listen.Muted, "log_chances", chance)


def test_the_stretch_that_carries_the_answer_weighs_most(engine, monkeypatch):  # noqa: F811
    _only(monkeypatch, lambda self, *_: torch.tensor([-1.0, -1.0, -1.0, -10.0, -0.5]))
    seconds = occlusion(engine, _wave(), "what", "loud")["seconds"]
    assert [round(row["weight"], 6) for row in seconds] == [0, 0, 1, 0]
    assert seconds[2]["drop"] == pytest.approx(9.0) and seconds[3]["drop"] == pytest.approx(-0.5)
    assert [row["start_s"] for row in seconds] == [0, 1, 2, 3]


def test_nothing_mattered_is_zero_everywhere_and_the_clip_is_left_alone(engine, monkeypatch):  # noqa: F811
    _only(monkeypatch, lambda self, *_: torch.zeros(5))
    wave = _wave()
    before = wave.samples.copy()
    assert {row["weight"] for row in occlusion(engine, wave, "q", "a")["seconds"]} == {0.0}
    assert np.array_equal(wave.samples, before)


def test_the_chance_of_an_answer_is_the_models_own_whether_alone_or_beside_muted_ones(engine):  # noqa: F811
    wave = _wave(2.5)
    chances = listen.Muted(engine, wave).log_chances("What do you hear?", "A dog")
    for index, start in enumerate([None, 0, 1, 2]):
        samples = wave.samples.copy()
        if start is not None:
            samples[16000 * start : 16000 * (start + 1)] = 0
        inputs = engine.processor.chat([engine.prompt("What do you hear?")], audio=[replace(wave, samples=samples)])
        said = [*engine.processor.ids("A dog"), engine.processor.tokenizer.eos_token_id]
        ids = torch.cat([inputs["input_ids"], torch.tensor([said])], 1)
        heard = {name: inputs[name] for name in ("audio_values", "audio_lengths")}
        with torch.no_grad():
            logits = engine.model(input_ids=ids, **heard).logits[0, -len(said) - 1 : -1].log_softmax(-1)
        alone = sum(float(row[token]) for row, token in zip(logits, said, strict=True))
        assert float(chances[index]) == pytest.approx(alone, abs=1e-4)


def test_long_clips_are_muted_and_encoded_a_few_at_a_time_with_the_same_result(engine, monkeypatch):  # noqa: F811
    waves = [_wave(2.5), _wave(1.0, 0, seed=1)]
    before = listen.Muted(engine, waves).log_chances("What do you hear?", "A dog")
    encode, copies, seconds, most = engine.encode, [], [], []

    def watched(distinct):
        copies.extend(weakref.ref(wave.samples) for wave in distinct if id(wave) not in map(id, waves))
        seconds.append(len(distinct) * max(wave.duration_s for wave in distinct))
        most.append(sum(copy() is not None for copy in copies))
        return encode(distinct)

    monkeypatch.setattr(engine, "encode", watched)
    monkeypatch.setattr(listen, "BATCH_SECONDS", 10.0, raising=False)
    after = listen.Muted(engine, waves).log_chances("What do you hear?", "A dog")
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-5)
    assert max(seconds) <= 10.0 and max(most) <= 2 and len(copies) == 4


def test_a_mixture_that_listens_to_the_question_is_explained_by_the_route_that_answered():
    from inference.test_running import SETUPS, engine_of

    listening = engine_of(SETUPS["listens-to-the-question"])
    mixture = listening.model.streams["ear"].encoder
    torch.nn.init.normal_(mixture.router.prompt.layers[-1].weight, std=6.0)
    asked = (_wave(1.0, 0), "What do you hear?")
    listening.answer([asked], max_new_tokens=1)
    answered = mixture.trace[0].weights
    for explain in (occlusion, attention):
        explain(listening, *asked, "rain and two dogs")
        torch.testing.assert_close(mixture.trace[0].weights[:1], answered)


def test_attention_sums_to_one_and_says_what_the_text_kept(engine):  # noqa: F811
    wave = _wave(5.0)
    found = attention(engine, wave, "What do you hear?", "A dog")
    assert sum(row["weight"] for row in found["seconds"]) == pytest.approx(1)
    assert [row["start_s"] for row in found["seconds"]] == [0, 1, 2, 3, 4]
    for stream in found["streams"].values():
        assert 0 < stream["share"] <= 1.00001 and sum(stream["weights"]) == pytest.approx(1)


def test_attention_is_laid_out_clip_by_clip(engine):  # noqa: F811
    waves = [_wave(1.3, 0, seed=1), _wave(2.6, 1, seed=2)]
    looked = look(engine, waves, "Same?", "A dog")
    for name, (_, weights) in looked.items():
        plan = engine.model.streams[name].plan
        assert [len(part) for part in weights] == [plan.num_tokens(len(wave.samples)) for wave in waves]
        assert all((part > 0).all() for part in weights)
    found = listened(engine, waves, "Same?", "A dog")
    for kind in ("attention", "occlusion"):
        rows = found[kind]["seconds"]
        assert [(row["clip"], row["start_s"]) for row in rows] == [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
        assert rows[1]["end_s"] == pytest.approx(1.3) and rows[-1]["end_s"] == pytest.approx(2.6)
    assert found["seconds"] == found[found["method"]]["seconds"]


def test_a_model_without_time_says_so_and_occlusion_remains(engine, monkeypatch):  # noqa: F811
    for stream in engine.model.streams.values():
        monkeypatch.setattr(type(stream.plan.connector), "timed", False)
    found = listened(engine, _wave(2.0), "q", "A dog")
    assert "whole clip" in found["attention"]["unavailable"] and found["method"] == "occlusion"
    assert len(found["occlusion"]["seconds"]) == 2


def test_a_stream_without_time_is_passed_over_and_the_others_are_shown():
    from inference.test_running import CNN, engine_of, stream

    tags = {"kind": "tags", "tags": ["dog", "rain"], "factor": 25, "length": 2, "examples": 4}
    both = engine_of([stream("tag", connector=tags), stream("ear", encoder="tag"), stream("b", "cross", encoder=CNN)])
    alone = engine_of([stream("ear"), stream("b", "cross", encoder=CNN)])
    assert [len(weights[0]) for _, weights in look(both, [_wave()], "q", "A dog").values()] == [
        len(weights[0]) for _, weights in look(alone, [_wave()], "q", "A dog").values()
    ]
    for bound in (-torch.inf, torch.inf):  # a verdict on everything, and on nothing
        both.model.streams["tag"].connector.bound.fill_(bound)
        found = listened(both, _wave(), "q", "A dog")["attention"]
        assert list(found["streams"]) == ["ear", "b"]
        assert sum(row["weight"] for row in found["seconds"]) == pytest.approx(1)


def test_a_decoder_whose_attention_cannot_be_watched_says_so_and_occlusion_remains():
    from inference.test_running import engine_of, stream

    deaf = engine_of([stream(kind="prepend")], model_type="stablelm")
    with pytest.raises(UnsupportedError, match="hand keywords"):
        look(deaf, [_wave()], "q", "A dog")
    found = listened(deaf, _wave(), "q", "A dog")
    assert "\n" not in found["attention"]["unavailable"] and found["method"] == "occlusion"


def test_where_nothing_is_looked_at_weights_are_zero(engine, monkeypatch):  # noqa: F811
    looked = {
        name: (tokens, [torch.zeros_like(weights) for weights in parts])
        for name, (tokens, parts) in look(engine, [_wave()], "q", "A dog").items()
    }
    monkeypatch.setattr("ossicle.inference.attention.look", lambda *_: looked)
    found = attention(engine, _wave(), "q", "A dog")
    assert {row["weight"] for row in found["seconds"]} == {0.0}
    assert all(stream["weights"] == [0.0] * 4 and stream["share"] == 0 for stream in found["streams"].values())


def test_tokens_are_put_into_seconds_by_their_own_clock():
    tokens = AudioTokens(values=torch.zeros(1, 6, 2), valid=torch.ones(1, 6, dtype=torch.bool), rate_hz=2.5)
    pieces = stretches([Waveform(samples=np.zeros(16000 * 2 + 4000, np.float32))])
    inside = torch.stack([shares(tokens, 6, piece) for piece in pieces])
    expected = [[1, 1, 0.5, 0, 0, 0], [0, 0, 0.5, 1, 1, 0], [0, 0, 0, 0, 0, 0.625]]
    torch.testing.assert_close(inside, torch.tensor(expected), atol=1e-5, rtol=0)
    late = replace(tokens, start_s=10.0)
    assert float(shares(late, 6, pieces[0]).sum()) == 0


def test_a_long_clip_has_longer_stretches():
    pieces = stretches([Waveform(samples=np.zeros(16000 * 600, np.float32))])
    assert len(pieces) == MOST_STRETCHES and pieces[-1].end_s == 600.0
    two = stretches([Waveform(samples=np.zeros(16000 * 600, np.float32)), _wave(4.0)])
    assert len(two) <= MOST_STRETCHES + 1 and two[-1].clip == 1 and two[-1].end_s == 4.0


def test_a_long_clip_is_looked_at_in_one_forward(engine):  # noqa: F811
    found = attention(engine, _wave(130.0, 100), "q", "A dog")
    assert len(found["seconds"]) <= MOST_STRETCHES and found["seconds"][-1]["end_s"] == 130.0
    assert sum(row["weight"] for row in found["seconds"]) == pytest.approx(1)
