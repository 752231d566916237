"""A spectrogram as an image, with a bar above it for when the model listened; numpy alone.

    time →   ▁▁▁███▁▁        weight of each stretch
             spectrogram     0 to 8 kHz, bottom to top, 75 dB

Source: our choice.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ossicle.types import Waveform

WIDTH, HEIGHT, BAR = 900, 220, 28
RANGE_DB = 75.0
COLOURS = np.array([[13, 17, 40], [70, 30, 110], [190, 55, 85], [250, 150, 50], [252, 250, 190]], np.float32)
WINDOW = 512


def spectrogram(wave: Waveform, weights: list[dict[str, Any]] | None = None) -> np.ndarray:
    """Return (H, W, 3) uint8.

    Args:
        wave: The clip.
        weights: Stretches with `start_s`, `end_s`, `weight`, from `inference.listen`; None = no bar.
    """
    samples = np.pad(wave.samples.astype(np.float32), (0, WINDOW))
    starts = np.linspace(0, max(0, len(samples) - WINDOW), WIDTH).astype(int)
    frames = samples[starts[:, None] + np.arange(WINDOW)] * np.hanning(WINDOW).astype(np.float32)
    power = np.abs(np.fft.rfft(frames, axis=1)[:, 1:]) ** 2
    level_db = 10 * np.log10(np.maximum(power / max(float(power.max()), 1e-20), 1e-12))
    shade = np.clip(1 + level_db / RANGE_DB, 0, 1).T[::-1]
    rows = np.linspace(0, len(shade) - 1, HEIGHT).astype(int)
    image = _coloured(shade[rows])
    return image if weights is None else np.concatenate([_bar(wave.duration_s, weights), image])


def _coloured(shade: np.ndarray) -> np.ndarray:
    place = shade * (len(COLOURS) - 1)
    low = np.minimum(place.astype(int), len(COLOURS) - 2)
    part = (place - low)[..., None]
    return (COLOURS[low] * (1 - part) + COLOURS[low + 1] * part).astype(np.uint8)


def _bar(duration_s: float, weights: list[dict[str, Any]]) -> np.ndarray:
    """Return (BAR, W, 3): columns as high as their stretch's weight, the heaviest full."""
    bar = np.full((BAR, WIDTH, 3), 245, np.uint8)
    heaviest = max((row["weight"] for row in weights), default=0.0)
    for row in weights:
        if heaviest <= 0 or duration_s <= 0:
            continue
        left, right = (round(row[side] / duration_s * WIDTH) for side in ("start_s", "end_s"))
        height = round(row["weight"] / heaviest * (BAR - 2))
        bar[BAR - height :, left : max(left + 1, right - 1)] = (0, 120, 110)
    return bar
