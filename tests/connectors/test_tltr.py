"""TLTR against the numbers of the official code."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ossicle.connectors.base import build_connector
from ossicle.connectors.tltr import Float32LayerNorm
from ossicle.types import AudioTokens, EncoderFacts

PLAIN = {"kind": "tltr", "time_embedding": False, "output_norm": False}


def _tokens(layers: torch.Tensor) -> AudioTokens:
    """(C, L, N, D) layers → tokens of width L·D."""
    values = layers.transpose(1, 2).flatten(2)
    return AudioTokens(values=values, valid=torch.ones(values.shape[:2], dtype=torch.bool), rate_hz=2.5)


def _facts(layers: torch.Tensor) -> EncoderFacts:
    return EncoderFacts(dim=layers.shape[1] * layers.shape[3], rate_hz=2.5, num_layers=layers.shape[1])


def _weights(golden: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    names = {"audio_encoder.": "", "audio_proj.": "projection."}
    found = {}
    for name, value in golden.items():
        if name.startswith(prefix):
            renamed = name.removeprefix(prefix)
            for old, new in names.items():
                renamed = renamed.replace(old, new)
            found[renamed] = value
    return found


def test_parameter_count_of_ltu_as():
    facts = EncoderFacts(dim=32 * 1280, rate_hz=2.5, num_layers=32)
    with torch.device("meta"):
        connector = build_connector(PLAIN, facts, 4096)
    projection = sum(parameter.numel() for parameter in connector.projection.parameters())
    assert projection == 5_246_976
    assert sum(parameter.numel() for parameter in connector.parameters()) - projection == 39_352_320


@pytest.mark.parametrize("case", [0, 1, 2])
def test_equals_the_official_blocks(golden_root, case):
    golden = load_file(golden_root / "ltu" / "ltuas_tltr.safetensors")
    layers, want = golden[f"case{case}.input"], golden[f"case{case}.proj_output"]
    connector = build_connector(PLAIN, _facts(layers), want.shape[-1])
    connector.load_state_dict(_weights(golden, f"case{case}.weights."))
    with torch.no_grad():
        fused = connector.fuse(_tokens(layers))
        got = connector(_tokens(layers)).values
        small = connector.projection(golden[f"case{case}.proj_small_input"])
    assert (fused - golden[f"case{case}.output"]).abs().max() < 1e-5
    assert (got - want).abs().max() < 1e-5
    assert (small - golden[f"case{case}.proj_small_output"]).abs().max() < 1e-5


def test_equals_the_official_smaller_width(golden_root):
    """The tagger averages over time between the blocks and ends in a classifier; its parts are ours."""
    golden = load_file(golden_root / "ltu" / "whisper_at_taggers.safetensors")
    prefix = "lw_down_tr_32_1_8."
    layers = golden["input"]
    connector = build_connector({**PLAIN, "inner": 32}, _facts(layers), 5)
    weights = _weights(golden, f"{prefix}weights.")
    loaded = connector.load_state_dict(weights, strict=False)
    assert all(name.startswith("projection") for name in loaded.missing_keys)
    assert all(name.startswith("mlp_layer") for name in loaded.unexpected_keys)
    with torch.no_grad():
        states = connector.time_tr(connector.down_layer(layers).flatten(0, 1)).mean(1).unflatten(0, (3, 6))
        mixed = connector.layer_tr(states).mean(1)
        normed = torch.nn.functional.layer_norm(
            mixed, (32,), weights["mlp_layer.0.weight"], weights["mlp_layer.0.bias"]
        )
        got = normed @ weights["mlp_layer.1.weight"].T + weights["mlp_layer.1.bias"]
    assert (got - golden[f"{prefix}output"]).abs().max() < 1e-5


def test_from_whisper_taps_to_audio_tokens(golden_root):
    golden = load_file(golden_root / "ltu" / "ltuas_whisper_taps.safetensors")
    for clip in ("short", "long"):
        layers = golden[f"{clip}.features"][None]
        connector = build_connector(PLAIN, _facts(layers), 80)
        weights = _weights(golden, "weights.")
        connector.load_state_dict({name: value for name, value in weights.items() if not name.startswith("encoder.")})
        with torch.no_grad():
            got = connector(_tokens(layers)).values[0]
        assert (got - golden[f"{clip}.audio_tokens"]).abs().max() < 1e-5


def test_half_precision_keeps_norms_in_float32():
    norm = Float32LayerNorm(32).to(torch.bfloat16)
    with torch.no_grad():
        norm.weight.normal_()
        norm.bias.normal_()
    values = (100 + torch.randn(4, 32)).to(torch.bfloat16)
    want = torch.nn.functional.layer_norm(values.float(), (32,), norm.weight.float(), norm.bias.float())
    assert torch.equal(norm(values), want.to(torch.bfloat16))
    connector = build_connector({**PLAIN, "heads": 4}, EncoderFacts(dim=64, rate_hz=2.5, num_layers=2), 8)
    assert (
        connector.to(torch.bfloat16)(_tokens(torch.randn(1, 2, 5, 32).to(torch.bfloat16))).values.dtype
        == torch.bfloat16
    )
