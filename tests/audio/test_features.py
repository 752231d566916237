"""Front ends against transformers' extractors, and against their neighbours in a batch."""

from __future__ import annotations

import math

import numpy as np
import pytest
import soundfile
import torch
from transformers import ASTFeatureExtractor, ClapFeatureExtractor, Wav2Vec2FeatureExtractor, WhisperFeatureExtractor

from ossicle.audio import features

RATE = 16_000
pytestmark = pytest.mark.filterwarnings("ignore:At least one mel filter")


def _noise(samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    decay = torch.linspace(1, 0.01, samples)
    return 0.3 * torch.randn(samples, generator=generator) * decay


def _batch(*clips: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    padded = torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    return padded, torch.tensor([len(clip) for clip in clips])


@pytest.fixture(scope="module")
def clips(data_root) -> list[torch.Tensor]:
    """Twenty real clips of 0.1 to 35 s, cut from ESC-10 and two other sets laid end to end."""
    paths = [
        path
        for folder in ("esc10", "ravdess", "berklee_sounds", "emodb_2s")
        for path in sorted((data_root / folder).rglob("*"))
        if path.suffix in (".ogg", ".wav", ".mp3", ".flac")
    ][::9]
    seconds = np.geomspace(0.1, 35, 20)
    found = []
    for number, wanted in enumerate(seconds):
        pieces: list[np.ndarray] = []
        while sum(map(len, pieces)) < wanted * RATE:
            audio, rate = soundfile.read(paths[(7 * number + len(pieces)) % len(paths)], dtype="float32")
            audio = audio.mean(1) if audio.ndim == 2 else audio
            pieces.append(audio[:: max(1, round(rate / RATE))])
        found.append(torch.from_numpy(np.concatenate(pieces)[: round(wanted * RATE)].astype(np.float32)))
    return found


def test_whisper_equals_transformers(clips):
    for mels in (80, 128):
        extractor = WhisperFeatureExtractor(feature_size=mels)
        for clip in clips:
            want = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt").input_features
            got = features.whisper_log_mel(clip[None, : 30 * RATE], num_mels=mels, num_samples=30 * RATE)
            assert (got - want).abs().max() < 1e-4


def test_kaldi_equals_transformers(clips):
    extractor = ASTFeatureExtractor()
    for clip in clips:
        want = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt").input_values
        window, lengths = _batch(clip[: features.kaldi_samples(1024)])
        got = features.kaldi_fbank(window, lengths, num_frames=1024)
        assert (extractor.normalize(got) - want).abs().max() < 1e-4


@pytest.mark.parametrize("fused", [False, True])
def test_clap_equals_transformers(clips, fused):
    extractor = ClapFeatureExtractor(truncation="fusion" if fused else "rand_trunc", frequency_min=50)
    for clip in clips:
        window, lengths = _batch(clip[: 10 * RATE])
        samples = features.upsample(window.double(), 3)[0].numpy()
        want = extractor(samples, sampling_rate=3 * RATE, return_tensors="pt").input_features[:, 0]
        bank = features.ClapBank(fused=fused)
        got = features.clap_log_mel(window, lengths, bank=bank, num_samples=10 * RATE)
        assert (got - want).abs().max() < 1e-4


def test_unit_variance_equals_transformers(clips):
    extractor = Wav2Vec2FeatureExtractor()
    for clip in clips:
        want = extractor(clip.numpy(), sampling_rate=RATE, return_tensors="pt").input_values
        got = features.unit_variance(*_batch(clip))
        assert (got - want).abs().max() < 1e-4


def test_upsampling_keeps_a_tone_and_agrees_with_soxr():
    import soxr

    times = torch.arange(RATE, dtype=torch.float64) / RATE
    tone = torch.sin(2 * math.pi * 3000 * times) + 0.5 * torch.sin(2 * math.pi * 6500 * times + 1)
    got = features.upsample(tone[None], 3)[0]
    times = torch.arange(3 * RATE, dtype=torch.float64) / (3 * RATE)
    want = torch.sin(2 * math.pi * 3000 * times) + 0.5 * torch.sin(2 * math.pi * 6500 * times + 1)
    assert (got - want)[600:-600].abs().max() < 2e-3
    quiet = soxr.resample(_noise(RATE).numpy(), RATE, 3 * RATE, quality="VHQ")
    ours = features.upsample(_noise(RATE)[None].double(), 3)[0].numpy()
    low = slice(0, 7000)  # bins of 1 Hz: below both transition bands
    difference = np.abs(np.fft.rfft(ours)[low] - np.fft.rfft(quiet)[low])
    assert difference.mean() < 0.01 * np.abs(np.fft.rfft(quiet)[low]).mean()


def _each(windows: torch.Tensor, lengths: torch.Tensor) -> dict[str, torch.Tensor]:
    """Every front end, frames first; a row that a batch pads is cut at its own end by the caller."""
    clap = features.clap_log_mel(windows, lengths, bank=features.ClapBank(), num_samples=RATE)
    return {
        "log_mel": features.log_mel(windows, lengths, num_mels=64).transpose(1, 2),
        "whisper": features.whisper_log_mel(windows, num_mels=80, num_samples=RATE).transpose(1, 2),
        "ltu": features.ltu_whisper_log_mel(windows, lengths, num_mels=80, num_frames=120).transpose(1, 2),
        "kaldi": features.kaldi_fbank(windows, lengths, num_frames=100),
        "kaldi without mean": features.kaldi_fbank(windows, lengths, num_frames=100, remove_mean=True),
        "clap": clap,
        "unit": features.unit_variance(windows, lengths)[..., None],
    }


@pytest.mark.parametrize("samples", [1, 17, 160, 399, 400, 401, 5000])
def test_alone_is_the_same_as_in_a_batch(samples):
    alone = _each(*_batch(_noise(samples)))
    together = _each(*_batch(_noise(RATE, 1), _noise(samples)))
    for name, rows in together.items():
        got, want = rows[1], alone[name][0]
        assert torch.isfinite(got).all(), name
        torch.testing.assert_close(
            got[: len(want)], want, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: name + text
        )
        rest = got[len(want) :]
        assert (rest == rest[:1]).all(), name


def test_log_mel_frames_are_centred_in_their_hop():
    samples = torch.zeros(1, 3200)
    samples[0, 5 * 160 + 80] = 1.0
    mels = features.log_mel(samples, torch.tensor([3200]), num_mels=64)
    assert mels.shape == (1, 64, 20)
    assert mels.mean(1).argmax() == 5
    assert features.log_mel(samples[:, :3199], torch.tensor([3199]), num_mels=64).shape[2] == 20
    assert mels[0, :, 15].eq(-8).all()


def test_ltu_fills_after_scaling_and_takes_the_floor_of_the_whole_clip(golden_root):
    from safetensors.torch import load_file

    clips = load_file(golden_root / "ltu" / "clips.safetensors")
    want = load_file(golden_root / "ltu" / "ltuas_whisper_taps.safetensors")
    windows, lengths = _batch(clips["short"] / 32768, clips["long"] / 32768)
    got = features.ltu_whisper_log_mel(windows, lengths, num_mels=80, num_frames=1000)
    assert (got[0] - want["short.log_mel"]).abs().max() < 5e-5
    assert (got[1] - want["long.log_mel"]).abs().max() < 5e-5


def test_kaldi_removes_the_mean_like_ltu(golden_root):
    from safetensors.torch import load_file

    clips = load_file(golden_root / "ltu" / "clips.safetensors")
    want = load_file(golden_root / "ltu" / "ltu_ast.safetensors")["short.input"]
    window, lengths = _batch(clips["short"] / 32768)
    got = features.kaldi_fbank(window, lengths, num_frames=1024, remove_mean=True)
    assert ((got + 5.081) / 4.4849 - want).abs().max() < 2e-3


def test_autocast_and_inference_mode_leave_no_trace():
    features.mel_matrix.cache_clear()
    windows, lengths = _batch(_noise(4000))
    with torch.inference_mode():
        want = features.log_mel(windows, lengths, num_mels=48)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = features.log_mel(windows, lengths, num_mels=48)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
    learning = windows.clone().requires_grad_()
    features.log_mel(learning, lengths, num_mels=48).sum().backward()
    assert learning.grad.abs().sum() > 0


def test_encoders_share_a_log_mel_only_of_the_same_samples_and_settings():
    padded, lengths = _batch(_noise(9000), _noise(5000, 1))
    shorter = torch.tensor([9000, 4000])
    calls = [(padded, lengths, 16), (padded.clone(), lengths, 16), (padded, lengths, 32), (padded, shorter, 16)]
    calls.append((padded * 0.5, lengths, 16))
    alone = [features.log_mel(windows, counts, num_mels=mels) for windows, counts, mels in calls]
    with features.shared():
        together = [features.log_mel(windows, counts, num_mels=mels) for windows, counts, mels in calls]
    for one, other in zip(alone, together, strict=True):
        assert torch.equal(one, other)
    assert together[1] is together[0]
    assert len({id(one) for one in together}) == 4, "other settings, lengths or samples: another log-mel"
    assert features.log_mel(padded, lengths, num_mels=16) is not together[0], "nothing is kept afterwards"
