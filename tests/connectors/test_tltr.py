"""TLTR against the numbers of the official code."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from ossicle.connectors.base import build_connector
from ossicle.connectors.tltr import Block, Float32LayerNorm
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


WHISPER_SIZES = {"large": (32, 1280), "medium": (24, 1024), "small": (12, 768), "base": (6, 512), "tiny": (4, 384)}
TAGGERS = [("large", None, 40.0), ("medium", None, 25.8), ("small", None, 14.6), ("base", None, 6.6)]
TAGGERS += [("tiny", None, 3.8), ("large", 512, 7.2), ("medium", 512, 7.1), ("small", 512, 6.9)]
"""Whisper, inner width, and the tagger's parameters in millions as Whisper-AT's page gives them."""


@pytest.mark.parametrize(("size", "inner", "millions"), TAGGERS)
def test_a_tagger_for_any_whisper_has_the_published_size(size, inner, millions):
    layers, width = WHISPER_SIZES[size]
    facts = EncoderFacts(dim=layers * width, rate_hz=2.5, num_layers=layers)
    with torch.device("meta"):
        connector = build_connector({**PLAIN, "inner": inner}, facts, 4096)
        head = torch.nn.Sequential(torch.nn.LayerNorm(inner or width), torch.nn.Linear(inner or width, 527))
    count = sum(p.numel() for name, p in connector.named_parameters() if not name.startswith("projection"))
    assert (
        abs((count + sum(p.numel() for p in head.parameters())) / 1e6 - millions) < 0.1
    )  # their page cuts, or rounds up


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
        after_time = connector.time_tr(layers.flatten(0, 1)).unflatten(0, layers.shape[:2])
    assert (after_time - golden[f"case{case}.time_tr_out"]).abs().max() < 1e-5
    assert (fused - golden[f"case{case}.output"]).abs().max() < 1e-5
    assert (got - want).abs().max() < 1e-5
    assert (small - golden[f"case{case}.proj_small_output"]).abs().max() < 1e-5


def _classified(mixed: torch.Tensor, weights: dict[str, torch.Tensor]) -> torch.Tensor:
    """The tagger's classifier: the head of the tagging objective."""
    width = mixed.shape[-1]
    head = torch.nn.Sequential(torch.nn.LayerNorm(width), torch.nn.Linear(width, 50))
    head.load_state_dict({n.removeprefix("mlp_layer."): v for n, v in weights.items() if n.startswith("mlp_layer.")})
    return head(mixed)


def _tagger(golden, mode, layers, weights):
    connector = build_connector({**PLAIN, "inner": 32 if "down" in mode else None}, _facts(layers), 5)
    loaded = connector.load_state_dict(weights, strict=False)
    assert all(name.startswith("projection") for name in loaded.missing_keys)
    assert all(name.startswith("mlp_layer") for name in loaded.unexpected_keys)
    return connector


@pytest.mark.parametrize("mode", ["lw_tr_1_8", "lw_down_tr_32_1_8"])
def test_tags_as_the_official_tagger(golden_root, mode):
    """Whisper-AT takes the mean over time before the layer block (`time_mean: before_layers`)."""
    golden = load_file(golden_root / "ltu" / "whisper_at_taggers.safetensors")
    weights = _weights(golden, f"{mode}.weights.")
    connector = _tagger(golden, mode, golden["input"], weights)
    with torch.no_grad():
        got = _classified(connector.fuse(_tokens(golden["input"]), mean_first=True)[:, 0], weights)
        after = _classified(connector.fuse(_tokens(golden["input"])).mean(1), weights)
    assert (got - golden[f"{mode}.output"]).abs().max() < 1e-5
    assert (after - golden[f"{mode}.output"]).abs().max() > 1e-2


@pytest.mark.parametrize(
    "mode", ["last_mlp", "mean_mlp", "wa_mlp", "wa_tr_1", "wa_down_tr_32_1", "last_tr_2", "mean_tr_4"]
)
def test_simpler_taggers_are_made_of_the_same_parts(golden_root, mode):
    golden = load_file(golden_root / "ltu" / "whisper_at_taggers.safetensors")
    weights = {n.removeprefix(f"{mode}.weights."): v for n, v in golden.items() if n.startswith(f"{mode}.weights.")}
    layers = golden["input"]
    if mode.startswith("wa"):
        share = weights["layer_weight"] / weights["layer_weight"].sum()
        states = (layers * share[:, None, None]).sum(1)
    else:
        states = layers[:, -1] if mode.startswith("last") else layers.mean(1)
    with torch.no_grad():
        if "down" in mode:
            down = torch.nn.Sequential(Float32LayerNorm(40), torch.nn.Linear(40, 32))
            down.load_state_dict({n.removeprefix("down_layer."): v for n, v in weights.items() if "down_layer" in n})
            states = down(states)
        if "tr" in mode.split("_"):
            block = Block(states.shape[-1], heads=int(mode.rsplit("_", 1)[1]))
            block.load_state_dict({n.removeprefix("time_tr."): v for n, v in weights.items() if "time_tr" in n})
            states = block(states)
        got = _classified(states.mean(1), weights)
    assert (got - golden[f"{mode}.output"]).abs().max() < 1e-5


@pytest.mark.parametrize("seconds", ["10", "4", "0.4"])
@pytest.mark.parametrize("mode", ["tl_tr_1_8", "tl_down_tr_32_1_8"])
def test_windows_of_a_long_clip_are_tagged_like_clips(golden_root, mode, seconds):
    """30 s in windows, the last one filled with zeros that count."""
    golden = load_file(golden_root / "ltu" / "whisper_at_segments.safetensors")
    steps = int(2.5 * float(seconds))
    layers = golden["input"]
    filled = torch.nn.functional.pad(layers, (0, 0, 0, -layers.shape[1] % steps))
    windows = filled.unflatten(1, (-1, steps)).transpose(0, 1)  # (W, L, steps, D)
    weights = _weights(golden, f"{mode}.weights.")
    connector = _tagger(golden, mode, windows, weights)
    with torch.no_grad():
        got = _classified(connector.fuse(_tokens(windows), mean_first=True)[:, 0], weights)
    assert (got - golden[f"{mode}.res{seconds}.output"]).abs().max() < 1e-5


def test_from_whisper_taps_to_audio_tokens(golden_root):
    golden = load_file(golden_root / "ltu" / "ltuas_whisper_taps.safetensors")
    for clip in ("short", "long"):
        layers = golden[f"{clip}.features"][None]
        connector = build_connector(PLAIN, _facts(layers), 80)
        weights = _weights(golden, "weights.")
        connector.load_state_dict({name: value for name, value in weights.items() if not name.startswith("encoder.")})
        with torch.no_grad():
            fused = connector.fuse(_tokens(layers))[0]
            got = connector(_tokens(layers)).values[0]
        assert (fused - golden[f"{clip}.tltr_output"]).abs().max() < 1e-5
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
