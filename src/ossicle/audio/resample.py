"""A span of a recording, mono at one rate, as a stream of blocks; memory does not grow with the length.

    reader at rate_hz  ──►  [ lead-in | span ]  ──►  soxr, phase kept  ──►  drop the lead-in  ──►  blocks

A span starts a little early, on a frame where input and output grids meet, so that it equals that slice of the whole.

Source: our choice; the filter is soxr's HQ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import soxr

from ossicle.audio.reader import Block, Reader
from ossicle.errors import AudioError

LEAD_IN_S = 0.25
"""Covers the filter's length, and what lossy decoders need before they are right again."""


def span_blocks(
    reader: Reader, *, start: int, length: int | None, sample_rate_hz: int, name: str = "<audio>"
) -> Iterator[Block]:
    """Yield the samples `start` to `start + length` of the recording at `sample_rate_hz`.

    Args:
        reader: The opened recording.
        start: First sample, counted at `sample_rate_hz`.
        length: Number of samples, None = to the end. Fewer come where the recording ends earlier.
        sample_rate_hz: Rate of what is yielded.
        name: For messages.

    Raises:
        AudioError: A sample is NaN or infinite.
    """
    shared = math.gcd(reader.rate_hz, sample_rate_hz)
    step_in, step_out = reader.rate_hz // shared, sample_rate_hz // shared
    steps = max(0, start - round(LEAD_IN_S * sample_rate_hz)) // step_out
    skip, left = start - steps * step_out, length
    for block in _converted(reader, steps * step_in, sample_rate_hz):
        if not np.isfinite(block).all():
            raise AudioError(f"{name}: holds samples that are NaN or infinite; export it again with finite samples")
        kept = block[skip : None if left is None else skip + left]
        skip = max(0, skip - len(block))
        yield kept
        if left is not None:
            left -= len(kept)
            if left <= 0:
                return


def _converted(reader: Reader, first: int, sample_rate_hz: int) -> Iterator[Block]:
    if reader.rate_hz == sample_rate_hz:
        yield from reader.blocks(first)
        return
    stream = soxr.ResampleStream(reader.rate_hz, sample_rate_hz, 1, dtype="float32")
    for block in reader.blocks(first):
        yield stream.resample_chunk(np.ascontiguousarray(block))
    yield stream.resample_chunk(np.zeros(0, np.float32), last=True)
