"""SSLAM against the official code's numbers, and against a plain loop."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from ossicle.encoders.base import build_encoder
from ossicle.encoders.sslam import our_name, sincos_positions
from ossicle.errors import CheckpointError, ConfigError


@pytest.fixture
def folder(golden_root, tmp_path):
    """The official weights as a published folder."""
    save_file(load_file(golden_root / "sslam" / "weights.safetensors"), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"embed_dim": 64, "depth": 2, "num_heads": 4}))
    return tmp_path


def _load(folder, **fields):
    encoder = build_encoder({"kind": "sslam", "pretrained": str(folder), **fields}).eval()
    encoder.load_pretrained()
    return encoder


@pytest.mark.parametrize(
    ("clip", "case"), [("esc10_long", "t1024"), ("ravdess_short", "t1024"), ("ravdess_short", "t304")]
)
def test_equals_the_official_features(golden_root, folder, clip, case):
    golden = load_file(golden_root / "sslam" / f"clip_{clip}.safetensors")
    frames = int(case[1:])
    encoder = _load(folder, frames=frames)
    fbank = golden["t1024.input"][None, :frames]
    wave = golden["wave_int16"].float()[None] / 32768
    with torch.no_grad():
        got = encoder.encode_features(fbank)[0]
        from_wave = encoder.encode_windows(wave, torch.tensor([wave.shape[1]]))[0]
        front = encoder.front_end(wave, torch.tensor([wave.shape[1]]))
    want = golden[f"{case}.features"][1:]
    assert (got - want).abs().max() < 2e-5
    assert (front - fbank).abs().max() < 1e-3
    assert (from_wave - want).abs().max() < 1e-3


def test_states_on_the_way(golden_root, folder):
    golden = load_file(golden_root / "sslam" / "clip_esc10_long.safetensors")
    encoder = _load(folder, layers="all")
    with torch.no_grad():
        got = encoder.encode_features(golden["t1024.input"][None])[0]
        patches = encoder.local_encoder(golden["t1024.input"][None]).flatten(1, 2)[0]
    assert (patches - golden["t1024.patch_embed"]).abs().max() < 2e-5
    assert (got[:, :64] - golden["t1024.block_0"][1:]).abs().max() < 2e-5
    assert (got[:, 64:] - golden["t1024.features"][1:]).abs().max() < 2e-5


def test_positions_are_the_official_ones(golden_root):
    weights = load_file(golden_root / "sslam" / "weights.safetensors")
    want = weights["modality_encoders.IMAGE.fixed_positional_encoder.positions"][0]
    assert (sincos_positions(len(want) // 8, 8, 64) - want).abs().max() < 1e-5


def test_the_size_of_a_clip_of_ten_seconds():
    config = build_encoder({"kind": "sslam", "dim": 64, "depth": 1, "heads": 4}).config
    assert config.num_tokens(160_000) == 8 * 63
    assert config.num_tokens(config.window_samples) == 512
    assert build_encoder({"kind": "sslam", "dim": 64, "depth": 1, "heads": 4, "window_s": 3.0}).config.steps == 19


def test_names():
    assert our_name("model.extra_tokens") == "extra_tokens"
    assert our_name("modality_encoders.IMAGE.local_encoder.proj.bias") == "local_encoder.proj.bias"
    assert our_name("model.pre_norm.weight") == "norm.weight"


def test_tensors_missing(folder):
    tensors = load_file(folder / "model.safetensors")
    del tensors["blocks.1.mlp.fc1.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"fc1\.weight"):
        _load(folder)


def test_settings_that_do_not_fit():
    with pytest.raises(ConfigError, match="multiple of heads"):
        build_encoder({"kind": "sslam", "dim": 64, "heads": 5})
    with pytest.raises(ConfigError, match="multiple of 16"):
        build_encoder({"kind": "sslam", "frames": 1000})
