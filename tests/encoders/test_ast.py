"""AST against transformers."""

from __future__ import annotations

import pytest
import torch
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification, ASTModel

from ossicle.encoders.base import build_encoder
from ossicle.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


def _load(folder, **fields):
    encoder = build_encoder({"kind": "ast", "pretrained": str(folder), **fields}).eval()
    encoder.load_pretrained()
    return encoder


def _time_major(tokens: torch.Tensor, steps: int) -> torch.Tensor:
    """Reorder patches one by one: the network's index is frequency · steps + time."""
    rows = [tokens[:, 2 + frequency * steps + time] for time in range(steps) for frequency in range(12)]
    return torch.stack(rows, 1)


@pytest.mark.parametrize("head", [ASTModel, ASTForAudioClassification])
def test_equals_transformers_for_one_full_window(publish, noise, head):
    model = head(ASTConfig(**TINY))
    folder = publish(model)
    ASTFeatureExtractor(mean=-4.0, std=4.0).save_pretrained(folder)
    encoder = _load(folder)
    assert encoder.model.config._attn_implementation == "sdpa"
    clip = noise(encoder.config.window_samples)
    extractor = ASTFeatureExtractor(mean=-4.0, std=4.0)
    fbank = extractor(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    network = model if head is ASTModel else model.audio_spectrogram_transformer
    with torch.no_grad():
        got = encoder(clip[None], torch.tensor([len(clip)])).values
        want = _time_major(network(fbank).last_hidden_state, 101)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


def test_a_shorter_window_takes_the_first_steps(publish, noise):
    model = ASTModel(ASTConfig(**TINY))
    encoder = _load(publish(model), window_s=2.0)
    steps = encoder.config.grid[1]
    assert encoder.config.grid == (12, 19)
    small = ASTModel(ASTConfig(**TINY, max_length=198)).eval()
    state = model.state_dict()
    table = state["embeddings.position_embeddings"]
    kept = [0, 1] + [2 + frequency * 101 + time for frequency in range(12) for time in range(steps)]
    small.load_state_dict(state | {"embeddings.position_embeddings": table[:, kept]})
    clip = noise(32_000)
    fbank = ASTFeatureExtractor(max_length=198)(clip.numpy(), sampling_rate=16_000, return_tensors="pt").input_values
    with torch.no_grad():
        got = encoder(clip[None], torch.tensor([len(clip)])).values
        want = _time_major(small(fbank).last_hidden_state, steps)
    torch.testing.assert_close(got, want, atol=2e-5, rtol=1e-5)


def test_frequency_mean_leaves_one_token_per_step(noise):
    spec = {"kind": "ast", "architecture": TINY, "window_s": 2.0}
    full, pooled = build_encoder(spec).eval(), build_encoder({**spec, "frequency_mean": True}).eval()
    pooled.load_state_dict(full.state_dict())
    clip = noise(20_000)[None]
    with torch.no_grad():
        tokens, means = full(clip, torch.tensor([20_000])).values, pooled(clip, torch.tensor([20_000])).values
    torch.testing.assert_close(means, tokens.reshape(1, -1, 12, 16).mean(2))
    assert pooled.facts.rate_hz == pytest.approx(full.facts.rate_hz / 12)


def test_a_window_of_less_than_a_patch_is_refused():
    with pytest.raises(ConfigError, match=r"0\.175 s"):
        build_encoder({"kind": "ast", "architecture": TINY, "window_s": 0.1})
