"""Measures against signals whose numbers are known, and their invariances."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from ossicle.audio.acoustics import (
    frame_levels_db,
    measure,
    rms_db,
    spectral_centroid_hz,
)
from ossicle.audio.io import load_audio
from ossicle.audio.loudness import integrated_lufs
from ossicle.errors import AudioError
from ossicle.types import Waveform

RATE_HZ = 16_000


def tone(seconds: float, hz: float, peak: float = 0.5) -> np.ndarray:
    return (peak * np.sin(2 * np.pi * hz * np.arange(round(seconds * RATE_HZ)) / RATE_HZ)).astype(np.float32)


def noise(seconds: float, rms: float, seed: int = 0) -> np.ndarray:
    return (rms * np.random.default_rng(seed).standard_normal(round(seconds * RATE_HZ))).astype(np.float32)


def babble(num: int, on_s: float, off_s: float, hz: float = 150.0) -> np.ndarray:
    """Return voiced bursts with soft edges and silence between them."""
    burst = sum(tone(on_s, hz * k, 0.2 / k) for k in range(1, 6)) * np.hanning(round(on_s * RATE_HZ)).astype(np.float32)
    gap = np.zeros(round(off_s * RATE_HZ), np.float32)
    return np.concatenate([np.concatenate([burst, gap]) for _ in range(num)])


def of(samples: np.ndarray) -> object:
    return measure(Waveform(samples=samples))


def test_a_tone() -> None:
    result = measure(Waveform(samples=tone(2.0, 220.0)))
    assert result.duration_s == 2.0
    assert result.rms_db == pytest.approx(-9.03, abs=0.01)
    assert result.peak_db == pytest.approx(-6.02, abs=0.01)
    assert result.f0_median_hz == pytest.approx(220.0, rel=0.003)
    assert result.f0_low_hz == pytest.approx(result.f0_high_hz, rel=0.003)
    assert result.voiced_share > 0.95
    assert result.centroid_hz == pytest.approx(220.0, abs=3)
    assert result.silence_share == 0
    assert (result.num_pauses, result.pause_s) == (0, 0.0)
    assert result.snr_db is None


def test_measures_have_a_documented_unit() -> None:
    result = measure(Waveform(samples=tone(0.5, 200.0)))
    for field in dataclasses.fields(result):
        assert f"{field.name}:" in (type(result).__doc__ or "")


def test_every_rate_gives_the_same_numbers() -> None:
    slow = measure(Waveform(samples=tone(1.0, 200.0)))
    fast = np.sin(2 * np.pi * 200.0 * np.arange(48_000) / 48_000).astype(np.float32) / 2
    other = measure(Waveform(samples=fast, sample_rate_hz=48_000))
    assert other.f0_median_hz == pytest.approx(slow.f0_median_hz, rel=1e-3)
    assert other.rms_db == pytest.approx(slow.rms_db, abs=0.02)


def test_gain_moves_levels_and_nothing_else() -> None:
    clip = babble(6, 0.2, 0.3) + noise(3.0, 0.002)
    loud, quiet = measure(Waveform(samples=clip)), measure(Waveform(samples=(clip * 0.25).astype(np.float32)))
    assert loud.rms_db - quiet.rms_db == pytest.approx(12.04, abs=0.01)
    assert loud.peak_db - quiet.peak_db == pytest.approx(12.04, abs=0.01)
    for name in ("f0_median_hz", "voiced_share", "centroid_hz", "snr_db", "syllables_per_s", "silence_share"):
        assert getattr(quiet, name) == pytest.approx(getattr(loud, name), rel=0.01), name
    assert quiet.num_pauses == loud.num_pauses


@pytest.mark.parametrize("level_db", [-60.0, -20.0, -3.0])
def test_rms_within_a_hundredth(level_db: float) -> None:
    samples = tone(1.0, 1000.0, 1.0) * np.sqrt(2) * 10 ** (level_db / 20)
    assert rms_db(samples) == pytest.approx(level_db, abs=0.01)
    assert np.mean(frame_levels_db(samples, RATE_HZ)) == pytest.approx(level_db, abs=0.1)


def test_centroid_of_noise_and_of_two_tones() -> None:
    assert spectral_centroid_hz(noise(3.0, 0.1), RATE_HZ) == pytest.approx(4000, rel=0.02)
    both = tone(2.0, 1000.0) + tone(2.0, 3000.0)
    assert spectral_centroid_hz(both, RATE_HZ) == pytest.approx(2000, rel=0.01)
    half = np.concatenate([tone(0.512, 1000.0), tone(1.0, 3000.0)])
    assert spectral_centroid_hz(half, RATE_HZ) == pytest.approx((512 * 1000 + 1000 * 3000) / 1512, rel=0.02)


def test_pauses_and_silence() -> None:
    clip = np.concatenate([np.zeros(8000, np.float32), babble(4, 0.6, 0.5), np.zeros(8000, np.float32)])
    result = measure(Waveform(samples=clip))
    assert result.num_pauses == 3
    assert result.pause_s == pytest.approx(3 * 0.55, abs=0.2)
    assert result.silence_share == pytest.approx((1.0 + 4 * 0.55) / (1.0 + 4 * 1.1), abs=0.07)
    short_gaps = measure(Waveform(samples=babble(8, 0.3, 0.1)))
    assert short_gaps.num_pauses == 0


@pytest.mark.parametrize("rate", [2.0, 4.0, 6.0])
def test_syllable_peaks_are_counted(rate: float) -> None:
    clip = babble(round(4 * rate), 0.7 / rate, 0.3 / rate)
    clip = clip + noise(5.0, 0.0005)[: len(clip)]
    assert measure(Waveform(samples=clip)).syllables_per_s == pytest.approx(rate, rel=0.1)


@pytest.mark.parametrize("snr_db", [10.0, 20.0, 30.0])
def test_snr_of_bursts_in_noise(snr_db: float) -> None:
    speech = babble(8, 0.3, 0.4)
    floor = noise(len(speech) / RATE_HZ, float(np.sqrt(np.mean(speech**2))) * 10 ** (-snr_db / 20))
    assert measure(Waveform(samples=speech + floor)).snr_db == pytest.approx(snr_db, abs=2.0)


def test_what_a_clip_cannot_support_is_none() -> None:
    silent = measure(Waveform(samples=np.zeros(RATE_HZ, np.float32)))
    assert (silent.rms_db, silent.peak_db, silent.silence_share) == (-100.0, -100.0, 1.0)
    assert (silent.f0_median_hz, silent.centroid_hz, silent.snr_db, silent.syllables_per_s) == (None,) * 4
    single = measure(Waveform(samples=np.full(1, 0.5, np.float32)))
    assert single.rms_db == pytest.approx(-6.02, abs=0.01)
    assert single.f0_median_hz is None
    hiss = measure(Waveform(samples=noise(2.0, 0.1)))
    assert hiss.snr_db is None
    assert hiss.voiced_share < 0.1


@pytest.mark.parametrize("bad", [np.zeros(0, np.float32), np.array([0.0, np.nan], np.float32)])
def test_nothing_to_measure_is_an_error(bad: np.ndarray) -> None:
    with pytest.raises(AudioError, match="nothing to measure"):
        measure(Waveform(samples=bad))


@pytest.mark.slow
def test_loudness_of_the_standard_sine() -> None:
    time_s = np.arange(3 * 48_000) / 48_000
    sine = (0.1 * np.sin(2 * np.pi * 997 * time_s)).astype(np.float32)
    assert integrated_lufs(sine, 48_000) == pytest.approx(-23.01, abs=0.02)
    assert integrated_lufs(sine[:48], 48_000) is None
    assert integrated_lufs(np.zeros(48_000, np.float32), 48_000) is None
    loud_then_silent = np.concatenate([sine, np.zeros_like(sine)])
    assert integrated_lufs(loud_then_silent, 48_000) == pytest.approx(-23.01, abs=0.3)  # silence is gated away


@pytest.mark.parametrize("rate_hz", [16_000, 44_100])
def test_loudness_is_that_of_pyloudnorm(rate_hz: int) -> None:
    meter = pytest.importorskip("pyloudnorm").Meter(rate_hz)
    rng = np.random.default_rng(1)
    for seconds, hz in ((0.7, 60.0), (3.0, 300.0), (31.3, 3000.0)):
        time_s = np.arange(round(seconds * rate_hz)) / rate_hz
        sound = 0.2 * np.sin(2 * np.pi * hz * time_s) * (np.sin(time_s) > -0.5) + rng.normal(0, 0.01, len(time_s)) + 0.1
        ours, theirs = integrated_lufs(sound, rate_hz), meter.integrated_loudness(sound)
        assert ours == pytest.approx(theirs, abs=0.15)


def test_voice_share_is_the_time_that_somebody_speaks(data_root: Path) -> None:
    shares = []
    for path in sorted((data_root / "librispeech_other100" / "audio").iterdir())[:40:5]:
        speech = load_audio(path).samples
        whole = measure(Waveform(samples=speech)).voice_share
        silence = np.random.default_rng(0).normal(0, 1e-4, len(speech)).astype(np.float32)
        half = measure(Waveform(samples=np.concatenate([speech, silence]))).voice_share
        shares.append(whole)
        assert whole > 0.5
        assert half == pytest.approx(whole / 2, abs=0.05)
    assert np.median(shares) > 0.75
    assert of(noise(2.0, 0.1)).voice_share < 0.2


def test_real_voices_by_gender(data_root: Path) -> None:
    import json

    folder = data_root / "librispeech_gender251"
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    medians = {
        gender: [
            measure(load_audio(folder / row["path"])).f0_median_hz or 0.0
            for row in [row for row in rows if row["gender"] == gender][:12]
        ]
        for gender in ("male", "female")
    }
    assert 85 < np.median(medians["male"]) < 150 < np.median(medians["female"]) < 240


def test_syllable_peaks_follow_transcripts(data_root: Path) -> None:
    import json
    import re

    folder = data_root / "kathleen_arctic300"
    ratios = []
    for line in (folder / "manifest.jsonl").read_text().splitlines()[:80:4]:
        row = json.loads(line)
        words = re.findall(r"[a-z']+", row["transcript"].lower())
        syllables = sum(max(1, len(re.findall("[aeiouy]+", re.sub(r"e\b", "", word)))) for word in words)
        waveform = load_audio(folder / row["path"])
        result = measure(waveform)
        assert result.syllables_per_s is not None
        ratios.append(result.syllables_per_s * waveform.duration_s / syllables)
        assert result.snr_db is not None
        assert 10 < result.snr_db < 70
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.12)
    assert np.std(ratios) < 0.25
