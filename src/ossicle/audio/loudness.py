"""Integrated loudness in LUFS: how loud a recording is to people, not to a meter.

    samples ─K─► power of each 0.1 s ─► blocks of 0.4 s, three quarters shared ─► gates ─► L = −0.691 + 10 log₁₀ mean
    K = high shelf (+4 dB above 1.7 kHz) · high pass (38 Hz)      gates: −70 LUFS, then 10 LU below the mean

- K is applied by Fourier transform, a second at a time with what came just before it: by then the filters have died
  away, and a second stays in the processor's cache.
- The standard gives K's coefficients at 48 kHz; here they are made for any rate from the analogue filters behind them.

Source: ITU-R BS.1770-4; one channel.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from ossicle.audio.pitch import fast_size

SHELF_HZ, SHELF_DB, SHELF_Q = 1681.974450955533, 3.999843853973347, 0.7071752369554196
SHELF_EXPONENT = 0.4996667741545416
PASS_HZ, PASS_Q = 38.13547087602444, 0.5003270373238773
OFFSET_DB = -0.691
STEP_S, STEPS_PER_BLOCK = 0.1, 4
SILENT_LUFS, BELOW_MEAN_LU = -70.0, 10.0
BEFORE_S, STEPS_PER_PIECE, PIECES_AT_ONCE = 0.15, 10, 64


def integrated_lufs(samples: np.ndarray, rate_hz: int) -> float | None:
    """Return the loudness of (S,) samples in LUFS; None below 0.4 s, or when all of it is gated away.

    Example:
        >>> tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(48000) / 48000)
        >>> round(integrated_lufs(tone, 48000), 1)
        -23.0
    """
    step = round(STEP_S * rate_hz)
    powers = _step_powers(np.asarray(samples, np.float32), rate_hz, step)
    if len(powers) < STEPS_PER_BLOCK:
        return None
    blocks = np.convolve(powers, np.full(STEPS_PER_BLOCK, 1 / STEPS_PER_BLOCK), "valid")
    loud = blocks[blocks > _power(SILENT_LUFS)]
    if not len(loud):
        return None
    loud = loud[loud > np.mean(loud) * 10 ** (-BELOW_MEAN_LU / 10)]
    return float(OFFSET_DB + 10 * np.log10(np.mean(loud)))


def _power(lufs: float) -> float:
    return float(10 ** ((lufs - OFFSET_DB) / 10))


def _step_powers(samples: np.ndarray, rate_hz: int, step: int) -> np.ndarray:
    """Return (T,) the K-weighted mean power of every whole 0.1 s."""
    steps, before, piece = len(samples) // step, round(BEFORE_S * rate_hz), STEPS_PER_PIECE * step
    count = -(-steps // STEPS_PER_PIECE)
    size = fast_size(before + piece)
    response = _response(size, rate_hz)
    found = []
    for first in range(0, count, PIECES_AT_ONCE):
        number = min(PIECES_AT_ONCE, count - first)
        held = np.zeros(before + number * piece, np.float32)
        part = samples[max(0, first * piece - before) : (first + number) * piece]
        start = before if first == 0 else 0
        held[start : start + len(part)] = part[: len(held) - start]
        rows = np.lib.stride_tricks.sliding_window_view(held, before + piece)[::piece]
        weighted = np.fft.irfft(np.fft.rfft(rows, size) * response, size)[:, before : before + piece]
        parts = weighted.reshape(number * STEPS_PER_PIECE, step)
        found.append(np.einsum("ij,ij->i", parts, parts, dtype=np.float32) / np.float32(step))
    return np.concatenate(found)[:steps].astype(np.float64) if found else np.zeros(0)


@lru_cache(maxsize=8)
def _response(size: int, rate_hz: int) -> np.ndarray:
    """Return (size / 2 + 1,) what K does to each frequency."""
    z = np.exp(-2j * np.pi * np.arange(size // 2 + 1) / size)
    bend = math.tan(math.pi * SHELF_HZ / rate_hz)
    gain = 10 ** (SHELF_DB / 20)
    middle = gain**SHELF_EXPONENT * bend / SHELF_Q
    shelf = gain + middle + bend**2 + 2 * (bend**2 - gain) * z + (gain - middle + bend**2) * z**2
    shelf = shelf / _poles(bend, SHELF_Q, z)
    corner = math.tan(math.pi * PASS_HZ / rate_hz)
    # the standard's high pass is not scaled to 1 at high frequencies
    high = (1 - z) ** 2 * (1 + corner / PASS_Q + corner**2) / _poles(corner, PASS_Q, z)
    answer: np.ndarray = (shelf * high).astype(np.complex64)
    return answer


def _poles(bend: float, quality: float, z: np.ndarray) -> np.ndarray:
    found: np.ndarray = 1 + bend / quality + bend**2 + 2 * (bend**2 - 1) * z + (1 - bend / quality + bend**2) * z**2
    return found
