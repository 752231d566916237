"""CLAP's tower against transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import ClapAudioConfig, ClapAudioModel, ClapConfig, ClapFeatureExtractor, ClapModel

from ossicle.audio.features import upsample
from ossicle.encoders.base import build_encoder
from ossicle.errors import ConfigError

TINY = {
    "patch_embeds_hidden_size": 8,
    "hidden_size": 32,
    "depths": [1, 1, 1],
    "num_attention_heads": [2, 2, 2],
    "num_hidden_layers": 3,
    "spec_size": 128,
    "num_mel_bins": 32,
}
TEXT = {
    "vocab_size": 32,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 8,
    "max_position_embeddings": 8,
}


def _extractor(fused: bool) -> ClapFeatureExtractor:
    return ClapFeatureExtractor(
        feature_size=32, max_length_s=5, frequency_min=100, truncation="fusion" if fused else "rand_trunc"
    )


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("samples", [80_000, 30_000])
def test_equals_transformers(publish, noise, fused, samples):
    architecture = {**TINY, "enable_fusion": fused, **({"fusion_type": "aff_2d"} if fused else {})}
    model = ClapModel(ClapConfig(audio_config=architecture, text_config=TEXT, projection_dim=8))
    folder = publish(model)
    _extractor(fused).save_pretrained(folder)
    encoder = build_encoder({"kind": "clap", "pretrained": str(folder)}).eval()
    encoder.load_pretrained()
    assert encoder.facts.max_seconds == 5.0
    assert encoder.facts.sample_rate_hz == 48_000
    clip = noise(samples)
    high = upsample(clip[None].double(), 3)[0].numpy()
    features = _extractor(fused)(high, sampling_rate=48_000, return_tensors="pt").input_features.float()
    with torch.no_grad():
        got = encoder(clip[None], torch.tensor([samples])).values
        output = model.audio_model(features, is_longer=torch.zeros(1, 1, dtype=torch.bool)).last_hidden_state
    steps = -(-samples * 32 // 80_000)
    rows = [output[0, :, frequency, time] for time in range(steps) for frequency in range(2)]
    torch.testing.assert_close(got[0], torch.stack(rows), atol=5e-5, rtol=1e-4)


def test_a_tower_alone_is_published_too(publish, noise):
    model = ClapAudioModel(ClapAudioConfig(**TINY))
    encoder = build_encoder({"kind": "clap", "pretrained": str(publish(model))}).eval()
    encoder.load_pretrained()
    for name, value in model.state_dict().items():
        assert torch.equal(encoder.model.state_dict()[name], value), name


def test_stages_are_averaged_to_the_last_grid(noise):
    encoder = build_encoder({"kind": "clap", "architecture": TINY, "layers": [0, 2]}).eval()
    last = build_encoder({"kind": "clap", "architecture": TINY, "layers": [2]}).eval()
    last.load_state_dict(encoder.state_dict())
    clip = noise(80_000)[None]
    with torch.no_grad():
        both = encoder(clip, torch.tensor([80_000])).values
        deep = last(clip, torch.tensor([80_000])).values
    assert (encoder.facts.dim, encoder.facts.num_layers) == (8 + 32, 1)
    torch.testing.assert_close(both[..., 8:], deep)
    # The first stage is four times finer each way; its image holds stretch 1 of time under stretch 0.
    ramp = torch.arange(32.0)[None, None, None].expand(1, 8, 32, 32).clone()
    ramp[:, :, 8:] += 100 * (torch.arange(24) // 8 + 1)[:, None]
    tokens = encoder._tokens(ramp)[0, :, 0].unflatten(0, (32, 2))
    assert tokens[:, 0].tolist() == [100 * stretch + 4 * column + 1.5 for stretch in range(4) for column in range(8)]
    assert torch.equal(tokens[:, 0], tokens[:, 1])


def test_a_window_wider_than_the_image_is_refused():
    with pytest.raises(ConfigError, match="width of its image"):
        build_encoder({"kind": "clap", "window_s": 20})
