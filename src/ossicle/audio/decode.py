"""Which reader opens a file, and the one on libsndfile.

libsndfile goes first, FFmpeg takes what it refuses. MPEG audio and Opus go to FFmpeg at once: libsndfile's MP3 decoder
writes to standard error, and neither seeks exactly.

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import soundfile

from ossicle.audio import headers
from ossicle.audio.media import MediaReader
from ossicle.audio.reader import BLOCK_FRAMES, Block, Reader, Refused, mono

UNKNOWN_FRAMES = 1 << 60
RECOVERY_FRAMES = 512
INEXACT_SEEK = "OGG"
"""libsndfile lands elsewhere in Vorbis than it says, so that its spans are reached by decoding what lies before."""
SNDFILE_ERRORS = (soundfile.SoundFileError, RuntimeError, ValueError, TypeError, OSError, OverflowError)


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
