"""Whisper against transformers and against LTU-AS's numbers."""

from __future__ import annotations

import pytest
import torch
from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration
from transformers.models.whisper.modeling_whisper import WhisperEncoder as Network

from ossicle.audio.features import ltu_whisper_log_mel
from ossicle.encoders.base import build_encoder
from ossicle.errors import CheckpointError, ConfigError

TINY = {
    "d_model": 16,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "num_mel_bins": 80,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 8,
    "vocab_size": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "max_target_positions": 8,
}


def _published(publish):
    model = WhisperForConditionalGeneration(WhisperConfig(**TINY))
    return model, publish(model)


def _load(folder, **fields):
    encoder = build_encoder({"kind": "whisper", "pretrained": str(folder), **fields}).eval()
    encoder.load_pretrained()
    return encoder


@pytest.mark.parametrize("layers", ["last", "all", [1]])
def test_equals_transformers_for_one_full_window(publish, noise, layers):
    model, folder = _published(publish)
    encoder = _load(folder, layers=layers)
    assert encoder.model.config._attn_implementation == "sdpa"
    clip = noise(30 * 16_000)
    mel = WhisperFeatureExtractor()(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_features
    with torch.no_grad():
        got = encoder(clip[None], torch.tensor([len(clip)])).values
        output = model.model.encoder(mel, output_hidden_states=True)
        by_hand = {"last": output.last_hidden_state}
        states, taps = model.model.encoder.conv2(torch.nn.functional.gelu(model.model.encoder.conv1(mel))), []
        states = torch.nn.functional.gelu(states).transpose(1, 2) + model.model.encoder.embed_positions.weight
        for block in model.model.encoder.layers:
            states = block(states, None)
            taps.append(states)
    want = by_hand["last"] if layers == "last" else torch.cat(taps if layers == "all" else [taps[1]], -1)
    assert got.shape == (1, 1500, encoder.facts.dim)
    torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-5)


def test_a_shorter_window_takes_the_first_positions(publish, noise):
    model, folder = _published(publish)
    encoder = _load(folder, window_s=10, pool=20)
    small = Network(WhisperConfig(**{**TINY, "max_source_positions": 500})).eval()
    state = model.model.encoder.state_dict()
    small.load_state_dict(state | {"embed_positions.weight": state["embed_positions.weight"][:500]})
    clip = noise(4 * 16_000)
    mel = WhisperFeatureExtractor(chunk_length=10)(clip.numpy(), sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        got = encoder(clip[None], torch.tensor([len(clip)]))
        want = small(mel.input_features).last_hidden_state.reshape(1, 25, 20, 16).mean(2)[:, :10]
    assert encoder.facts.rate_hz == 2.5
    assert encoder.facts.max_seconds == 10
    torch.testing.assert_close(got.values, want, atol=1e-5, rtol=1e-5)


def test_the_resolved_config_stands_alone(publish):
    _, folder = _published(publish)
    config = build_encoder({"kind": "whisper", "pretrained": str(folder), "window_s": 5}).config
    spec = config.model_dump() | {"pretrained": None}
    assert spec["architecture"]["d_model"] == 16
    assert build_encoder(spec).facts == config.facts()


def test_a_window_beyond_the_positions_is_refused(publish):
    _, folder = _published(publish)
    with pytest.raises(CheckpointError, match="window_s may be at most"):
        _load(folder, window_s=40)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"pool": 7}, "divisor"),
        ({"architecture": {"dmodel": 8}}, "did you mean 'd_model'"),
        ({"window_s": 0.001}, "at least 0.02 s"),
        ({"compat": "LTU"}, "compat"),
    ],
)
def test_settings_that_do_not_fit(fields, message):
    with pytest.raises(ConfigError, match=message):
        build_encoder({"kind": "whisper", **fields})


def test_a_block_that_is_not_there():
    with pytest.raises(ConfigError, match="blocks 0 to 3"):
        build_encoder({"kind": "whisper", "layers": [4]})


@pytest.mark.parametrize("clip", ["short", "long"])
def test_taps_of_ltu_as(golden_root, clip):
    from safetensors.torch import load_file

    golden = load_file(golden_root / "ltu" / "ltuas_whisper_taps.safetensors")
    samples = load_file(golden_root / "ltu" / "clips.safetensors")[clip][None] / 32768
    architecture = {**TINY, "d_model": 64, "encoder_layers": 4, "encoder_attention_heads": 4, "encoder_ffn_dim": 256}
    encoder = build_encoder(
        {"kind": "whisper", "window_s": 10, "pool": 20, "layers": "all", "compat": "ltu", "architecture": architecture}
    ).eval()
    prefix = "weights.encoder."
    weights = {name.removeprefix(prefix): value for name, value in golden.items() if name.startswith(prefix)}
    encoder.model.load_state_dict(_transformers_names(weights))
    with torch.no_grad():
        tokens = encoder(samples, torch.tensor([samples.shape[1]]))
    got = tokens.values[0].unflatten(-1, (4, 64)).transpose(0, 1)
    assert not encoder.facts.windowed
    assert encoder.config.num_tokens(samples.shape[1]) == 25 == tokens.valid.sum()
    assert (got - golden[f"{clip}.features"]).abs().max() < 5e-5
    starts = []
    encoder.model.layers[0].register_forward_pre_hook(lambda block, args: starts.append(args[0]))
    with torch.no_grad():
        from_mel = encoder.encode_features(golden[f"{clip}.log_mel"][None])[0].unflatten(-1, (4, 64)).transpose(0, 1)
    assert (from_mel - golden[f"{clip}.features"]).abs().max() < 1e-5
    dropped = starts[0][0].unflatten(0, (25, 20)).mean(1)  # the map before the first block, which is no tap
    assert (dropped - golden[f"{clip}.dropped_block_input_pooled"]).abs().max() < 1e-5
    assert (from_mel[0] - dropped).abs().max() > 0.1
    whole = ltu_whisper_log_mel(samples, torch.tensor([samples.shape[1]]), num_mels=80, num_frames=3000)
    frames = int(golden[f"{clip}.log_mel_frames_before_pad"])
    assert whole[0, :, frames:].eq(0).all() and whole[0, :, frames - 1].ne(0).any()
    assert (whole.max() - golden[f"{clip}.log_mel_max_before_crop"]).abs() < 5e-5


def _transformers_names(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renames = {
        "blocks.": "layers.",
        "positional_embedding": "embed_positions.weight",
        "ln_post": "layer_norm",
        "attn_ln": "self_attn_layer_norm",
        "mlp_ln": "final_layer_norm",
        "attn.query": "self_attn.q_proj",
        "attn.key": "self_attn.k_proj",
        "attn.value": "self_attn.v_proj",
        "attn.out": "self_attn.out_proj",
        "mlp.0": "fc1",
        "mlp.2": "fc2",
    }
    found = {}
    for name, value in weights.items():
        renamed = name
        for old, new in renames.items():
            renamed = renamed.replace(old, new)
        found[renamed] = value[:500] if name == "positional_embedding" else value
    return found
