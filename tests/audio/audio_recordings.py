"""Recordings in every format, made on the spot with soundfile and PyAV."""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import av
import numpy as np
import soundfile
import soxr

TONE_HZ = 440.0
TONE_PEAK = 0.25
PIECE = 65_536
"""Frames written at once: libsndfile's Vorbis encoder overruns its stack on a minute in one call."""


def tone(seconds: float, rate_hz: int, *, hz: float = TONE_HZ, peak: float = TONE_PEAK) -> np.ndarray:
    """Return (S,) float32 of a sine."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (peak * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def sweep(seconds: float, rate_hz: int) -> np.ndarray:
    """Return (S,) float32 of a rising tone from 200 Hz: no two moments are alike."""
    time_s = np.arange(round(seconds * rate_hz)) / rate_hz
    return (0.3 * np.sin(2 * np.pi * (200 * time_s + 120 * time_s**2))).astype(np.float32)


def by_soundfile(samples: np.ndarray, rate_hz: int, container: str, subtype: str) -> bytes:
    """Return a file written by libsndfile; `samples` is (S,) or (S, C)."""
    buffer = io.BytesIO()
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    with soundfile.SoundFile(buffer, "w", rate_hz, channels, format=container, subtype=subtype) as file:
        for first in range(0, len(samples), PIECE):
            file.write(samples[first : first + PIECE])
    return buffer.getvalue()


def by_av(
    samples: np.ndarray,
    rate_hz: int,
    container: str,
    codec: str,
    *,
    options: dict[str, str] | None = None,
    layout: str = "mono",
) -> bytes:
    """Return a file written by FFmpeg; `samples` is (S,) or (C, S)."""
    samples = np.atleast_2d(samples)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "clip"
        with av.open(str(path), "w", format=container, options=options or {}) as target:
            stream = target.add_stream(codec, rate=rate_hz, layout=layout)
            convert = av.AudioResampler(format=stream.format.name, layout=layout, rate=rate_hz)
            for first in range(0, samples.shape[1], 1024):
                block = np.ascontiguousarray(samples[:, first : first + 1024].T.reshape(1, -1))
                frame = av.AudioFrame.from_ndarray(block, format="flt", layout=layout)
                frame.sample_rate, frame.pts = rate_hz, first
                for part in convert.resample(frame):
                    target.mux(stream.encode(part))
            target.mux(stream.encode(None))
        return path.read_bytes()


SOUNDFILE_KINDS = {
    "wav u8": ("WAV", "PCM_U8"),
    "wav 16": ("WAV", "PCM_16"),
    "wav 24": ("WAV", "PCM_24"),
    "wav 32": ("WAV", "PCM_32"),
    "wav float": ("WAV", "FLOAT"),
    "wav double": ("WAV", "DOUBLE"),
    "wav adpcm": ("WAV", "MS_ADPCM"),
    "aiff 8": ("AIFF", "PCM_S8"),
    "aiff 16": ("AIFF", "PCM_16"),
    "aiff 24": ("AIFF", "PCM_24"),
    "flac 16": ("FLAC", "PCM_16"),
    "flac 24": ("FLAC", "PCM_24"),
    "ogg vorbis": ("OGG", "VORBIS"),
    "mp3 sndfile": ("MP3", "MPEG_LAYER_III"),
}
AV_KINDS = {
    "mp3": (44_100, "mp3", "libmp3lame", {}),
    "ogg opus": (48_000, "ogg", "libopus", {}),
    "webm": (48_000, "webm", "libopus", {}),
    "m4a": (44_100, "ipod", "aac", {}),
    "mp4": (16_000, "mp4", "aac", {}),
    "m4a faststart": (44_100, "ipod", "aac", {"movflags": "faststart"}),
    "m4a fragments": (44_100, "ipod", "aac", {"movflags": "frag_keyframe+empty_moov"}),
    "aac": (44_100, "adts", "aac", {}),
    "mov pcm": (44_100, "mov", "pcm_s16le", {}),
    "mka flac": (44_100, "matroska", "flac", {}),
}
KINDS = (*SOUNDFILE_KINDS, *AV_KINDS)
CANNOT_LOSE_ITS_END = {"m4a", "mp4", "mov pcm"}
"""The index stands at the end, so that nothing decodes once it is cut off."""


def encode(samples: np.ndarray, rate_hz: int, kind: str) -> bytes:
    """Return the samples as a file of one of `KINDS`."""
    if kind in SOUNDFILE_KINDS:
        return by_soundfile(samples, rate_hz, *SOUNDFILE_KINDS[kind])
    native_hz, container, codec, options = AV_KINDS[kind]
    samples = samples if rate_hz == native_hz else soxr.resample(samples, rate_hz, native_hz)
    return by_av(samples, native_hz, container, codec, options=options)


@cache
def tone_file(kind: str) -> bytes:
    """Return two seconds of the tone, made once."""
    return encode(tone(2.0, 44_100), 44_100, kind)


@cache
def sweep_file(kind: str) -> bytes:
    """Return four seconds of the sweep, made once."""
    return encode(sweep(4.0, 44_100), 44_100, kind)
