"""A decoder in four bits: near the full one, adapters train on it, and the model folder reads back the same."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipe import tiny

from integration.tiny_models import MARKER, SLOT, clips, stream, text
from ossicle.errors import ConfigError, MissingExtraError, UnsupportedError
from ossicle.model import AudioLM, AudioLMConfig
from ossicle.tiny import tiny_decoder_config
from ossicle.training import freeze, lora
from ossicle.training.quantize import QuantizationSpec, settings
from ossicle.training.shrink import shrink

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


def decoder(folder: Path, **options: Any) -> Any:
    """Return a small decoder from a folder, as `options` say."""
    from transformers import AutoModelForCausalLM

    if not folder.exists():
        torch.manual_seed(0)
        config = tiny_decoder_config(intermediate_size=128)  # rows of whole blocks of 64, which some CPUs' kernels want
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **options)


def hearing(language_model: Any, **options: Any) -> AudioLM:
    torch.manual_seed(1)
    config = AudioLMConfig(language_model.config, [stream(**options)], audio_token_id=MARKER, audio_slot_id=SLOT)
    return AudioLM.new(config, language_model).eval()


def batch(model: AudioLM) -> dict[str, Any]:
    audio, lengths = clips(0.7, 0.4)
    ids, mask = text(model, [[3, "a", 9], [2, "a", 4]], lengths)
    return {"input_ids": ids, "attention_mask": mask, "audio_values": audio, "audio_lengths": lengths}


@pytest.fixture
def four_bit(tmp_path: Path) -> AudioLM:
    pytest.importorskip("bitsandbytes")
    spec = QuantizationSpec(compute_dtype="float32")
    return hearing(decoder(tmp_path / "decoder", quantization_config=settings(spec)))


def test_it_is_near_the_full_decoder_and_only_linear_layers_are_held_so(four_bit: AudioLM, tmp_path: Path) -> None:
    full = hearing(decoder(tmp_path / "decoder"))
    full.streams.load_state_dict(four_bit.streams.state_dict())
    held = {name for name, p in four_bit.named_parameters() if not p.is_floating_point()}
    assert held and all(".layers." in name and "_proj" in name for name in held)
    with torch.no_grad():
        want, got = full(**batch(full)).logits, four_bit(**batch(four_bit)).logits
    difference = (got - want).norm() / want.norm()
    assert 1e-4 < difference < 0.5


def test_adapters_learn_on_it_and_nothing_else_moves(four_bit: AudioLM) -> None:
    pytest.importorskip("peft")
    lora.add(four_bit, {"r": 4, "lora_alpha": 8, "target_modules": ["k_proj", "v_proj"]}, ["language_model"])
    freeze.set_trainable(four_bit, ["lora", "connector"])
    four_bit.train()  # some CPUs pack the weights anew to answer
    inputs = batch(four_bit)
    labels = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)
    before = {name: p.detach().clone() for name, p in four_bit.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.AdamW([p for p in four_bit.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(8):
        loss = four_bit(**inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.1
    assert all(torch.equal(p, before[name]) for name, p in four_bit.named_parameters() if name in before)


def test_the_folder_reads_back_the_same(four_bit: AudioLM, tmp_path: Path) -> None:
    four_bit.save_pretrained(tmp_path / "model")
    again = AudioLM.from_pretrained(tmp_path / "model", dtype=torch.float32).eval()
    with torch.no_grad():
        torch.testing.assert_close(again(**batch(again)).logits, four_bit(**batch(four_bit)).logits)
    assert any(not p.is_floating_point() for p in again.parameters())


def test_what_four_bits_cannot_do_is_said(four_bit: AudioLM, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="4 bits"):
        freeze.set_trainable(four_bit, ["language_model"])
    held = decoder(tmp_path / "decoder", quantization_config=settings(QuantizationSpec()))
    with pytest.raises(UnsupportedError, match="own_projections"):
        hearing(held, own_projections=True)


def test_a_recipe_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="quantization"):
        tiny(tmp_path, "model.language_model.quantization.kind=nf4")
    wanted = ("model.language_model.pretrained=somewhere", "model.language_model.quantization.kind=fp4")
    loaded = tiny(tmp_path, *wanted)
    spec = loaded.recipe.model.language_model
    assert spec is not None and spec.quantization is not None and spec.quantization.kind == "fp4"
    small = shrink(loaded).recipe.model.language_model
    assert small is not None and small.quantization is None
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"ossicle\[train\]"):
        settings(spec.quantization)
