"""Readers: one recording as mono float32 blocks at its own rate, starting at any frame.

    bytes ──► SndfileReader (wav, aiff, flac, ogg …) ─┐
          └─► MediaReader (mp3, m4a, mp4, webm …)  ───┼─► blocks (n,) ──► resample
    array ──► ArrayReader ────────────────────────────┘

libsndfile goes first, FFmpeg (PyAV) takes what it refuses. MPEG audio and Opus go to FFmpeg at once: libsndfile's MP3
decoder writes to standard error, and neither seeks exactly. A reader never raises once it has opened: where a file is
damaged it stops and sets `damaged`. Only known containers are tried, for a playlist could name other files.

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO, Protocol

import av
import numpy as np
import soundfile

from ossicle.audio import headers

Block = np.ndarray[tuple[int], np.dtype[np.float32]]

BLOCK_FRAMES = 32_768
UNKNOWN_FRAMES = 1 << 60
RECOVERY_FRAMES = 512
INEXACT_SEEK = "OGG"
"""libsndfile lands elsewhere in Vorbis than it says, so that its spans are reached by decoding what lies before."""
UNSAFE_PLANES = 8
"""PyAV counts the planes of a frame up to an empty one; from 8 on there is none, and it would read foreign memory."""
MAX_BAD_PACKETS = 500
EQUAL_FRAMES = 16
NEVER = -UNKNOWN_FRAMES
RATES_HZ = (1_000, 1_000_000)
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,aac,ogg,flac,wav,w64,aiff,au,caf,asf,avi,flv,amr,mpegts,mpeg,ac3,eac3,"
    "wv,ape,tta"
)
SNDFILE_ERRORS = (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError, OverflowError)
MEDIA_ERRORS = (av.error.FFmpegError, RuntimeError, ValueError, OSError, EOFError, OverflowError, IndexError)


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


def mono(block: np.ndarray) -> Block:
    """Return the mean over channels of (n, channels) as (n,) float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return block[:, 0] if block.shape[1] == 1 else block.mean(1, dtype=np.float32)


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


class SndfileReader:
    """What libsndfile opens, by file descriptor where there is one."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self.damaged = handle, False
        self._promise = headers.read_promise(handle, size)
        with self._open() as file:
            self.rate_hz, self.channels, self.container = file.samplerate, file.channels, file.format.lower()
            known = 0 < file.frames < UNKNOWN_FRAMES
            held_s = file.frames / file.samplerate if known and file.samplerate else None
        share = 1.0 + self._promise.missing_share
        self.promised_s = self._promise.duration_s or (held_s * share if held_s else None)

    def _open(self) -> Any:
        self._handle.seek(0)
        try:
            target: Any = self._handle.fileno()
        except OSError:
            target = self._handle
        try:
            return (
                soundfile.SoundFile(target, closefd=False) if isinstance(target, int) else soundfile.SoundFile(target)
            )
        except SNDFILE_ERRORS as error:
            raise Refused(str(error)) from None

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Yield mono blocks from frame `start`."""
        self.damaged, position = False, start
        try:
            for block in self._read(start, BLOCK_FRAMES):
                position += len(block)
                yield block
        except (*SNDFILE_ERRORS, Refused):
            self.damaged = True
        if self.damaged:
            yield from self._recovered(position)
        self.damaged = self.damaged or self._promise.cut

    def _read(self, start: int, frames: int) -> Iterator[Block]:
        with self._open() as file:
            if start and file.format != INEXACT_SEEK:
                file.seek(min(start, file.frames))
            elif start:
                self._skip(file, start)
            while len(block := file.read(frames, dtype="float32", always_2d=True)):
                yield mono(block)

    @staticmethod
    def _skip(file: Any, frames: int) -> None:
        while frames > 0:
            frames -= len(file.read(min(frames, BLOCK_FRAMES), dtype="float32", always_2d=True)) or frames

    def _recovered(self, position: int) -> Iterator[Block]:
        """Yield the whole small blocks of the large one in which decoding failed."""
        try:
            with self._open() as file:
                self._skip(file, position)
                while len(block := file.read(RECOVERY_FRAMES, dtype="float32", always_2d=True)):
                    yield mono(block)
        except (*SNDFILE_ERRORS, Refused):
            return


class MediaReader:
    """What FFmpeg opens: the first audio stream of the container."""

    def __init__(self, handle: BinaryIO, size: int) -> None:
        self._handle, self.damaged = handle, False
        self._promise = headers.read_promise(handle, size)
        with self._open() as container:
            stream = container.streams.audio[0]
            self.container = container.format.name
            self.channels = stream.codec_context.channels
            self.rate_hz = stream.codec_context.sample_rate
            stated = self._stated_length(container, stream) if self._promise.exact_length else None
            self.promised_s = self._promise.duration_s or stated
            try:
                first = next(iter(container.decode(stream)))
                self.rate_hz, self.channels = first.sample_rate, first.layout.nb_channels
            except (*MEDIA_ERRORS, StopIteration):
                self.damaged = True

    def _open(self) -> Any:
        self._handle.seek(0)
        try:
            container = av.open(self._handle, options={"format_whitelist": CONTAINERS}, metadata_errors="ignore")
        except MEDIA_ERRORS as error:
            raise Refused(str(error)) from None
        if not container.streams.audio or container.streams.audio[0].codec_context is None:
            container.close()
            raise Refused("it holds no audio that can be decoded")
        return container

    @staticmethod
    def _stated_length(container: Any, stream: Any) -> float | None:
        if stream.duration and stream.time_base and container.format.name not in ("aac", "matroska,webm"):
            return float(stream.duration * stream.time_base)
        alone = len(container.streams) == 1 and container.format.name == "matroska,webm"
        return container.duration / av.time_base if alone and container.duration else None

    def blocks(self, start: int = 0) -> Iterator[Block]:
        """Yield mono blocks from frame `start`."""
        self.damaged, held, num_held = False, [], 0
        try:
            with self._open() as container:
                for position, block in self._decoded(container, start):
                    if position + len(block) > start:
                        held.append(block[max(0, start - position) :])
                        num_held += len(held[-1])
                    if num_held >= BLOCK_FRAMES:
                        yield np.concatenate(held)
                        held, num_held = [], 0
        except (*MEDIA_ERRORS, Refused):
            self.damaged = True
        if held:
            yield np.concatenate(held)
        self.damaged = self.damaged or self._promise.cut

    def _decoded(self, container: Any, start: int) -> Iterator[tuple[int, Block]]:
        """Yield (first frame, block); packets that end a second before `start` are skipped without decoding."""
        stream = container.streams.audio[0]
        clock = _FrameClock(self.rate_hz)
        bad = 0
        for packet in container.demux(stream):
            if clock.ready and packet.pts is not None and clock.seconds(packet) < start / self.rate_hz - 1.0:
                clock.jumped = True
                continue
            try:
                frames = packet.decode()
            except MEDIA_ERRORS:
                bad, self.damaged = bad + 1, True
                if bad > MAX_BAD_PACKETS:
                    return
                continue
            for frame in frames:
                if frame.sample_rate != self.rate_hz:
                    self.damaged = True
                    return
                bad = 0
                block = frame_to_mono(frame)
                yield clock.place(frame, len(block)), block


class _FrameClock:
    """Counts frames, and after a jump finds its place again by time stamps, on the grid of equal frames."""

    def __init__(self, rate_hz: int) -> None:
        self.rate_hz, self.jumped, self.next = rate_hz, False, 0
        self.origin: float | None = None
        self.first = self.usual = self.num_equal = 0

    @property
    def ready(self) -> bool:
        """All frames after the first had one length, for some while: positions can be computed."""
        return self.num_equal >= EQUAL_FRAMES

    def seconds(self, packet: Any) -> float:
        """Return the packet's time after the first frame."""
        return float(packet.pts * packet.time_base) - (self.origin or 0.0)

    def place(self, frame: Any, length: int) -> int:
        """Return the index of the frame's first sample."""
        if self.origin is None:
            self.origin = float(frame.time or 0.0)
            self.first = length
        else:
            self.usual = self.usual or length
            self.num_equal = self.num_equal + 1 if length == self.usual else NEVER
        if self.jumped and frame.time is not None:
            after_first = (float(frame.time) - self.origin) * self.rate_hz - self.first
            self.next = self.first + round(after_first / self.usual) * self.usual
            self.jumped = False
        place, self.next = self.next, self.next + length
        return place


def frame_to_mono(frame: Any) -> Block:
    """Return a decoded PyAV frame of any sample format as (n,) float32 in -1..1."""
    if frame.format.is_planar and frame.layout.nb_channels >= UNSAFE_PLANES:
        packer = av.AudioResampler(format="flt", layout=frame.layout, rate=frame.sample_rate)
        parts = [frame_to_mono(part) for part in (*packer.resample(frame), *packer.resample(None))]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    return mono(to_float(samples).T)


def to_float(samples: np.ndarray) -> np.ndarray:
    """Return integer samples of any width as float32 in -1..1; floating point ones as float32."""
    if samples.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return samples.astype(np.float32, copy=False)
    if samples.dtype.kind == "u":
        middle = 1 << (8 * samples.dtype.itemsize - 1)
        return ((samples.astype(np.float64) - middle) / middle).astype(np.float32)
    return (samples / float(1 << (8 * samples.dtype.itemsize - 1))).astype(np.float32)


def open_readers(handle: BinaryIO, size: int) -> Iterator[Reader]:
    """Yield the readers that open the recording, best first.

    Raises:
        Refused: None opens it; the text of the last one.
    """
    handle.seek(0)
    media_first = headers.is_mpeg(head := handle.read(64)) or b"OpusHead" in head
    reason, opened = "", False
    for kind in (MediaReader,) if media_first else (SndfileReader, MediaReader):
        try:
            reader: Reader = kind(handle, size)
        except Refused as error:
            reason = str(error)
            continue
        opened = True
        yield reader
    if not opened:
        raise Refused(reason)
