"""`cnn`: token counts, padding and batch invariance, gradients, edges."""

from __future__ import annotations

import math

import pytest
import torch

from ossicle.encoders.base import build_encoder
from ossicle.encoders.cnn import CnnConfig, CnnEncoder
from ossicle.errors import ConfigError


def tiny(**settings: object) -> CnnEncoder:
    torch.manual_seed(0)
    encoder = CnnEncoder(CnnConfig(channels=(4, 4, 8, 8), dim=16, depth=2, heads=2, num_mels=32, **settings)).eval()
    for module in encoder.modules():  # as after training: zeros are no fixed point
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            torch.nn.init.normal_(module.bias, 0.2, 0.5)
    return encoder


def test_silence_is_what_padding_is() -> None:
    mel, counts = tiny().log_mel(torch.zeros(2, 800), torch.tensor([800, 161]))
    assert mel.shape == (2, 5, 32) and counts.tolist() == [5, 2]
    assert mel.abs().max() < 1e-6


@pytest.mark.parametrize("layers", ["last", "all", [0, -1]])
def test_counts_are_exact_and_padding_and_batch_do_not_matter(layers: object) -> None:
    encoder = tiny(layers=layers, window_s=1.0)
    lengths = torch.tensor([1, 159, 161, 1280, 1281, 16000, 16001, 40000])
    audio = torch.randn(len(lengths), 41000, generator=torch.Generator().manual_seed(2)) * 0.2
    for row, length in enumerate(lengths):
        audio[row, length:] = 0
    with torch.no_grad():
        together = encoder(audio, lengths)
        for row, length in enumerate(lengths.tolist()):
            alone = encoder(audio[row : row + 1, :length], lengths[row : row + 1])
            count = encoder.config.num_tokens(length)
            assert alone.values.shape == (1, count, encoder.facts.dim)
            assert int(together.counts()[row]) == count
            torch.testing.assert_close(together.values[row, :count], alone.values[0], atol=2e-5, rtol=1e-4)
    assert together.rate_hz == 12.5


def test_a_norm_within_its_convolution_is_the_norm_after_it() -> None:
    """Without gradients the two are one; the norm's scale too, and padding after it stays zero."""
    encoder = tiny()
    for module in encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.3, 2)
    audio, lengths = (
        torch.randn(2, 16000, generator=torch.Generator().manual_seed(4)) * 0.2,
        torch.tensor([16000, 7000]),
    )
    apart = encoder(audio, lengths).values.detach()
    with torch.no_grad():
        torch.testing.assert_close(encoder(audio, lengths).values, apart, atol=1e-5, rtol=1e-5)


def test_a_sound_changes_only_tokens_of_its_own_window() -> None:
    encoder = tiny(window_s=1.0)
    audio = torch.randn(1, 32000, generator=torch.Generator().manual_seed(3)) * 0.1
    changed = audio.clone()
    changed[0, 20000:24000] *= 5
    with torch.no_grad():
        first, second = (encoder(x, torch.tensor([32000])).values[0] for x in (audio, changed))
    assert torch.equal(first[:13], second[:13])
    assert (first[13:] - second[13:]).abs().max() > 1e-5


def test_every_parameter_learns_and_the_future_batch_does_not() -> None:
    encoder = tiny().train()
    audio = (torch.randn(2, 16000) * 0.1).requires_grad_()
    encoder(audio, torch.tensor([16000, 8000])).values[:, :3].square().sum().backward()
    assert all(p.grad is not None and math.isfinite(p.grad.norm()) for p in encoder.parameters())
    assert audio.grad is not None and audio.grad[1, 8200:].abs().max() == 0


def test_defaults_are_nanos() -> None:
    encoder = build_encoder({"kind": "cnn"})
    assert (encoder.facts.dim, encoder.facts.rate_hz, encoder.facts.max_seconds) == (192, 12.5, 10.0)
    assert sum(p.numel() for p in encoder.parameters()) < 1.6e6


def test_starts_from_the_encoder_of_a_model(tmp_path):
    from safetensors.torch import save_file

    sizes = {"kind": "cnn", "channels": [4, 4, 8, 8], "dim": 16, "depth": 2, "heads": 2, "num_mels": 16}
    there, here = build_encoder(sizes), build_encoder({**sizes, "pretrained": str(tmp_path)})
    state = {f"streams.audio.encoder.{name}": value for name, value in there.state_dict().items()}
    save_file({**state, "language_model.lm_head.weight": torch.ones(2, 2)}, tmp_path / "model.safetensors")
    here.load_pretrained()
    assert all(torch.equal(value, here.state_dict()[name]) for name, value in there.state_dict().items())


def test_a_layer_out_of_range_is_named():
    with pytest.raises(ConfigError, match="layers holds 7; this encoder has blocks 0 to 1"):
        build_encoder({"kind": "cnn", "layers": [7]})


def test_it_starts_from_an_encoder_that_a_model_has(tmp_path):
    from ossicle.errors import CheckpointError
    from ossicle.inference.engine import load

    encoder = build_encoder({"kind": "cnn", "pretrained": "nano#sound"}).eval()
    encoder.load_pretrained()
    audio, lengths = torch.randn(1, 16_000, generator=torch.Generator().manual_seed(0)), torch.tensor([16_000])
    taught = load("nano", device="cpu", dtype="fp32").model.streams["sound"].encoder.eval()
    with torch.no_grad():
        torch.testing.assert_close(encoder(audio, lengths).values, taught(audio, lengths).values, rtol=1e-3, atol=1e-3)
    for name, changes, said in (
        ("nano#souns", {}, "no stream 'souns'"),
        (f"{tmp_path}#sound", {}, "expected MODEL#STREAM"),
        ("nano#sound", {"depth": 1}, "do not fit"),
    ):
        with pytest.raises(CheckpointError, match=said):
            build_encoder({"kind": "cnn", "pretrained": name, **changes}).load_pretrained()
