"""`export`: the same answers from the folder it writes, adapters folded in, nothing half-written."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from ossicle.cli.app import run


def test_the_exported_model_is_the_same_model(tiny_model, tmp_path, capsys):
    assert run(["export", str(tiny_model), "--out", str(tmp_path / "new" / "plain"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["path"] == str(tmp_path / "new" / "plain")
    assert result["bytes"] == sum(path.stat().st_size for path in (tmp_path / "new" / "plain").iterdir())
    from ossicle.model import AudioLM

    there, here = AudioLM.from_pretrained(tmp_path / "new" / "plain"), AudioLM.from_pretrained(tiny_model)
    assert all(torch.equal(a, b) for a, b in zip(there.state_dict().values(), here.state_dict().values(), strict=True))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["plain"]


def test_the_decoder_alone_is_read_by_transformers(tiny_model, tmp_path, capsys):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    assert run(["export", str(tiny_model), "--out", str(tmp_path / "lm"), "--decoder-only"]) == 0
    decoder = AutoModelForCausalLM.from_pretrained(tmp_path / "lm")
    ids = AutoTokenizer.from_pretrained(tmp_path / "lm")("hello", return_tensors="pt").input_ids
    assert decoder(ids).logits.isfinite().all()


def test_the_decoder_alone_answers_as_the_model_is_set_to(tiny_model, tmp_path):
    from transformers import GenerationConfig

    from ossicle.inference.export import export

    settings = {"eos_token_id": [2, 7], "do_sample": True, "temperature": 0.6, "top_p": 0.9}
    model = tmp_path / "model"
    shutil.copytree(tiny_model, model)
    GenerationConfig(**settings).save_pretrained(model)
    for name, alone in (("whole", False), ("lm", True)):
        kept = GenerationConfig.from_pretrained(export(model, tmp_path / name, decoder_only=alone)).to_dict()
        assert {key: kept[key] for key in settings} == settings


def test_adapters_are_folded_in(tiny_model):
    peft = pytest.importorskip("peft")
    from ossicle.inference.export import merge_adapters
    from ossicle.model import AudioLM

    model = AudioLM.from_pretrained(tiny_model)
    plain = set(model.state_dict())
    peft.inject_adapter_in_model(peft.LoraConfig(target_modules=["q_proj", "v_proj"]), model.language_model)
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    ids = torch.arange(8)[None]
    before = model.eval()(ids).logits
    assert merge_adapters(model) == 4
    assert set(model.state_dict()) == plain
    torch.testing.assert_close(model(ids).logits, before, atol=1e-5, rtol=1e-5)


def test_a_folder_with_something_in_it_is_left_alone(tiny_model, tmp_path, capsys):
    (tmp_path / "kept.txt").write_text("mine")
    assert run(["export", str(tiny_model), "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "kept.txt").read_text() == "mine"
