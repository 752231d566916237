"""A running batch answers as one question at a time does, whoever stands beside whom."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from integration.tiny_models import CNN, clips, stream
from ossicle.errors import UnsupportedError
from ossicle.inference.engine import Engine, bundled
from ossicle.inference.live import LiveStream
from ossicle.inference.running import Running, like_lengths, runs
from ossicle.model import AudioLM, AudioLMConfig
from ossicle.processor import AudioProcessor
from ossicle.serve.batch import Batch
from ossicle.tiny import tiny_decoder_config
from ossicle.types import Waveform

PAM = {"kind": "pam", "base": CNN, "pool": [CNN, CNN], "prompt_dim": 64}
SETUPS = {
    "prepend": [stream(kind="prepend")],
    "attend": [stream()],
    "attend-block": [stream(positions="block", layers=[1])],
    "hidden-marker": [stream(kind="prepend", marker="hidden")],
    "all": [stream("a", "prepend"), stream("b", "attend", encoder="a"), stream("c", "cross", encoder="a")],
    "listens-to-the-question": [stream(encoder=PAM), stream("b", "cross")],
}
QUESTIONS = ["What do you hear?", "Hm?"]
MOST = [3, 9, 1, 5, 7]


def engine_of(streams, decoder="llama", **changes):
    """A decoder of random weights, by its name or config."""
    torch.manual_seed(0)
    processor = AudioProcessor.from_pretrained(bundled("nano"))
    processor = AudioProcessor(processor.tokenizer, streams, chat_template=processor.chat_template)
    ids = {"audio_token_id": processor.audio_token_id, "audio_slot_id": processor.audio_slot_id}
    if isinstance(decoder, str):
        decoder = tiny_decoder_config(decoder, vocab_size=768, **changes)
    config = AudioLMConfig(text_config=decoder, streams=streams, **ids)
    return Engine(AudioLM.new(config).eval(), processor)


def items_of(*seconds):
    rows, lengths = clips(*seconds)
    waves = [Waveform(samples=row[:n].numpy()) for row, n in zip(rows, lengths.tolist(), strict=True)]
    items = [(wave, question) for wave in waves for question in QUESTIONS] + [(None, q) for q in QUESTIONS]
    return items, [MOST[i % len(MOST)] for i in range(len(items))]


def check(engine, size=3):
    assert runs(engine)
    items, most = items_of(0.2, 0.6, 0.25)
    got = dict(Running(engine, items, most=most, size=size))
    assert sorted(got) == list(range(len(items)))
    for place, (wave, question) in enumerate(items):
        alone = engine.answer([(wave, question)], max_new_tokens=most[place])[0]
        mine = got[place]
        assert (mine.text, mine.tokens, mine.audio_tokens) == (alone.text, alone.tokens, alone.audio_tokens)


@pytest.mark.parametrize("setup", SETUPS)
def test_every_integration(setup):
    check(engine_of(SETUPS[setup]))


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["gemma3", "qwen3", "mistral-window"])
def test_other_decoders(decoder):
    check(engine_of(SETUPS["attend"], decoder), size=64)


def test_each_clip_is_encoded_once(monkeypatch):
    engine = engine_of(SETUPS["attend"])
    encoded, encode = [], engine.encode
    monkeypatch.setattr(engine, "encode", lambda waves: encoded.extend(map(id, waves)) or encode(waves))
    items, most = items_of(0.2, 0.6, 0.25)
    running = Running(engine, items, most=most, size=2)
    assert len(dict(running)) == len(items)
    assert sorted(encoded) == sorted({id(wave) for wave, _ in items if wave is not None})
    assert not running._tokens and not running.rows and not len(running.slots), "nothing is kept"


def test_every_way_to_ask_says_what_was_heard_of_a_long_clip():
    engine = engine_of(SETUPS["attend"])
    engine.model.config.focus = {"over_s": 4.0, "keep_s": 2, "stretch_s": 1}
    (long, short), _ = clips(9.0, 1.0)
    items = [(Waveform(samples=long.numpy()), "Hm?"), (Waveform(samples=short[:16000].numpy()), "Hm?"), (None, "Hm?")]
    alone = [engine.answer([item], max_new_tokens=2)[0].stretches for item in items]
    assert alone[0] and alone[1:] == [None, None]
    each = dict(engine.answer_each(items, max_new_tokens=[2] * 3))
    assert [each[place].stretches for place in range(3)] == alone
    live = LiveStream(engine)
    live.append(long.numpy())
    assert live.answer("Hm?", max_new_tokens=2).stretches == alone[0]


def test_a_model_with_penalties_of_its_own_is_answered_by_generate(monkeypatch):
    engine = engine_of(SETUPS["attend"])
    engine.model.generation_config.repetition_penalty = 1.7
    assert not runs(engine)
    monkeypatch.setattr("ossicle.inference.running.Running.__init__", None)
    items, most = items_of(0.2, 0.4)
    got = dict(engine.answer_each(items, max_new_tokens=most, batch_size=3))
    assert [got[i].text for i in (1, 3)] == [engine.answer([items[i]], max_new_tokens=most[i])[0].text for i in (1, 3)]


@pytest.mark.parametrize("family", [{"model_type": "stablelm"}, {"model_type": "nemotron", "head_dim": 16}], ids=str)
def test_a_decoder_whose_attention_hears_of_no_slots_is_answered_by_generate(family):
    engine = engine_of(SETUPS["prepend"], **family)
    decoder, runs_made = engine.model.language_model, []
    before = decoder.config._attn_implementation
    items, most = items_of(0.2, 0.4)
    alone = [engine.answer([item], max_new_tokens=m)[0].text for item, m in zip(items, most, strict=True)]
    decoder.register_forward_hook(lambda *_: runs_made.append(1))
    assert not runs(engine)
    assert not runs(engine)
    assert len(runs_made) == 1 and decoder.config._attn_implementation == before
    got = dict(engine.answer_each(items, max_new_tokens=most, batch_size=3))
    assert [got[place].text for place in range(len(items))] == alone
    with pytest.raises(UnsupportedError, match="hand keywords"):
        Batch(engine.model)


OTHERS = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
    "gpt_neox": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
    "opt": {"hidden_size": 32, "word_embed_proj_dim": 32, "ffn_dim": 48, "num_hidden_layers": 2}
    | {"num_attention_heads": 4},
}
"""Decoders that keep their parts under other names; what cannot run is answered by generate."""


@pytest.mark.parametrize("family", OTHERS)
def test_decoders_of_other_kinds_answer_each_as_alone(family):
    config = AutoConfig.for_model(family, vocab_size=768, pad_token_id=0, initializer_range=0.2, **OTHERS[family])
    engine = engine_of([stream(kind="prepend")], config)
    items, most = items_of(0.2, 0.4)
    alone = [engine.answer([item], max_new_tokens=m)[0].text for item, m in zip(items, most, strict=True)]
    got = dict(engine.answer_each(items, max_new_tokens=most, batch_size=3))
    assert [got[place].text for place in range(len(items))] == alone
    assert len(set(alone)) > 2


def test_clips_of_like_length_are_encoded_together():
    groups = like_lengths([0.2, 1.0, 1.05, 1.1, 9.0, 9.1, 700.0, 700.0])
    assert groups == [[0], [1, 2, 3], [4, 5], [6], [7]]
    assert [len(group) for group in like_lengths([5.0] * 40)] == [16, 16, 8]
