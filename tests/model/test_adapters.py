"""LoRA on decoder and encoder: the audio path sees it, merging keeps the answers; bf16 works."""

from __future__ import annotations

import pytest
import torch

from integration.tiny_models import clips, stream, text, tiny_model
from ossicle.training import lora

peft = pytest.importorskip("peft")

SETUPS = {
    "attend": ("llama", [stream()]),
    "attend-fused": ("phi3", [stream()]),
    "prepend": ("llama", [stream(kind="prepend")]),
}


def adapted(name):
    decoder, streams = SETUPS[name]
    model = tiny_model(decoder, streams)
    heads = "q_proj|k_proj|v_proj|o_proj|qkv_proj"
    targets = rf"language_model\..*\.({heads})|streams\.ear\.encoder\.blocks\..*\.(qkv|out)"
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=targets, init_lora_weights=False)
    torch.manual_seed(3)
    return model, peft.get_peft_model(model, config)


def batch(model):
    audio, lengths = clips(0.7, 0.4)
    ids, mask = text(model, [[3, "a", 9], [2, "a", 4]], lengths)
    return {"input_ids": ids, "attention_mask": mask, "audio_values": audio, "audio_lengths": lengths}


@pytest.mark.parametrize("name", SETUPS)
def test_merged_equals_adapted_and_differs_from_base(name):
    model, wrapped = adapted(name)
    inputs = batch(model)
    with torch.no_grad():
        with wrapped.disable_adapter():
            base = wrapped(**inputs).logits
        lora = wrapped.eval()(**inputs).logits
        merged = wrapped.merge_and_unload()(**inputs).logits
    assert (lora - base).abs().max() > 1e-3
    torch.testing.assert_close(merged, lora, atol=1e-3, rtol=1e-3)


def test_audio_keys_see_the_adapter():
    model, wrapped = adapted("attend")
    inputs = batch(model)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    for layer in model.get_decoder().layers:
        for name in ("q_proj", "o_proj"):
            getattr(layer.self_attn, name).requires_grad_(False)
    wrapped.train()
    wrapped(**inputs, labels=labels).loss.backward()
    trained = {n for n, p in wrapped.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in n for n in trained)
    silent = [n for n, p in wrapped.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert silent == []


def test_adapter_alone_is_saved_and_read_back(tmp_path):
    model, wrapped = adapted("attend")
    inputs = batch(model)
    wrapped.eval().save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin")) and (tmp_path / "adapter_model.safetensors").exists()
    decoder, streams = SETUPS["attend"]
    again = peft.PeftModel.from_pretrained(tiny_model(decoder, streams), tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, wrapped(**inputs).logits, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("kind", ["attend", "prepend", "cross"])
def test_bf16_is_near_fp32(kind):
    model = tiny_model(streams=[stream(kind=kind)])
    inputs = batch(model)
    real = inputs["attention_mask"].bool()
    with torch.no_grad():
        full = model(**inputs).logits[real]
        half = model.to(torch.bfloat16)(**inputs).logits.float()[real]
    assert half.isfinite().all()
    assert (half - full).abs().mean() < 0.05 * full.abs().mean()


def test_adapters_on_a_bf16_decoder_are_held_in_float32():
    """In bf16 most steps of 1e-4 round to nothing, and moments decayed by .999 never fall."""
    model = tiny_model().to(torch.bfloat16)
    inputs = batch(model)
    tuners = lora.add(model, {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]}, ["language_model"])
    adapters = {name: p for name, p in model.named_parameters() if "lora_" in name}
    assert adapters and {p.dtype for p in adapters.values()} == {torch.float32}
    out = model(**inputs, labels=inputs["input_ids"])
    out.loss.backward()
    grads = [p.grad for name, p in adapters.items() if "lora_B" in name]
    assert all(grad is not None and grad.dtype == torch.float32 and grad.abs().sum() > 0 for grad in grads)
    lora.fold(tuners)
    assert {p.dtype for p in model.language_model.parameters()} == {torch.bfloat16}
