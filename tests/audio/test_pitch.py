"""F0: the equations against plain loops, tones of known pitch, and Praat on real speech."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ossicle.audio import pitch
from ossicle.audio.io import load_audio
from ossicle.audio.pitch import cheapest_path, normalised_difference, track_pitch


def harmonics(f0_hz: np.ndarray, rate_hz: int, numbers: range = range(1, 8)) -> np.ndarray:
    """Return a voice-like sum of harmonics under an F0 contour (S,)."""
    phase = 2 * np.pi * np.cumsum(f0_hz) / rate_hz
    return sum(0.3 / number * np.sin(number * phase) for number in numbers).astype(np.float32)


def median_hz(samples: np.ndarray, rate_hz: int, **options: float) -> float:
    track = track_pitch(samples, rate_hz, **options)
    assert track.voiced.mean() > 0.9
    return float(np.median(track.f0_hz[track.voiced]))


def test_difference_equals_its_definition() -> None:
    samples = np.random.default_rng(0).standard_normal(40 + 25 + 1 + 2 * 30 + 7).astype(np.float32)
    frames = np.stack([samples[first : first + 40 + 25 + 1] for first in (0, 30, 60)])
    curve = normalised_difference(samples, 30, 40, 25)
    assert len(curve) == 3
    for frame, row in zip(frames.astype(np.float64), curve, strict=True):
        difference = [sum((frame[j] - frame[j + lag]) ** 2 for j in range(40)) for lag in range(26)]
        expected = [1.0] + [difference[lag] * lag / sum(difference[1 : lag + 1]) for lag in range(1, 26)]
        np.testing.assert_allclose(row, expected, rtol=1e-4)


@given(
    costs=arrays(np.float64, (6, 3), elements=st.floats(0, 1)),
    octaves=arrays(np.float64, (6, 3), elements=st.floats(0, 3)),
)
@settings(max_examples=40, deadline=None)
def test_path_is_the_cheapest_of_all(costs: np.ndarray, octaves: np.ndarray) -> None:
    def price(path: tuple[int, ...] | np.ndarray) -> float:
        total = sum(costs[t, k] for t, k in enumerate(path))
        for t, (a, b) in enumerate(itertools.pairwise(path)):
            if a and b:
                total += pitch.JUMP_COST * abs(octaves[t + 1, b] - octaves[t, a])
            elif a or b:
                total += pitch.CHANGE_COST
        return float(total)

    least = min(price(path) for path in itertools.product(range(3), repeat=6))
    assert price(cheapest_path(costs, octaves)) == pytest.approx(least, abs=1e-9)


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("f0_hz", [72.0, 110.0, 203.7, 330.0, 580.0])
def test_tones_and_voices_of_known_pitch(f0_hz: float, rate_hz: int) -> None:
    time_s = np.arange(rate_hz) / rate_hz
    sine = (0.4 * np.sin(2 * np.pi * f0_hz * time_s)).astype(np.float32)
    assert median_hz(sine, rate_hz) == pytest.approx(f0_hz, rel=0.005)
    contour = np.full(rate_hz, f0_hz)
    assert median_hz(harmonics(contour, rate_hz), rate_hz) == pytest.approx(f0_hz, rel=0.005)
    assert median_hz(harmonics(contour, rate_hz, range(2, 7)), rate_hz) == pytest.approx(f0_hz, rel=0.01)


def test_a_higher_range_can_be_sought() -> None:
    sine = np.sin(2 * np.pi * 1850 * np.arange(16_000) / 16_000).astype(np.float32)
    assert median_hz(sine, 16_000, floor_hz=200, ceiling_hz=2500) == pytest.approx(1850, rel=0.01)


def test_a_glide_is_followed_in_time() -> None:
    contour = np.linspace(100, 300, 32_000)
    track = track_pitch(harmonics(contour, 16_000), 16_000)
    times_s = track.start_s + track.hop_s * np.arange(len(track.f0_hz))
    truth = np.interp(times_s, np.arange(32_000) / 16_000, contour)
    assert track.voiced.mean() > 0.95
    np.testing.assert_allclose(track.f0_hz[track.voiced], truth[track.voiced], rtol=0.03)


def test_level_does_not_matter() -> None:
    voice = harmonics(np.linspace(120, 180, 16_000), 16_000)
    loud, quiet = (track_pitch(gain * voice, 16_000) for gain in (1.0, 0.01))
    np.testing.assert_array_equal(loud.voiced, quiet.voiced)
    np.testing.assert_allclose(loud.f0_hz, quiet.f0_hz, rtol=1e-3)


def test_noise_silence_and_short_clips_have_no_pitch() -> None:
    noise = np.random.default_rng(0).standard_normal(32_000).astype(np.float32)
    assert track_pitch(0.1 * noise, 16_000).voiced.mean() < 0.1
    assert not track_pitch(np.zeros(16_000, np.float32), 16_000).voiced.any()
    for length in (0, 1, 100):
        assert len(track_pitch(np.ones(length, np.float32), 16_000).f0_hz) == 0


SPEECH = ("librispeech_gender251", "librispeech_other100", "kathleen_arctic300", "emodb_2s")


def test_real_speech_agrees_with_praat(data_root: Path) -> None:
    parselmouth = pytest.importorskip("parselmouth")
    off_by, off_where_both = [], []
    for folder in SPEECH:
        paths = sorted((data_root / folder / "audio").iterdir())
        for path in paths[:: len(paths) // 12]:
            samples = load_audio(path).samples
            sound = parselmouth.Sound(samples.astype(np.float64), 16_000)
            praat = sound.to_pitch(0.01, pitch.FLOOR_HZ, pitch.CEILING_HZ)
            theirs = praat.selected_array["frequency"]
            track = track_pitch(samples, 16_000)
            if (theirs > 0).sum() < 20:
                continue
            off_by.append(abs(np.median(track.f0_hz[track.voiced]) / np.median(theirs[theirs > 0]) - 1))
            times_s = track.start_s + track.hop_s * np.arange(len(track.f0_hz))
            at_times = np.array([praat.get_value_at_time(time_s) for time_s in times_s])
            both = track.voiced & np.isfinite(at_times)
            off_where_both.append(abs(np.median(track.f0_hz[both]) / np.median(at_times[both]) - 1))
    assert len(off_by) >= 40
    assert np.mean(np.array(off_by) <= 0.04) >= 0.92
    assert np.median(off_by) <= 0.015
    assert np.mean(np.array(off_where_both) <= 0.04) >= 0.98
