"""Parametric sources: bounded, seeded, and as high and as many as they say."""

from __future__ import annotations

import numpy as np
import pytest

from ossicle.errors import DataError
from ossicle.world.sounds import SOURCES
from ossicle.world.sounds.base import PEAK
from ossicle.world.sounds.shape import colour, convolve, harmonics, modes, phase, wave
from world.world_measures import f0_hz, first_loud_s, pulses, rms_db

PITCHED = [name for name, source in SOURCES.items() if source.pitch]
COUNTABLE = [name for name, source in SOURCES.items() if source.repeats]
BEATS = {"heartbeat": 2}
"""Loud pulses in one of what is counted: a heart goes lub-dub."""


def test_there_are_many_sources_with_parameters() -> None:
    assert len(SOURCES) >= 25
    assert all(len(source.ranges) >= 3 for source in SOURCES.values())
    assert len({source.spoken for source in SOURCES.values()}) == len(SOURCES)
    assert len(PITCHED) >= 10 and len(COUNTABLE) >= 10


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_is_finite_bounded_and_seeded(name: str) -> None:
    source = SOURCES[name]
    for seed in range(4):
        params = source.sample(np.random.default_rng(seed))
        samples = source.render(params, 1.3)
        assert samples.shape == (20800,) and samples.dtype == np.float32
        assert np.isfinite(samples).all()
        assert np.abs(samples).max() == pytest.approx(PEAK, rel=1e-4)
        assert rms_db(samples) > -45.0
        assert first_loud_s(samples) < 0.05, "a sound starts at its first sample"
        np.testing.assert_array_equal(samples, source.render(dict(params), 1.3))
    assert source.sample(np.random.default_rng(0)) == source.sample(np.random.default_rng(0))
    other = source.render(source.sample(np.random.default_rng(9)), 1.3)
    assert np.abs(samples - other).max() > 0.1


@pytest.mark.parametrize("name", SOURCES)
def test_every_parameter_is_heard(name: str) -> None:
    source = SOURCES[name]
    for parameter, scope in source.ranges.items():
        ends = [source.render({parameter: value, "seed": 5}, 2.0) for value in (scope.low, scope.high)]
        assert np.abs(ends[0] - ends[1]).max() > 1e-4, parameter


@pytest.mark.parametrize("name", PITCHED)
def test_f0_is_what_we_measure(name: str) -> None:
    source = SOURCES[name]
    rng = np.random.default_rng(3)
    for _ in range(12):
        params = source.sample(rng)
        true_hz = source.f0_hz(params)
        assert true_hz is not None
        assert f0_hz(source.render(params, 1.5)) == pytest.approx(true_hz, rel=0.03)


@pytest.mark.parametrize("name", COUNTABLE)
def test_count_is_what_we_hear(name: str) -> None:
    source = SOURCES[name]
    rng = np.random.default_rng(4)
    for duration_s in (0.3, 1.1, 2.0, 2.7):
        params = source.sample(rng)
        wanted = source.count(params, duration_s)
        assert wanted is not None and wanted >= 1
        if duration_s > 0.5:
            assert pulses(source.render(params, duration_s)) == wanted * BEATS.get(name, 1)


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize(("samples", "rate_hz"), [(1, 16_000), (37, 16_000), (4000, 8_000), (22_050, 44_100)])
def test_every_length_and_rate(name: str, samples: int, rate_hz: int) -> None:
    source = SOURCES[name]
    sound = source.render(source.sample(np.random.default_rng(1)), samples / rate_hz, rate_hz)
    assert sound.shape == (samples,) and np.isfinite(sound).all()


def test_f0_holds_at_another_rate() -> None:
    sound = SOURCES["tone"].render({"pitch_hz": 440.0}, 1.0, rate=44_100)
    assert f0_hz(sound, 44_100) == pytest.approx(440.0, rel=0.005)


@pytest.mark.parametrize("duration_s", [0.0, -1.0, float("nan"), float("inf"), 4000.0])
def test_impossible_durations_are_refused(duration_s: float) -> None:
    with pytest.raises(DataError, match="duration"):
        SOURCES["tone"].render({}, duration_s)


def test_wrong_parameters_are_refused() -> None:
    with pytest.raises(DataError, match="did you mean 'pitch_hz'"):
        SOURCES["tone"].render({"pitch": 440.0}, 1.0)
    with pytest.raises(DataError, match=r"pitch_hz is 9000.*expected 110 to 1600 Hz"):
        SOURCES["tone"].render({"pitch_hz": 9000.0}, 1.0)


def test_a_wave_is_its_harmonics() -> None:
    amplitudes = harmonics(5, 6.0)
    cycles = phase(200.0, 4000, 16_000)
    naive = sum(a * np.sin(2 * np.pi * k * cycles) for k, a in enumerate(amplitudes, start=1))
    np.testing.assert_allclose(wave(cycles, amplitudes), naive, atol=2e-4)


def test_modes_are_damped_sines() -> None:
    frequencies, amplitudes, sixty = np.array([300.0, 1250.0]), np.array([1.0, 0.4]), np.array([0.5, 0.2])
    time = np.arange(3001) / 16_000
    naive = sum(
        a * np.sin(2 * np.pi * f * time) * 10 ** (-3 * time / s)
        for f, a, s in zip(frequencies, amplitudes, sixty, strict=True)
    )
    np.testing.assert_allclose(modes(3001, 16_000, frequencies, amplitudes, sixty), naive, atol=1e-4)


def test_convolution_is_causal_and_cut() -> None:
    rng = np.random.default_rng(0)
    signal, kernel = rng.standard_normal(501), rng.standard_normal(77)
    np.testing.assert_allclose(convolve(signal, kernel), np.convolve(signal, kernel)[:501], atol=1e-10)


@pytest.mark.parametrize(("slope", "per_octave_db"), [(0.0, 0.0), (-1.0, -3.01), (-2.0, -6.02)])
def test_noise_has_its_colour(slope: float, per_octave_db: float) -> None:
    noise = colour(np.random.default_rng(0).standard_normal(1 << 16), 16_000, slope)
    power = np.abs(np.fft.rfft(noise)) ** 2
    frequency = np.fft.rfftfreq(1 << 16, 1 / 16_000)
    bands = [power[(frequency >= low) & (frequency < 2 * low)].mean() for low in (250, 500, 1000, 2000)]
    np.testing.assert_allclose(np.diff(10 * np.log10(bands)), per_octave_db, atol=0.4)
