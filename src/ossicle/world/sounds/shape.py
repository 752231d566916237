"""The few pieces all sources are made of: periodic waves, shaped noise, decays, grains on a timeline.

All of them are whole-array numpy: a second of sound costs about a millisecond.

Source: our choice (additive synthesis by table, noise shaped in the frequency domain).
"""

from __future__ import annotations

import numpy as np

TABLE = 2048


def harmonics(num: int, tilt_db: float) -> np.ndarray:
    """Return (H,) amplitudes that fall by `tilt_db` per octave."""
    order = np.arange(1, max(num, 1) + 1)
    return 10.0 ** (-tilt_db * np.log2(order) / 20.0)


def phase(frequency_hz: np.ndarray | float, samples: int, rate_hz: int) -> np.ndarray:
    """Return (S,) the phase in cycles of an oscillator with the given (possibly moving) frequency."""
    if np.ndim(frequency_hz) == 0:
        return np.arange(samples) * (float(frequency_hz) / rate_hz)
    return np.cumsum(frequency_hz) / rate_hz


def wave(cycles: np.ndarray, amplitudes: np.ndarray, highest_hz: float = 0.0, rate_hz: int = 16_000) -> np.ndarray:
    """Return (S,) a periodic wave with the given harmonics.

    Args:
        cycles: (S,) phase in cycles.
        amplitudes: (H,) amplitude of each harmonic.
        highest_hz: Highest F0 that occurs; harmonics above 45 % of the rate are left out.
        rate_hz: Samples per second.
    """
    if highest_hz > 0:
        amplitudes = amplitudes[: max(1, int(0.45 * rate_hz / highest_hz))]
    spectrum = np.zeros(TABLE // 2 + 1, dtype=complex)
    spectrum[1 : len(amplitudes) + 1] = -0.5j * TABLE * amplitudes
    table = np.fft.irfft(spectrum, TABLE)
    table = np.append(table, table[0])
    position = (cycles % 1.0) * TABLE
    index = position.astype(np.int32)
    fraction = position - index
    return table[index] * (1.0 - fraction) + table[index + 1] * fraction


def colour(
    noise: np.ndarray, rate_hz: int, slope: float = 0.0, low_hz: float = 20.0, high_hz: float = 0.0
) -> np.ndarray:
    """Return (S,) noise with power falling as f^slope inside a band with soft (12 dB per octave) edges."""
    size = _fast_length(len(noise))
    frequency = np.fft.rfftfreq(size, 1.0 / rate_hz)
    frequency[0] = frequency[1] if len(frequency) > 1 else 1.0
    gain = frequency ** (slope / 2.0) / np.sqrt(1.0 + (low_hz / frequency) ** 4)
    if high_hz > 0:
        gain /= np.sqrt(1.0 + (frequency / high_hz) ** 4)
    gain[0] = 0.0
    return np.fft.irfft(np.fft.rfft(noise, size) * gain, size)[: len(noise)]


def resonate(noise: np.ndarray, rate_hz: int, centre_hz: float, width_hz: float) -> np.ndarray:
    """Return (S,) noise through one resonance."""
    size = _fast_length(len(noise))
    frequency = np.fft.rfftfreq(size, 1.0 / rate_hz)
    gain = 1.0 / np.sqrt(1.0 + ((frequency - centre_hz) / (0.5 * width_hz)) ** 2)
    return np.fft.irfft(np.fft.rfft(noise, size) * gain, size)[: len(noise)]


def convolve(signal: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Return (S,) the causal convolution, cut to the signal's length."""
    size = _fast_length(len(signal) + len(kernel) - 1)
    return np.fft.irfft(np.fft.rfft(signal, size) * np.fft.rfft(kernel, size), size)[: len(signal)]


def decay(samples: int, rate_hz: int, sixty_s: float) -> np.ndarray:
    """Return (S,) an exponential that falls by 60 dB in `sixty_s` seconds."""
    return np.exp(np.arange(samples) * (-6.9078 / (max(sixty_s, 1e-4) * rate_hz)))


def modes(
    samples: int, rate_hz: int, frequencies_hz: np.ndarray, amplitudes: np.ndarray, sixty_s: np.ndarray
) -> np.ndarray:
    """Return (S,) a sum of damped sines: what a struck body does.

    A damped sine is Im z^n, and z^(a·M + b) = (z^M)^a · z^b, so a whole sum of them is one small matrix product.
    """
    keep = frequencies_hz < 0.45 * rate_hz
    step = -6.9078 / (np.maximum(sixty_s[keep], 1e-4) * rate_hz) + 2j * np.pi * frequencies_hz[keep] / rate_hz
    short = max(1, int(np.sqrt(samples)))
    coarse = amplitudes[keep, None] * np.exp(step[:, None] * short * np.arange(-(-samples // short)))
    fine = np.exp(step[:, None] * np.arange(short))
    return (coarse.real.T @ fine.imag + coarse.imag.T @ fine.real).reshape(-1)[:samples]


def even(sound: np.ndarray) -> np.ndarray:
    """Return the sound with RMS 1 (silence stays silence)."""
    return sound / max(float(np.sqrt(np.mean(np.square(sound)))), 1e-9)


def full(sound: np.ndarray) -> np.ndarray:
    """Return the sound with peak 1 (silence stays silence)."""
    return sound / max(float(np.abs(sound).max()), 1e-9)


def smooth(rng: np.random.Generator, samples: int, rate_hz: int, per_second: float) -> np.ndarray:
    """Return (S,) a slowly wandering curve in -1..1 with about `per_second` turns per second."""
    knots = rng.uniform(-1.0, 1.0, int(np.ceil(samples / rate_hz * per_second)) + 3)
    position = np.arange(samples) * (per_second / rate_hz) + 0.5
    index = position.astype(np.int32)
    blend = 0.5 - 0.5 * np.cos(np.pi * (position - index))
    return knots[index] * (1 - blend) + knots[index + 1] * blend


def place(out: np.ndarray, grain: np.ndarray, start: int) -> None:
    """Add a grain to `out` (our own array) from sample `start`, cut at the end."""
    stop = min(len(out), start + len(grain))
    out[start:stop] += grain[: stop - start]


def fitting(per_second: float, grain_s: float, duration_s: float) -> int:
    """Return how many regular pulses fit wholly into the duration; the first, at time 0, is always there."""
    return 1 + max(0, int((duration_s - grain_s) * per_second + 1e-6))


def train(grains: list[np.ndarray], samples: int, rate_hz: int, per_second: float) -> np.ndarray:
    """Return (S,) grains at a regular rate, the first at time 0."""
    out = np.zeros(samples)
    for index, grain in enumerate(grains):
        place(out, grain, round(index * rate_hz / per_second))
    return out


def gate(samples: int, rate_hz: int, edge_s: float = 0.004) -> np.ndarray:
    """Return (S,) ones with short raised-cosine edges."""
    edge = max(1, min(round(edge_s * rate_hz), samples // 2))
    out = np.ones(samples)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(edge) + 0.5) / edge)
    out[:edge] = ramp[: len(out[:edge])]
    out[samples - edge :] *= ramp[::-1][: len(out[samples - edge :])]
    return out


def fade(sound: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return the sound with 1 ms fade-in and 8 ms fade-out, so that no cut clicks."""
    out = sound.copy()
    first, last = min(len(out) // 4, round(0.001 * rate_hz)), min(len(out) // 4, round(0.008 * rate_hz))
    if first:
        out[:first] *= np.linspace(0.1, 1.0, first, dtype=out.dtype)
    if last:
        out[-last:] *= np.linspace(1.0, 0.0, last, dtype=out.dtype)
    return out


def _fast_length(samples: int) -> int:
    """Return the next power of two (or 1.5 times one), where the transform is fastest."""
    power = 1 << max(1, (samples - 1).bit_length())
    return power * 3 // 4 if power * 3 // 4 >= samples and power >= 4 else power
