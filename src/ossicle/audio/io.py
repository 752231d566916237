"""Reading recordings: anything a person may hand over becomes a `Waveform`, or one clear `AudioError`.

    path · bytes · file object · array · tensor · Waveform
        └─► reader (decode) ─► span at 16 kHz mono (resample) ─► Waveform(truncated=…, lost_s=…)

What is damaged is read as far as it decodes; a log line and `truncated` say so.

Source: our choice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ossicle.audio.reader import RATES_HZ, Block, Reader
from ossicle.audio.resample import span_blocks
from ossicle.audio.sources import FORMATS, AudioSource, open_source
from ossicle.errors import AudioError
from ossicle.types import SAMPLE_RATE_HZ, Waveform

SUFFIXES = frozenset(
    (
        *(".wav", ".wave", ".aif", ".aiff", ".aifc", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".m4b", ".aac"),
        *(".mp4", ".webm", ".mka", ".mkv", ".mov", ".au", ".caf"),
    )
)
MAX_DURATION_S = 12 * 3600.0
"""Longest recording held in memory at once; `iterate_windows` reads longer ones."""
LENGTH_TOLERANCE_S = 0.1
"""Encoders pad and trim by this much, so that a smaller difference from the stated length means nothing."""
COUNTED_S = 0.001
"""A smaller loss is rounding of the stated length."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioInfo:
    """What a recording is, before it is read.

    Attributes:
        duration_s: Length in seconds, as the file states it, or counted where it states none.
        sample_rate_hz: Its own rate.
        channels: Number of channels.
        container: Name of the file format.
    """

    duration_s: float
    sample_rate_hz: int
    channels: int
    container: str


def is_audio_path(name: str | Path) -> bool:
    """Return whether a file name has a suffix of a recording.

    Example:
        >>> is_audio_path("Clip.WAV"), is_audio_path("notes.txt")
        (True, False)
    """
    return Path(name).suffix.lower() in SUFFIXES


def load_audio(
    source: AudioSource,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
) -> Waveform:
    """Read a recording, or a span of it, as mono float32.

    Args:
        source: A path, bytes, a binary file object, an array of samples, `(array, rate_hz)`, a torch tensor, or a
            `Waveform`. An array is (S,), or two-dimensional with channels on its shorter axis; without a rate it is
            taken to be at `sample_rate_hz`. Integers are scaled to -1..1 by their width.
        start_s: First second of the span.
        duration_s: Length of the span in seconds, None = to the end; what lies beyond the end is left out.
        sample_rate_hz: Rate of the result.

    Returns:
        The mean over channels. `truncated` and `lost_s` tell of a damaged end.

    Raises:
        AudioError: Empty, not audio, undecodable, NaN or infinite, or the span starts after the end.

    Example:
        >>> load_audio((np.zeros(8000, np.int16), 8000)).duration_s
        1.0
    """
    _check_span(start_s, duration_s, sample_rate_hz)
    start = round(start_s * sample_rate_hz)
    length = None if duration_s is None else max(1, round((start_s + duration_s) * sample_rate_hz) - start)
    with open_source(source, sample_rate_hz) as (name, readers):
        for reader in readers:
            blocks = span_blocks(reader, start=start, length=length, sample_rate_hz=sample_rate_hz, name=name)
            samples = _gather(blocks, sample_rate_hz, name)
            if len(samples):
                wanted_s = None if length is None else length / sample_rate_hz
                lost_s = _lost_s(reader, start / sample_rate_hz, len(samples) / sample_rate_hz, wanted_s)
                waveform = _waveform(samples, sample_rate_hz, name, lost_s)
                _warn(waveform)
                return waveform
            _check_start(reader, start_s, name)
    raise AudioError(f"{name}: holds no samples that decode; expected a recording ({FORMATS})")


def iterate_windows(
    source: AudioSource, window_s: float, *, start_s: float = 0.0, sample_rate_hz: int = SAMPLE_RATE_HZ
) -> Iterator[Waveform]:
    """Yield a recording of any length in windows end to end; memory holds one window.

    Args:
        source: As for `load_audio`.
        window_s: Length of a window in seconds; the last one may be shorter.
        start_s: Where the first window starts.
        sample_rate_hz: Rate of the windows.

    Raises:
        AudioError: As for `load_audio`. A damaged end sets `truncated` on the last window.
    """
    _check_span(start_s, window_s, sample_rate_hz)
    size, start = max(1, round(window_s * sample_rate_hz)), round(start_s * sample_rate_hz)
    with open_source(source, sample_rate_hz) as (name, readers):
        for reader in readers:
            blocks = span_blocks(reader, start=start, length=None, sample_rate_hz=sample_rate_hz, name=name)
            before, total = None, 0
            for window in _regrouped(blocks, size):
                if before is not None:
                    yield _waveform(before, sample_rate_hz, name, None)
                before, total = window, total + len(window)
            if before is not None:
                lost_s = _lost_s(reader, start_s, total / sample_rate_hz, None)
                waveform = _waveform(before, sample_rate_hz, name, lost_s)
                _warn(waveform)
                yield waveform
                return
            _check_start(reader, start_s, name)
    raise AudioError(f"{name}: holds no samples that decode; expected a recording ({FORMATS})")


def audio_info(source: AudioSource) -> AudioInfo:
    """Return length, rate and channels, from the header where it states them, else by decoding.

    Args:
        source: As for `load_audio`.

    Raises:
        AudioError: It is not a recording.
    """
    with open_source(source, SAMPLE_RATE_HZ) as (name, readers):
        for reader in readers:
            duration_s = reader.promised_s
            if duration_s is None:
                duration_s = sum(len(block) for block in reader.blocks()) / reader.rate_hz
            if duration_s > 0:
                return AudioInfo(
                    duration_s=duration_s,
                    sample_rate_hz=reader.rate_hz,
                    channels=reader.channels,
                    container=reader.container,
                )
    raise AudioError(f"{name}: holds no samples that decode; expected a recording ({FORMATS})")


def _check_span(start_s: float, duration_s: float | None, sample_rate_hz: int) -> None:
    if not 0 <= start_s < float("inf"):
        raise AudioError(f"start_s is {start_s}; expected 0 or more seconds")
    if duration_s is not None and not 0 < duration_s < float("inf"):
        raise AudioError(f"the span is {duration_s} s long; expected more than 0 seconds")
    low_hz, high_hz = RATES_HZ
    if not low_hz <= sample_rate_hz <= high_hz:
        raise AudioError(f"sample_rate_hz is {sample_rate_hz}; expected {low_hz} to {high_hz}")


def _check_start(reader: Reader, start_s: float, name: str) -> None:
    """Say so when nothing came because the span starts after the end."""
    if start_s > 0:
        held_s = sum(len(block) for block in reader.blocks()) / reader.rate_hz
        if 0 < held_s <= start_s:
            raise AudioError(f"{name}: the span starts at {start_s:g} s, the recording ends at {held_s:.2f} s")


def _gather(blocks: Iterator[Block], sample_rate_hz: int, name: str) -> Block:
    """Join blocks in one growing buffer."""
    buffer, filled = np.empty(1 << 16, np.float32), 0
    for block in blocks:
        if filled + len(block) > MAX_DURATION_S * sample_rate_hz:
            hours = MAX_DURATION_S / 3600
            raise AudioError(f"{name}: is longer than {hours:g} hours; pass start_s and duration_s, or iterate_windows")
        if filled + len(block) > len(buffer):
            buffer.resize(max(filled + len(block), len(buffer) * 3 // 2), refcheck=False)
        buffer[filled : filled + len(block)] = block
        filled += len(block)
    buffer.resize(filled, refcheck=False)
    return buffer


def _regrouped(blocks: Iterator[Block], size: int) -> Iterator[Block]:
    """Yield blocks of `size` samples, the last one 1 to `size`."""
    window, filled = np.empty(size, np.float32), 0
    for block in blocks:
        taken = 0
        while taken < len(block):
            count = min(size - filled, len(block) - taken)
            window[filled : filled + count] = block[taken : taken + count]
            filled, taken = filled + count, taken + count
            if filled == size:
                yield window
                window, filled = np.empty(size, np.float32), 0
    if filled:
        yield window[:filled]


def _lost_s(reader: Reader, start_s: float, got_s: float, wanted_s: float | None) -> float | None:
    """Return the seconds that are missing of the span, 0 when unknown; None when nothing is missing."""
    if wanted_s is not None and got_s >= wanted_s - 1e-9:
        return None
    ends_s = [] if wanted_s is None else [start_s + wanted_s]
    ends_s += [] if reader.promised_s is None else [reader.promised_s]
    missing_s = min(ends_s) - (start_s + got_s) if reader.promised_s is not None else 0.0
    if reader.damaged:
        return missing_s if missing_s > COUNTED_S else 0.0
    return missing_s if missing_s > LENGTH_TOLERANCE_S else None


def _waveform(samples: Block, sample_rate_hz: int, name: str, lost_s: float | None) -> Waveform:
    return Waveform(
        samples=samples,
        sample_rate_hz=sample_rate_hz,
        name=name,
        truncated=lost_s is not None,
        lost_s=lost_s or 0.0,
    )


def _warn(waveform: Waveform) -> None:
    if waveform.truncated:
        lost = f"{waveform.lost_s:.2f} s are lost" if waveform.lost_s else "an unknown part is lost"
        logger.warning("%s: is damaged; %.2f s decode, %s", waveform.name, waveform.duration_s, lost)
