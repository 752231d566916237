"""Fundamental frequency: candidates by YIN, all frames at once, then the cheapest path through them.

    d(τ)  = Σ_j (x_j − x_{j+τ})²              difference of a frame with itself τ samples later
    d'(τ) = d(τ) · τ / Σ_{k≤τ} d(k)           about 1 on average, near 0 at a period
    candidates = deepest dips of d', at the bottom of the parabola through three points; and "unvoiced"
    path: candidate cost + jump cost · |log₂(f_t / f_{t−1})| + cost of a change between voiced and unvoiced

- d comes from one FFT correlation per frame and running sums of squares over a block of frames.
- The path is found in segments side by side: the cheapest way from each state to each, then segment after segment.
- "Unvoiced" costs more the louder the frame is relative to the clip's peak.

Source: de Cheveigné and Kawahara 2002, eqs. 6 to 8, for d'; Boersma 1993 for the path, its costs, and voicing by level.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import soxr

FLOOR_HZ, CEILING_HZ = 65.0, 600.0
HOP_S = 0.01
NUM_CANDIDATES = 4
UNVOICED_COST = 0.55
SILENT_SHARE = 0.03
OCTAVE_COST = 0.02
JUMP_COST = 0.35
CHANGE_COST = 0.14
MAX_PEAK_BELOW_DB = -70.0
SAMPLES_PER_PERIOD = 12
"""At the highest pitch, so that the parabola finds the period within 1 %."""
FRAMES_AT_ONCE = 256
"""Few enough that what is computed of them stays in the processor's cache."""
IMPOSSIBLE = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class PitchTrack:
    """F0 over time.

    Attributes:
        f0_hz: (T,) Hz, 0 where unvoiced.
        voiced: (T,) True = a period was found.
        hop_s: Seconds from one frame to the next.
        start_s: Middle of the first frame; frame t is centred at `start_s + t * hop_s`.
    """

    f0_hz: np.ndarray
    voiced: np.ndarray
    hop_s: float
    start_s: float


def track_pitch(
    samples: np.ndarray, rate_hz: int, *, floor_hz: float = FLOOR_HZ, ceiling_hz: float = CEILING_HZ
) -> PitchTrack:
    """Return F0 every 10 ms.

    Args:
        samples: (S,) mono.
        rate_hz: Samples per second.
        floor_hz: Lowest F0 sought.
        ceiling_hz: Highest F0 sought.

    Returns:
        No frames when the clip is shorter than one, which is 2.5 periods of `floor_hz`.
    """
    samples, rate_hz = _slower(np.asarray(samples, np.float32), rate_hz, ceiling_hz)
    longest, shortest = int(np.ceil(rate_hz / floor_hz)) + 1, max(2, int(rate_hz / ceiling_hz))
    window = longest + longest // 2
    length, hop = window + longest + 1, round(HOP_S * rate_hz)
    parts = []
    if len(samples) >= length:
        loudest = max(float(np.abs(samples).max()), 10 ** (MAX_PEAK_BELOW_DB / 20))
        for first in range(0, len(samples) - length + 1, FRAMES_AT_ONCE * hop):
            some = samples[first : first + (FRAMES_AT_ONCE - 1) * hop + length]
            peaks = np.lib.stride_tricks.sliding_window_view(np.abs(some), length)[::hop].max(1)
            curve = normalised_difference(some, hop, window, longest)
            parts.append(_candidates(curve, shortest, peaks / loudest))
    costs, octaves = (
        (np.concatenate([part[i] for part in parts]) for i in range(2)) if parts else (np.zeros((0, 1)),) * 2
    )
    choice = cheapest_path(costs, octaves)
    voiced = choice > 0
    period = 2.0 ** octaves[np.arange(len(choice)), choice]
    f0_hz = np.where(voiced, rate_hz / period, 0).astype(np.float32)
    return PitchTrack(f0_hz=f0_hz, voiced=voiced, hop_s=hop / rate_hz, start_s=length / 2 / rate_hz)


def normalised_difference(samples: np.ndarray, hop: int, window: int, longest: int) -> np.ndarray:
    """Return (T, longest + 1) d'(τ) of each frame for τ = 0 … longest.

    Args:
        samples: (S,) of all frames; the last one ends at or before its end.
        hop: Samples from one frame to the next.
        window: Samples that are summed over; a frame is `window + longest + 1` samples long.
        longest: Largest τ.
    """
    view = np.lib.stride_tricks.sliding_window_view
    frames = view(samples, window + longest + 1)[::hop, :-1]
    size = fast_size(window + longest)
    spectrum = np.fft.rfft(frames, size)
    spectrum *= np.conj(np.fft.rfft(frames[:, :window], size))
    correlation = np.fft.irfft(spectrum, size)[:, 1 : longest + 1]
    sums = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    energy = view((sums[window:] - sums[:-window]).astype(samples.dtype), longest + 1)[::hop][: len(frames)]
    difference = energy[:, 1:] - 2 * correlation
    difference += energy[:, :1]
    np.maximum(difference, 0, out=difference)
    mean = np.cumsum(difference, axis=1)
    mean /= np.arange(1, longest + 1, dtype=mean.dtype)
    curve = np.ones((len(frames), longest + 1), difference.dtype)
    np.divide(difference, mean, out=curve[:, 1:], where=mean > 0)
    return curve


@lru_cache(maxsize=16)
def fast_size(least: int) -> int:
    """Return the smallest length 2^a · 3^b · 5^c of at least `least`, whose Fourier transform is quick."""
    powers = [3**b * 5**c for b in range(9) for c in range(6)]
    return min(power << max(0, (-(-least // power) - 1).bit_length()) for power in powers)


def cheapest_path(costs: np.ndarray, octaves: np.ndarray) -> np.ndarray:
    """Return (T,) which candidate each frame takes.

    Args:
        costs: (T, K) of each candidate; number 0 is "unvoiced".
        octaves: (T, K) log₂ of each candidate's period; number 0 is not read.
    """
    if not len(costs):
        return np.zeros(0, np.int64)
    steps, states = len(costs) - 1, costs.shape[1]
    length = max(1, math.isqrt(steps))
    segments = -(-steps // length)
    moves = np.full((segments * length, states, states), np.inf)
    moves[:, range(states), range(states)] = 0  # steps behind the last frame change nothing
    moves[:steps] = JUMP_COST * np.abs(octaves[1:, None, :] - octaves[:-1, :, None])
    moves[:steps, 0, :] = moves[:steps, :, 0] = CHANGE_COST
    moves[:steps, 0, 0] = 0
    moves[:steps] += costs[1:, None, :]
    moves = np.ascontiguousarray(moves.reshape(segments, length, states, states).transpose(1, 3, 2, 0))
    # best[i, k, s]: from state i before segment s to state k; back[l, i, k, s]: the state before k in step l
    best = np.where(np.eye(states, dtype=bool)[:, :, None], 0, np.full(segments, np.inf))
    back = np.empty((length, states, states, segments), np.int8)
    for step, move in enumerate(moves):  # (to, from, segment)
        total = best[:, None] + move  # (start, to, from, segment)
        best = total.min(2)
        back[step] = (total == best[:, :, None]).argmax(2)
    return _walk_back(costs[0], best, back)[: steps + 1]


def _walk_back(start: np.ndarray, best: np.ndarray, back: np.ndarray) -> np.ndarray:
    """Return the states of the cheapest path: those between segments one by one, those inside side by side."""
    length, states, _, segments = back.shape
    entries = np.empty((segments, states), np.int64)
    for segment in range(segments):
        total = start[:, None] + best[:, :, segment]
        entries[segment] = total.argmin(0)
        start = total.min(0)
    between = np.empty(segments + 1, np.int64)
    between[-1] = start.argmin()
    for segment in range(segments - 1, -1, -1):
        between[segment] = entries[segment, between[segment + 1]]
    inside = np.empty((segments, length), np.int64)
    state, each = between[1:], np.arange(segments)
    for step in range(length - 1, -1, -1):
        inside[:, step] = state
        state = back[step, between[:-1], state, each]
    return np.concatenate([between[:1], inside.ravel()])


def _slower(samples: np.ndarray, rate_hz: int, ceiling_hz: float) -> tuple[np.ndarray, int]:
    target_hz = 8_000 * max(1, int(np.ceil(ceiling_hz * SAMPLES_PER_PERIOD / 8_000)))
    if rate_hz <= target_hz:
        return samples, rate_hz
    return soxr.resample(samples, rate_hz, target_hz, quality="LQ"), target_hz


def _candidates(curve: np.ndarray, shortest: int, loudness: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (T, 1 + K) costs and log₂ periods: "unvoiced", then the deepest dips.

    Args:
        curve: (T, τ) d'.
        shortest: Smallest period sought, in samples.
        loudness: (T,) peak of each frame relative to the clip's.
    """
    middle = curve[:, shortest:-1]
    is_dip = (middle <= curve[:, shortest - 1 : -2]) & (middle < curve[:, shortest + 1 :])
    lags = np.arange(shortest, curve.shape[1] - 1)
    ranked = np.where(is_dip, middle + (OCTAVE_COST * np.log2(lags)).astype(curve.dtype), curve.dtype.type(IMPOSSIBLE))
    rows = np.arange(len(curve))[:, None]
    index = np.empty((len(curve), NUM_CANDIDATES), np.intp)
    for number in range(NUM_CANDIDATES):  # a few times the deepest is quicker than one partition
        index[:, number] = ranked.argmin(1)
        ranked[rows[:, 0], index[:, number]] = np.inf
    real = is_dip[rows, index]
    index += shortest
    before, here, after = (curve[rows, index + step] for step in (-1, 0, 1))
    bend = np.where(real, before - 2 * here + after, 1)
    shift = np.where(real & (bend > 1e-9), (before - after) / np.maximum(2 * bend, 1e-9), 0).clip(-1, 1)
    depth = np.maximum(here - (before - after) * shift / 4, 0)
    octaves = np.log2(index + shift)
    shortest_octave = np.log2(shortest)
    costs = np.where(real, depth + OCTAVE_COST * (octaves - shortest_octave), IMPOSSIBLE)
    quiet = np.maximum(0, 2 - loudness * (1 + UNVOICED_COST) / SILENT_SHARE)
    unvoiced = UNVOICED_COST - quiet
    return np.column_stack([unvoiced, costs]), np.column_stack([np.zeros(len(curve)), octaves])
