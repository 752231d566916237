"""Reading recordings: anything a person may hand over becomes a `Waveform`, or one clear `AudioError`.

    path · bytes · file object · array · tensor · Waveform
        └─► reader (decode) ─► span at 16 kHz mono (resample) ─► Waveform(truncated=…, lost_s=…)

What is damaged is read as far as it decodes; a log line and `truncated` say so.

Source: our choice.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ossicle.audio.decode import (
    RATES_HZ,
    ArrayReader,
    Block,
    Reader,
    Refused,
    open_readers,
    to_float,
)
from ossicle.audio.headers import read_promise
from ossicle.audio.resample import span_blocks
from ossicle.errors import AudioError
from ossicle.types import SAMPLE_RATE_HZ, Waveform

AudioSource = Any
"""A path, bytes, binary file object, array, (array, rate_hz), tensor or `Waveform`."""

FORMATS = "wav, aiff, flac, mp3, ogg, m4a, mp4 or webm"
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
    with _readers(source, sample_rate_hz) as (name, readers):
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
    with _readers(source, sample_rate_hz) as (name, readers):
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
    with _readers(source, SAMPLE_RATE_HZ) as (name, readers):
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


class _Memory(io.BytesIO):
    """Bytes as a file that answers an impossible seek as a disk file does to C code: by staying where it is."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


@contextmanager
def _readers(source: AudioSource, sample_rate_hz: int) -> Iterator[tuple[str, Iterator[Reader]]]:
    """Give the recording's name, and its readers, best first."""
    with ExitStack() as stack:
        if isinstance(source, Waveform):
            yield source.name, iter([_array_reader(source.samples, source.sample_rate_hz, source.name)])
        elif isinstance(source, (str, Path)):
            handle = stack.enter_context(_open_path(source))
            yield str(source), _file_readers(handle, Path(source).stat().st_size, str(source))
        elif isinstance(source, (bytes, bytearray, memoryview)):
            data = bytes(source)
            yield "<bytes>", _file_readers(_Memory(data), len(data), "<bytes>")
        elif hasattr(source, "read"):
            data, name = _read_all(source)
            yield name, _file_readers(_Memory(data), len(data), name)
        else:
            samples, rate_hz = _split_pair(source, sample_rate_hz)
            yield "<array>", iter([_array_reader(samples, rate_hz, "<array>")])


def _file_readers(handle: BinaryIO, size: int, name: str) -> Iterator[Reader]:
    if size == 0:
        raise AudioError(f"{name}: is empty (0 bytes); expected a recording ({FORMATS})")
    low_hz, high_hz = RATES_HZ
    try:
        for reader in open_readers(handle, size):
            if not low_hz <= reader.rate_hz <= high_hz:
                raise AudioError(f"{name}: states {reader.rate_hz} samples per second; expected {low_hz} to {high_hz}")
            yield reader
    except Refused as refused:
        reason = re.sub(r"\[Errno \d+\] |: '?<.*", "", str(refused)).strip().lower() or "unknown format"
        if read_promise(handle, size).cut:
            reason = "it is cut off, and what a decoder needs lies in the missing part"
        raise AudioError(f"{name}: is not a recording that can be decoded ({reason}); expected {FORMATS}") from None
    except OSError as error:
        raise AudioError(f"{name}: cannot be read ({error.strerror or error})") from None


def _open_path(source: str | Path) -> BinaryIO:
    try:
        path = Path(source).expanduser()
        if path.is_dir():
            raise AudioError(f"{source}: is a folder; expected one recording ({FORMATS})")
        if not path.exists():
            raise AudioError(f"{source}: no such file")
        if not path.is_file():
            raise AudioError(f"{source}: is not an ordinary file; read it and pass its bytes, or use '-' for stdin")
        return path.open("rb")
    except (OSError, ValueError, RuntimeError) as error:
        raise AudioError(f"{str(source)!r}: cannot be opened ({getattr(error, 'strerror', None) or error})") from None


def _read_all(file: Any) -> tuple[bytes, str]:
    name = getattr(file, "name", None)
    name = name if isinstance(name, str) else "<file>"
    try:
        data = file.read()
    except (OSError, ValueError) as error:
        raise AudioError(f"{name}: cannot be read ({error})") from None
    if not isinstance(data, (bytes, bytearray)):
        raise AudioError(f"{name}: gives {type(data).__name__}, expected bytes; open it in binary mode ('rb')")
    return bytes(data), name


def _split_pair(source: Any, sample_rate_hz: int) -> tuple[Any, int]:
    """Return samples and rate of an array, `(array, rate_hz)` or `(rate_hz, array)`."""
    if not (isinstance(source, tuple) and len(source) == 2):
        return source, sample_rate_hz
    first, second = source
    samples, rate_hz = (second, first) if isinstance(first, (int, np.integer)) else (first, second)
    if isinstance(rate_hz, (bool, np.bool_)) or not isinstance(rate_hz, (int, np.integer)):
        raise AudioError(f"<array>: a pair is (samples, rate_hz) with a whole rate_hz, got {type(rate_hz).__name__}")
    return samples, int(rate_hz)


def _array_reader(samples: Any, rate_hz: int, name: str) -> Reader:
    if hasattr(samples, "detach"):
        samples = samples.detach().cpu()
        samples = (samples.float() if samples.is_floating_point() else samples).numpy()
    if not isinstance(samples, np.ndarray):
        raise AudioError(f"{name}: got {type(samples).__name__}; expected a path, bytes, file object, array or tensor")
    if samples.dtype.kind not in "fiu" or (samples.dtype.kind != "f" and samples.dtype.itemsize > 4):
        raise AudioError(f"{name}: has dtype {samples.dtype}; expected floating point, or integers of 8 to 32 bit")
    if samples.ndim not in (1, 2):
        raise AudioError(f"{name}: has shape {samples.shape}; expected (samples,) or (channels, samples)")
    if samples.size == 0:
        raise AudioError(f"{name}: holds no samples (shape {samples.shape})")
    low_hz, high_hz = RATES_HZ
    if not low_hz <= rate_hz <= high_hz:
        raise AudioError(f"{name}: states {rate_hz} samples per second; expected {low_hz} to {high_hz}")
    if samples.ndim == 1:
        samples = samples[:, None]
    elif samples.shape[0] <= samples.shape[1]:
        samples = samples.T
    return ArrayReader(to_float(samples), rate_hz)


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
