"""What decoders do beside their layers: reshaped logits, rotations that follow the length, other names and dtypes."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from integration.tiny_models import MARKER, SLOT, clips, stream, text, tiny_model
from ossicle.errors import DataError, UnsupportedError
from ossicle.model import AudioLM, AudioLMConfig
from ossicle.tiny import tiny_decoder_config

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "eos_token_id": 2,
    "bos_token_id": 1,
}
ELSEWHERE = {
    "gpt2": {"vocab_size": 300, "n_embd": 32, "n_layer": 2, "n_head": 4},
    "opt": {"vocab_size": 300, "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    | {"word_embed_proj_dim": 32, "max_position_embeddings": 128},
    "falcon": {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
}
"""Decoders that keep their layers, or their rotations, under other names."""


def of_config(config, streams=None):
    torch.manual_seed(0)
    streams = streams or [stream(kind="prepend")]
    return AudioLM.new(AudioLMConfig(config, streams, audio_token_id=MARKER, audio_slot_id=SLOT)).eval()


def batch(model, rows=((3, "a", 5), (2, "a", 4))):
    audio, lengths = clips(*[0.4, 0.3][: len(rows)])
    ids, mask = text(model, rows, lengths)
    labels = ids.masked_fill((mask == 0) | (ids >= MARKER), -100)
    return {"input_ids": ids, "attention_mask": mask, "audio_values": audio, "audio_lengths": lengths}, labels


@pytest.mark.parametrize(
    ("kind", "reshaped"),
    [
        ("granite", {"logits_scaling": 3.0}),
        ("cohere", {"logit_scale": 0.2, "pad_token_id": 0}),
        ("gemma3_text", {"final_logit_softcapping": 0.5, "head_dim": 8}),
        ("llama", {}),
    ],
)
def test_what_is_trained_are_the_logits_that_are_said(kind, reshaped):
    model = of_config(AutoConfig.for_model(kind, **{**SIZES, **reshaped}))
    inputs, labels = batch(model)
    with torch.no_grad():
        heard = model(**inputs, labels=labels)
    said = heard.logits[:, :-1][labels[:, 1:] != -100].log_softmax(-1)
    targets = labels[:, 1:][labels[:, 1:] != -100]
    weights = torch.linspace(0.5, 2, labels.numel()).view_as(labels)
    shares = weights[:, 1:][labels[:, 1:] != -100]
    model.train()
    model.streams.eval()
    plain = model(**inputs, labels=labels).loss
    weighted = model(**inputs, labels=labels, label_weights=weights, num_items_in_batch=7).loss
    torch.testing.assert_close(plain, heard.loss, atol=1e-5, rtol=1e-5)
    each = -said[torch.arange(len(targets)), targets]
    torch.testing.assert_close(weighted, (each * shares).sum() / 7, atol=1e-5, rtol=1e-5)
    weighted.backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in model.streams.ear.connector.parameters())


@pytest.mark.parametrize("kind", ELSEWHERE)
def test_a_decoder_with_its_layers_elsewhere_reads_rows(kind):
    model = of_config(AutoConfig.for_model(kind, pad_token_id=0, initializer_range=0.2, **ELSEWHERE[kind]))
    inputs, _ = batch(model)
    others = {**inputs, "audio_values": clips(0.4, 0.3, seed=3)[0]}
    settings = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    with torch.no_grad():
        assert (model(**inputs).logits - model(**others).logits)[:, -1].abs().amax(1).min() > 1e-6
        assert torch.equal(model.generate(**inputs, **settings), model.generate(**inputs, use_cache=False, **settings))


def test_a_decoder_with_its_layers_elsewhere_cannot_be_crossed():
    config = AutoConfig.for_model("gpt2", **ELSEWHERE["gpt2"])
    with pytest.raises(UnsupportedError, match="its layers are not where"):
        of_config(config, [stream(kind="cross")])


LENGTHS = {
    "phi3": {
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 64,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 1e4,
            "short_factor": [1.0] * 8,
            "long_factor": [4.0] * 8,
            "original_max_position_embeddings": 64,
            "factor": 64.0,
        },
    },
    "llama": {
        "max_position_embeddings": 64,
        "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0},
    },
}


@pytest.mark.parametrize("words", [20, 150])
@pytest.mark.parametrize("decoder", LENGTHS)
def test_audio_turns_as_the_text_at_its_place_however_long_that_is(decoder, words, monkeypatch):
    model = tiny_model(decoder, [stream(positions="marker")], **LENGTHS[decoder])
    inputs, _ = batch(model, [(2, "a", words)])
    rotary, calls = type(model.get_decoder().rotary_emb), []
    forward = rotary.forward

    def noted(self, x, position_ids, **named):
        out = forward(self, x, position_ids, **named)
        calls.append((position_ids, out[0]))
        return out

    monkeypatch.setattr(rotary, "forward", noted)
    with torch.no_grad():
        model(**inputs)
    (places, of_text), (own, of_audio) = calls
    at = places[0].tolist().index(int(own[0, 0]))
    torch.testing.assert_close(of_audio[0, 0], of_text[0, at])


@pytest.mark.parametrize(
    "options", [{"kind": "prepend"}, {}, {"own_projections": True}, {"kind": "cross", "gate": 1.0}]
)
def test_a_decoder_held_in_bf16_hears_streams_in_float32(options):
    whole = tiny_model(streams=[stream(**options)])
    inputs, labels = batch(whole)
    lower = tiny_model(streams=[stream(**options)])
    lower.language_model.to(torch.bfloat16)
    with torch.no_grad():
        torch.testing.assert_close(lower(**inputs).logits.float(), whole(**inputs).logits, atol=0.05, rtol=0.05)
    lower.train()
    lower(**inputs, labels=labels).loss.backward()
    learned = [p.grad for p in lower.streams.ear.connector.parameters()]
    assert all(grad is not None and grad.dtype == torch.float32 and bool(grad.isfinite().all()) for grad in learned)


def test_a_decoder_taken_over_in_bf16_keeps_its_rotations():
    """Transformers reads it so; in bf16 the angle of a late position would be off by a radian."""
    torch.manual_seed(0)
    decoder = AutoModelForCausalLM.from_config(tiny_decoder_config(), dtype=torch.bfloat16)
    exact = decoder.model.rotary_emb.inv_freq.clone()
    config = AudioLMConfig(decoder.config, [stream()], audio_token_id=MARKER, audio_slot_id=SLOT)
    model = AudioLM.new(config, decoder)
    assert model.language_model.lm_head.weight.dtype == torch.bfloat16
    assert exact.dtype == torch.float32
    assert torch.equal(model.language_model.model.rotary_emb.inv_freq, exact)


@pytest.mark.parametrize("decoder", ["llama", "gemma3"])
def test_prepended_audio_is_as_large_as_text(decoder):
    """Gemma scales its embeddings on the way out of the table."""
    model = tiny_model(decoder, [stream(kind="prepend")])
    audio, lengths = clips(1.0)
    with torch.no_grad():
        rows = model.connect(model.encode(audio, lengths))["ear"].values
        words = model.get_input_embeddings()(torch.arange(3, 290))
    assert 0.5 < rows.pow(2).mean().sqrt() / words.pow(2).mean().sqrt() < 2


def test_audio_without_a_place_in_the_text_is_refused_and_a_slot_that_is_said_is_not():
    model = tiny_model(streams=[stream(kind="prepend")])
    inputs, _ = batch(model, [(2, "a", 4)])
    without = inputs["input_ids"] == SLOT
    short = {**inputs, "input_ids": inputs["input_ids"][~without][None], "attention_mask": None}
    with pytest.raises(DataError, match="0 audio slots"):
        model(**short)

    class Slot:
        def __call__(self, ids, scores):
            return torch.full_like(scores, -1e9).index_fill(1, torch.tensor([SLOT]), 0.0)

    settings = {"max_new_tokens": 3, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    out = model.generate(**inputs, **settings, logits_processor=[Slot()])
    assert out[0, -3:].tolist() == [SLOT] * 3
