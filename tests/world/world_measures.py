"""Measures of the tests' own, written without the code they check: F0, pulses, onsets, decay."""

from __future__ import annotations

import numpy as np


def f0_hz(samples: np.ndarray, rate_hz: int = 16_000, low_hz: float = 30.0, high_hz: float = 3000.0) -> float:
    """Return F0 as the first strong peak of the unbiased autocorrelation, refined by a parabola."""
    centred = samples.astype(np.float64) - samples.mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    correlation = np.fft.irfft(np.abs(np.fft.rfft(centred, size)) ** 2, size)[: len(centred)]
    correlation /= len(centred) - np.arange(len(centred))
    lags = np.arange(int(rate_hz / high_hz), min(int(rate_hz / low_hz) + 2, len(centred) - 1))
    here, before, after = correlation[lags], correlation[lags - 1], correlation[lags + 1]
    peaks = lags[(here > 0.9 * here.max()) & (here >= before) & (here >= after)]
    if len(peaks) == 0:
        return float("nan")
    left, middle, right = correlation[peaks[0] - 1 : peaks[0] + 2]
    return float(rate_hz / (peaks[0] + 0.5 * (left - right) / (left - 2 * middle + right)))


def envelope(samples: np.ndarray, rate_hz: int = 16_000, window_s: float = 0.01) -> np.ndarray:
    """Return the RMS of consecutive windows."""
    size = round(window_s * rate_hz)
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % size))
    return np.sqrt(np.mean(padded.reshape(-1, size) ** 2, axis=1))


def pulses(samples: np.ndarray, high: float = 0.3, low: float = 0.12, rest_s: float = 0.04) -> int:
    """Return how many times the energy rises to loud after some rest in quiet."""
    level = envelope(samples)
    level /= level.max()
    count, rest = 0, 100
    for value in level:
        if value > high and rest * 0.01 >= rest_s:
            count += 1
        rest = rest + 1 if value < low else (0 if value > high else rest)
    return count


def first_loud_s(samples: np.ndarray, rate_hz: int = 16_000, share: float = 0.05) -> float:
    """Return the time of the first sample above a share of the peak."""
    return int(np.argmax(np.abs(samples) > share * np.abs(samples).max())) / rate_hz


def rms_db(samples: np.ndarray) -> float:
    """Return the RMS in dB of full scale."""
    return float(20 * np.log10(np.sqrt(np.mean(samples.astype(np.float64) ** 2))))
