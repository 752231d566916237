"""LTU's audio branch against the official code's numbers."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from ossicle.encoders.base import build_encoder


@pytest.fixture
def golden(golden_root):
    return load_file(golden_root / "ltu" / "ltu_ast.safetensors")


@pytest.fixture
def encoder(golden, tmp_path):
    """The official weights, read from a published folder."""
    weights = {
        name.removeprefix("weights."): value.contiguous()
        for name, value in golden.items()
        if name.startswith("weights.")
    }
    save_file(weights, tmp_path / "model.safetensors")
    found = build_encoder({"kind": "ltu_ast", "dim": 32, "heads": 4, "pretrained": str(tmp_path)}).eval()
    found.load_pretrained()
    return found


def test_equals_the_official_tokens(golden_root, golden, encoder):
    clips = load_file(golden_root / "ltu" / "clips.safetensors")
    with torch.no_grad():
        got = encoder.encode_features(golden["short.input"])[0]
        assert (50 * got - golden["short.tokens_before_div50"]).abs().max() < 2e-5
        weight, bias = golden["weights.audio_proj.1.weight"], golden["weights.audio_proj.1.bias"]
        stored = torch.nn.functional.layer_norm(got[: len(golden["short.audio_tokens"])], (32,)) @ weight.T + bias
        assert (stored - golden["short.audio_tokens"]).abs().max() < 1e-5
        for clip in ("short", "long"):
            samples = (clips[clip] / 32768)[None, : encoder.config.window_samples]
            tokens = encoder(samples, torch.tensor([samples.shape[1]]))
            assert tokens.valid.sum() == 32
            normed = torch.nn.functional.layer_norm(tokens.values[0], (32,))
            assert (normed @ weight.T + bias - golden[f"{clip}.audio_tokens"]).abs().max() < 1e-4


def test_states_on_the_way_are_the_official_ones(golden_root, golden, encoder):
    from ossicle.audio.features import num_kaldi_frames
    from ossicle.encoders.ltu_ast import start_positions

    states = []
    hook = encoder.norm.register_forward_hook(lambda *call: states.append(call[2]))
    with torch.no_grad():
        got = encoder.encode_features(golden["short.input"])[0]
    hook.remove()
    assert (states[0][0] - golden["short.encoder_output"]).abs().max() < 2e-5
    assert (got - golden["short.tokens_after_div50"]).abs().max() < 1e-5
    clips = load_file(golden_root / "ltu" / "clips.safetensors")
    for clip in ("short", "long"):
        assert num_kaldi_frames(len(clips[clip])) == int(golden[f"{clip}.fbank_frames_before_pad"])
        samples = (clips[clip] / 32768)[None, : encoder.config.window_samples]
        with torch.no_grad():
            tokens = encoder(samples, torch.tensor([samples.shape[1]])).values[0]
        assert (tokens - golden[f"{clip}.tokens_after_div50"]).abs().max() < 1e-4
    assert (start_positions(32) - golden["sincos_position_init"]).abs().max() < 1e-5
    assert torch.equal(build_encoder({"kind": "ltu_ast", "dim": 32, "heads": 4}).positions[0], start_positions(32))


def test_all_layers_without_the_final_norm(golden, encoder):
    layered = build_encoder({"kind": "ltu_ast", "dim": 32, "heads": 4, "layers": "all"}).eval()
    layered.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        states = []
        hook = encoder.blocks[3].register_forward_hook(lambda *call: states.append(call[2]))
        encoder.encode_features(golden["short.input"])
        hook.remove()
        got = layered.encode_features(golden["short.input"])[0, :, 3 * 32 : 4 * 32]
    want = states[0].reshape(8, 32, 2, 32).mean((0, 2)) / 50
    torch.testing.assert_close(got, want, atol=1e-6, rtol=1e-5)
