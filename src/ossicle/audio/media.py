"""Recordings through FFmpeg (PyAV): the first audio stream of mp3, m4a, mp4, webm and whatever libsndfile refuses.

A span is reached by reading packets without decoding them. Where it starts follows from time stamps, which WebM rounds
to milliseconds: on the grid of equal frames they are exact again. Unequal frames are decoded from the start.
Only known containers are tried, for a playlist could name other files.

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import av
import numpy as np

from ossicle.audio import headers
from ossicle.audio.reader import BLOCK_FRAMES, Block, Refused, mono, to_float

UNSAFE_PLANES = 8
"""PyAV counts the planes of a frame up to an empty one; from 8 on there is none, and it would read foreign memory."""
MAX_BAD_PACKETS = 500
EQUAL_FRAMES = 16
"""So many frames of one length in a row make a grid."""
NEVER = -(1 << 60)
CONTAINERS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,mp3,aac,ogg,flac,wav,w64,aiff,au,caf,asf,avi,flv,amr,mpegts,mpeg,ac3,eac3,"
    "wv,ape,tta"
)
MEDIA_ERRORS = (av.error.FFmpegError, RuntimeError, ValueError, OSError, EOFError, OverflowError, IndexError)


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
