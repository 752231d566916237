"""What a file's own header promises, so that a cut-off recording is noticed although its decoder says nothing.

    RIFF, AIFF   data chunk says 441 000 bytes, the file holds 300 000   → the missing share
    Ogg          the last page carries no end mark, or is itself cut     → cut; with it, the length in samples
    MP4, WebM    a top-level box or segment runs past the end of the file → cut
    MP3          a Xing or Info tag exists                                → the decoder's length is real, not a guess

Source: RIFF/RF64 (EBU Tech 3306), AIFF 1.3, RFC 3533 and RFC 7845 (Ogg, Opus), ISO 14496-12, RFC 8794 (EBML).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

HEAD_BYTES = 65_536
MAX_OGG_PAGE_BYTES = 65_307
MAX_CHUNKS = 4096
STREAMED_RIFF_BYTES = 0x7FFF_F000
"""Programs that write to a pipe put sizes from here up into a 32-bit header; they promise nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """What the header says about the end of the file.

    Attributes:
        cut: The file ends before its own structure does.
        missing_share: Missing bytes divided by bytes that are there, for uncompressed sound; else 0.
        duration_s: Length in seconds, where the container states it outside the decoder's reach.
        exact_length: The length that a decoder reports comes from the file and not from an estimate.
    """

    cut: bool = False
    missing_share: float = 0.0
    duration_s: float | None = None
    exact_length: bool = True


def is_mpeg(head: bytes) -> bool:
    """Return whether the file starts like MP3 or raw AAC: an ID3 tag or a frame header."""
    return head[:3] == b"ID3" or (len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0)


def read_promise(handle: BinaryIO, size: int) -> Promise:
    """Read what the file promises; an unknown format promises nothing.

    Args:
        handle: Seekable binary file; its position changes.
        size: Length of the file in bytes.
    """
    handle.seek(0)
    head = handle.read(HEAD_BYTES)
    magic, kind = head[:4], head[4:8]
    if magic in (b"RIFF", b"RIFX", b"RF64", b"BW64"):
        return _riff(handle, size, ">" if magic == b"RIFX" else "<")
    if magic == b"FORM":
        return _aiff(handle, size)
    if magic == b"OggS":
        return _ogg(handle, size, head)
    if kind in (b"ftyp", b"moov", b"mdat", b"free", b"styp"):
        return Promise(cut=_boxes_run_over(handle, size))
    if magic == b"\x1a\x45\xdf\xa3":
        return Promise(cut=_segment_runs_over(head, size))
    if is_mpeg(head):
        return Promise(exact_length=_has_xing_tag(handle, head))
    return Promise()


def _chunks(handle: BinaryIO, size: int, order: str) -> list[tuple[bytes, int, int]]:
    """Return (name, first byte, stated length) of each chunk until one runs past the end."""
    found: list[tuple[bytes, int, int]] = []
    position = 12
    while position + 8 <= size and len(found) < MAX_CHUNKS:
        handle.seek(position)
        name, length = struct.unpack(order + "4sI", handle.read(8))
        found.append((name, position + 8, length))
        position += 8 + length + length % 2
    return found


def _shortfall(stated: int, start: int, size: int) -> Promise:
    held = size - start
    if stated <= held:
        return Promise()
    return Promise(cut=True, missing_share=(stated - held) / held if held > 0 else 0.0)


def _riff(handle: BinaryIO, size: int, order: str) -> Promise:
    long_data = None
    for name, start, length in _chunks(handle, size, order):
        if name == b"ds64" and start + 16 <= size:
            handle.seek(start + 8)
            long_data = struct.unpack("<Q", handle.read(8))[0]
        if name == b"data":
            if length >= STREAMED_RIFF_BYTES:
                return _shortfall(long_data, start, size) if long_data else Promise()
            return _shortfall(length, start, size)
    return Promise()


def _aiff(handle: BinaryIO, size: int) -> Promise:
    for name, start, length in _chunks(handle, size, ">"):
        if name == b"SSND":
            return _shortfall(length - 8, start + 8, size)
    return Promise()


def _ogg(handle: BinaryIO, size: int, head: bytes) -> Promise:
    start = max(0, size - 2 * MAX_OGG_PAGE_BYTES)
    handle.seek(start)
    tail = handle.read()
    last = tail.rfind(b"OggS")
    page = tail[last:]
    if last < 0 or len(page) < 27 or len(page) < 27 + page[26]:
        return Promise(cut=True)
    body = sum(page[27 : 27 + page[26]])
    if len(page) < 27 + page[26] + body or not page[5] & 0x04:
        return Promise(cut=True)
    granule, serial = struct.unpack("<qI", page[6:18])
    if granule <= 0 or serial != struct.unpack("<I", head[14:18])[0]:
        return Promise()
    return Promise(duration_s=_ogg_seconds(head, granule))


def _ogg_seconds(head: bytes, granule: int) -> float | None:
    """Return the time of a granule position: Opus counts at 48 kHz and from before its pre-skip."""
    opus, vorbis = head.find(b"OpusHead"), head.find(b"\x01vorbis")
    if 0 <= opus <= len(head) - 12:
        return float(granule - struct.unpack("<H", head[opus + 10 : opus + 12])[0]) / 48_000
    if 0 <= vorbis <= len(head) - 16:
        rate_hz = struct.unpack("<I", head[vorbis + 12 : vorbis + 16])[0]
        return float(granule) / rate_hz if rate_hz else None
    return None


def _boxes_run_over(handle: BinaryIO, size: int) -> bool:
    position = 0
    for _ in range(MAX_CHUNKS):
        handle.seek(position)
        header = handle.read(16)
        if len(header) < 8:
            return len(header) > 0
        length = int.from_bytes(header[:4], "big")
        if length == 0:
            return False
        if length == 1:
            length = int.from_bytes(header[8:16], "big")
        if length < 8 or position + length > size:
            return True
        position += length
    return False


def _ebml_size(data: bytes, position: int) -> tuple[int | None, int]:
    """Return (length or None where unknown, next position) of a variable-length size."""
    first = data[position] if position < len(data) else 0
    if first == 0:
        return None, position + 1
    width = 9 - first.bit_length()
    value = int.from_bytes(data[position : position + width], "big") & ((1 << (7 * width)) - 1)
    return (None if value == (1 << (7 * width)) - 1 else value), position + width


def _segment_runs_over(head: bytes, size: int) -> bool:
    length, position = _ebml_size(head, 4)
    position += length or 0
    if head[position : position + 4] != b"\x18\x53\x80\x67":
        return False
    length, position = _ebml_size(head, position + 4)
    return length is not None and position + length > size


def _has_xing_tag(handle: BinaryIO, head: bytes) -> bool:
    start = 0
    if head[:3] == b"ID3" and len(head) >= 10:
        start = 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))
    handle.seek(start)
    first = handle.read(4096)
    return b"Xing" in first or b"Info" in first or b"VBRI" in first
