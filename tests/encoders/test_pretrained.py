"""Reading published folders: strictly, from safetensors only, one line per mistake."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import ASTConfig, ASTForAudioClassification

from ossicle.encoders.base import build_encoder
from ossicle.errors import CheckpointError, UserError

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture
def folder(publish):
    return publish(ASTForAudioClassification(ASTConfig(**TINY, max_length=64)))


def _load(folder):
    encoder = build_encoder({"kind": "ast", "pretrained": str(folder)})
    encoder.load_pretrained()
    return encoder


def test_reports_what_it_left(folder, caplog):
    with caplog.at_level(logging.INFO, "ossicle"):
        _load(folder)
    assert "classifier" in caplog.text
    assert "unread" in caplog.text


def test_a_missing_tensor_is_an_error(folder):
    tensors = load_file(folder / "model.safetensors")
    gone = next(name for name in tensors if "query" in name or "q_proj" in name)
    save_file(
        {name: value for name, value in tensors.items() if name != gone}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(CheckpointError, match="1 tensors missing"):
        _load(folder)


def test_pickled_weights_are_not_read(folder):
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="no pickled weights"):
        _load(folder)


def test_another_family_is_an_error(folder):
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "bert"}))
    with pytest.raises(CheckpointError, match="is of type 'bert'"):
        build_encoder({"kind": "ast", "pretrained": str(folder)})


def test_a_folder_without_config(tmp_path):
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        build_encoder({"kind": "ast", "pretrained": str(tmp_path)})


@pytest.mark.parametrize("name", ["nobody/nothing-that-is", "/no/such/folder", "no such name"])
def test_a_name_that_cannot_be_had(name):
    with pytest.raises(UserError, match="is no local folder") as caught:
        build_encoder({"kind": "whisper", "pretrained": name})
    assert "\n" not in str(caught.value)
