"""What a reader is: one recording as mono float32 blocks at its own rate, starting at any frame.

    bytes ──► SndfileReader (wav, aiff, flac, vorbis …) ─┐
          └─► MediaReader (mp3, opus, m4a, mp4, webm …) ─┼─► blocks (n,) ──► resample
    array ──► ArrayReader ───────────────────────────────┘

A reader never raises once it has opened: where a file is damaged it stops and sets `damaged`.

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np

Block = np.ndarray[tuple[int], np.dtype[np.float32]]

BLOCK_FRAMES = 32_768
"""Frames that a reader yields at once, about."""
RATES_HZ = (1_000, 1_000_000)
"""Lowest and highest sample rate that is believed."""


class Refused(Exception):
    """This reader cannot open the recording; the text says why. Never leaves the package."""


class Reader(Protocol):
    """One opened recording.

    Attributes:
        rate_hz: Its own sample rate.
        channels: Number of channels.
        container: Name of the file format.
        promised_s: Length the file states, None when it states none.
        damaged: The last run of `blocks` met data that does not decode.
    """

    rate_hz: int
    channels: int
    container: str
    promised_s: float | None
    damaged: bool

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Yield mono float32 blocks from frame `start` to the last frame that decodes."""
        ...


class ArrayReader:
    """Samples that are in memory already: (n, channels) float32."""

    container = "array"
    damaged = False

    def __init__(self, samples: np.ndarray, rate_hz: int) -> None:
        self.samples, self.rate_hz, self.channels = samples, rate_hz, samples.shape[1]
        self.promised_s: float | None = len(samples) / rate_hz

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Yield mono blocks from frame `start`."""
        for first in range(start, len(self.samples), BLOCK_FRAMES):
            yield mono(self.samples[first : first + BLOCK_FRAMES])


def mono(block: np.ndarray) -> Block:
    """Return the mean over channels of (n, channels) as (n,) float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return block[:, 0] if block.shape[1] == 1 else block.mean(1, dtype=np.float32)


def to_float(samples: np.ndarray) -> np.ndarray:
    """Return integer samples of any width as float32 in -1..1; floating point ones as float32."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    if samples.dtype.kind == "u":
        middle = 1 << (8 * samples.dtype.itemsize - 1)
        return ((samples.astype(np.float64) - middle) / middle).astype(np.float32)
    return (samples / float(1 << (8 * samples.dtype.itemsize - 1))).astype(np.float32)
