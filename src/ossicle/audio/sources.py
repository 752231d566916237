"""What a person may hand over as a recording, and its readers: path, bytes, file object, array, tensor, `Waveform`.

Everything that is none of these, is empty, or cannot be opened ends here in one line.

Source: our choice.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ossicle.audio.decode import open_readers
from ossicle.audio.headers import read_promise
from ossicle.audio.reader import RATES_HZ, ArrayReader, Reader, Refused, to_float
from ossicle.errors import AudioError
from ossicle.types import Waveform

AudioSource = Any
"""A path, bytes, binary file object, array, (array, rate_hz), tensor or `Waveform`."""

FORMATS = "wav, aiff, flac, mp3, ogg, m4a, mp4 or webm"


class _Memory(io.BytesIO):
    """Bytes as a file that answers an impossible seek as a disk file does to C code: by staying where it is."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        try:
            return super().seek(offset, whence)
        except (ValueError, OverflowError):
            return self.tell()


@contextmanager
def open_source(source: AudioSource, sample_rate_hz: int) -> Iterator[tuple[str, Iterator[Reader]]]:
    """Give the recording's name, and its readers, best first."""
    with ExitStack() as stack:
        if isinstance(source, Waveform):
            yield source.name, iter([_array_reader(source.samples, source.sample_rate_hz, source.name)])
        elif isinstance(source, (str, Path)):
            handle = stack.enter_context(_open_path(source))
            yield str(source), _file_readers(handle, handle.seek(0, io.SEEK_END), str(source))
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
