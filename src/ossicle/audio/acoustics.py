"""Measures of a recording: how loud, how high, how bright, how fast, how noisy, how much silence.

    waveform ─┬─► 10 ms levels ─► silence, pauses, SNR, syllable peaks
              ├─► pitch track ─► F0 median and range, voiced share
              └─► long-term spectrum ─► centroid

A measure that this clip cannot support is None, never a made-up number: no F0 without voicing, no SNR without quiet
stretches, nothing but levels from a few milliseconds.

- Levels are dB relative to full scale, where a full-scale sine has −3.01 dB RMS.
- Speaking rate is a proxy: voiced peaks of the level, 1 dB above the dips around them, per second. The paper's 2 dB
  count a fifth too few on read speech with these 30 ms levels.
- SNR compares the mean power with that of the quietest tenth; it needs a clip that rises above its own floor.

Source: de Jong and Wempe 2009 for syllable peaks; ITU-R BS.1770 for LUFS; the others are our choice.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ossicle.audio.io import load_audio
from ossicle.audio.loudness import integrated_lufs
from ossicle.audio.pitch import PitchTrack, track_pitch
from ossicle.errors import AudioError
from ossicle.types import SAMPLE_RATE_HZ, Waveform

HOP_S = 0.01
SMOOTH_FRAMES = 3
FLOOR_DB = -100.0
SILENT_DB = -60.0
SILENT_BELOW_LOUD_DB = 30.0
MIN_PAUSE_S = 0.25
PEAK_ABOVE_DIP_DB = 1.0
MIN_VOICED_S = 0.05
MIN_SPEECH_S = 0.5
MIN_SNR_S = 0.5
MIN_RISE_DB = 6.0
VOICE_GAP_S, VOICE_EDGE_S = 0.35, 0.1
SPECTRUM_S = 1.024
BLOCK_FRAMES = 6_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Acoustics:
    """What was measured; None = this clip does not support the measure.

    Attributes:
        duration_s: Length, seconds.
        rms_db: Level of the whole clip, dBFS; −100 for digital silence.
        loudness_lufs: Integrated loudness, LUFS; None below 0.4 s or for silence.
        peak_db: Largest sample, dBFS; −100 for digital silence.
        f0_median_hz: Median F0 of voiced frames, Hz; None below 50 ms of voicing.
        f0_low_hz: 5th percentile of F0, Hz.
        f0_high_hz: 95th percentile of F0, Hz.
        voiced_share: Voiced frames over all frames, 0..1.
        voice_share: Time of stretches with voicing, gaps up to 0.35 s and edges of 0.1 s included, 0..1.
        centroid_hz: Power-weighted mean frequency, Hz; None for digital silence.
        silence_share: Time quieter than −60 dBFS or 30 dB below the clip's loud parts, 0..1.
        num_pauses: Silences of 0.25 s or more between sounds.
        pause_s: Their total length, seconds.
        snr_db: Mean power over that of the quietest tenth, dB; None for steady clips, digital silence, below 0.5 s.
        syllables_per_s: Voiced level peaks per second of the clip, pauses included; None below 0.5 s or without voice.
    """

    duration_s: float
    rms_db: float
    loudness_lufs: float | None
    peak_db: float
    f0_median_hz: float | None
    f0_low_hz: float | None
    f0_high_hz: float | None
    voiced_share: float
    voice_share: float
    centroid_hz: float | None
    silence_share: float
    num_pauses: int
    pause_s: float
    snr_db: float | None
    syllables_per_s: float | None


def measure(waveform: Waveform) -> Acoustics:
    """Measure a recording.

    Args:
        waveform: At least one sample; it is measured at 16 kHz.

    Raises:
        AudioError: It holds no sample, or NaN or infinite ones.

    Example:
        >>> tone = np.sin(2 * np.pi * 200 * np.arange(16000) / 16000).astype(np.float32)
        >>> result = measure(Waveform(samples=tone))
        >>> round(result.f0_median_hz), round(result.rms_db)
        (200, -3)
    """
    if waveform.sample_rate_hz != SAMPLE_RATE_HZ:
        waveform = load_audio(waveform)
    samples = np.asarray(waveform.samples, np.float32)
    if not len(samples) or not np.isfinite(samples).all():
        raise AudioError(f"{waveform.name}: holds no samples, or NaN or infinite ones; nothing to measure")
    levels_db = frame_levels_db(samples, SAMPLE_RATE_HZ)
    sounding = _sounding(levels_db)
    pitch = track_pitch(samples, SAMPLE_RATE_HZ)
    pauses = _pauses_s(sounding)
    f0_hz = pitch.f0_hz[pitch.voiced]
    heard = len(f0_hz) * pitch.hop_s >= MIN_VOICED_S
    low, middle, high = np.percentile(f0_hz, (5, 50, 95)) if heard else (None, None, None)
    return Acoustics(
        duration_s=waveform.duration_s,
        rms_db=rms_db(samples),
        loudness_lufs=integrated_lufs(samples, SAMPLE_RATE_HZ),
        peak_db=_decibel(float(np.abs(samples).max()) ** 2),
        f0_median_hz=None if middle is None else float(middle),
        f0_low_hz=None if low is None else float(low),
        f0_high_hz=None if high is None else float(high),
        voiced_share=float(pitch.voiced.mean()) if len(pitch.voiced) else 0.0,
        voice_share=voice_share(pitch, len(samples) / SAMPLE_RATE_HZ),
        centroid_hz=spectral_centroid_hz(samples, SAMPLE_RATE_HZ),
        silence_share=float(1 - sounding.mean()),
        num_pauses=len(pauses),
        pause_s=float(sum(pauses)),
        snr_db=_snr_db(levels_db),
        syllables_per_s=_syllables_per_s(levels_db, sounding, pitch) if heard else None,
    )


def rms_db(samples: np.ndarray) -> float:
    """Return the level of (S,) samples in dBFS, −100 for silence.

    Example:
        >>> round(rms_db(np.full(100, 0.1)))
        -20
    """
    return _decibel(float(np.mean(np.square(samples, dtype=np.float64))))


def voice_share(pitch: PitchTrack, duration_s: float) -> float:
    """Return the share of the time in which somebody speaks, where somebody does: speech is voiced about half the time.

    Args:
        pitch: F0 of the clip.
        duration_s: Its length.
    """
    total = end_before = 0.0
    runs = [
        (pitch.start_s + (first - 0.5) * pitch.hop_s, pitch.start_s + (end - 0.5) * pitch.hop_s)
        for first, end in _runs(pitch.voiced)
        if (end - first) * pitch.hop_s >= MIN_VOICED_S
    ]
    for first, end in runs:
        gap = first - end_before
        start = end_before if end_before and gap <= VOICE_GAP_S else max(first - VOICE_EDGE_S, end_before, 0.0)
        stop = min(end + VOICE_EDGE_S, duration_s)
        total, end_before = total + stop - start, stop
    return min(1.0, total / duration_s)


def spectral_centroid_hz(samples: np.ndarray, rate_hz: int) -> float | None:
    """Return the power-weighted mean frequency of (S,) samples in Hz; None for digital silence."""
    size = round(SPECTRUM_S * rate_hz)
    weighted = total = 0.0
    for first in range(0, len(samples), size):
        part = samples[first : first + size]
        spectrum = np.fft.rfft(part, 1 << (len(part) - 1).bit_length())
        power = spectrum.real**2 + spectrum.imag**2
        power /= 2 * (len(power) - 1) or 1
        total += float(power.sum())
        weighted += float(power @ np.linspace(0, rate_hz / 2, len(power), dtype=power.dtype))
    return weighted / total if total > 0 else None


def frame_levels_db(samples: np.ndarray, rate_hz: int) -> np.ndarray:
    """Return (T,) the level of each 10 ms in dBFS, not below −100; a shorter clip is one frame."""
    hop = min(round(HOP_S * rate_hz), len(samples))
    whole = samples[: len(samples) // hop * hop].reshape(-1, hop)
    power = np.concatenate(
        [np.mean(np.square(whole[i : i + BLOCK_FRAMES]), axis=1) for i in range(0, len(whole), BLOCK_FRAMES)]
    )
    return np.maximum(10 * np.log10(power.astype(np.float64) + 1e-20), FLOOR_DB)


def _decibel(power: float) -> float:
    return max(10 * math.log10(power), FLOOR_DB) if power > 0 else FLOOR_DB


def _sounding(levels_db: np.ndarray) -> np.ndarray:
    """Return (T,) True where a frame, smoothed, is not silent."""
    loud_db = float(np.percentile(levels_db, 95))
    return _smooth(levels_db) > max(SILENT_DB, loud_db - SILENT_BELOW_LOUD_DB)


def _smooth(levels_db: np.ndarray) -> np.ndarray:
    """Return the levels of the mean power over 30 ms."""
    power = 10 ** (levels_db / 10)
    share = np.convolve(np.ones_like(power), np.ones(SMOOTH_FRAMES), "same")[: len(power)]
    mean = np.convolve(power, np.ones(SMOOTH_FRAMES), "same")[: len(power)] / share
    smooth: np.ndarray = 10 * np.log10(mean + 1e-20)
    return smooth


def _runs(mask: np.ndarray) -> list[tuple[int, int]]:
    """Return (first, end) of each run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def _pauses_s(sounding: np.ndarray) -> list[float]:
    """Return the lengths of silences between sounds."""
    inside = [(first, end) for first, end in _runs(~sounding) if first > 0 and end < len(sounding)]
    return [(end - first) * HOP_S for first, end in inside if (end - first) * HOP_S >= MIN_PAUSE_S - 1e-9]


def _snr_db(levels_db: np.ndarray) -> float | None:
    if len(levels_db) * HOP_S < MIN_SNR_S:
        return None
    smooth = _smooth(levels_db)
    floor_db, loud_db = np.percentile(smooth, (10, 90))
    if loud_db - floor_db < MIN_RISE_DB or floor_db <= FLOOR_DB + 1:
        return None
    noise = 10 ** (floor_db / 10)
    return float(10 * np.log10(max(float(np.mean(10 ** (levels_db / 10))) - noise, 1e-12) / noise))


def _syllables_per_s(levels_db: np.ndarray, sounding: np.ndarray, pitch: PitchTrack) -> float | None:
    if len(levels_db) * HOP_S < MIN_SPEECH_S:
        return None
    smooth = _smooth(levels_db)
    index = np.rint((np.arange(len(levels_db)) + 0.5 - pitch.start_s / HOP_S) * HOP_S / pitch.hop_s).astype(int)
    voiced = pitch.voiced[np.clip(index, 0, len(pitch.voiced) - 1)]
    count, dip_db = 0, -math.inf
    peak_db, peak_counts = -math.inf, False
    for level, is_nucleus in zip(smooth.tolist(), (sounding & voiced).tolist(), strict=True):
        if level > peak_db:
            peak_db, peak_counts = level, is_nucleus
        elif level < peak_db - PEAK_ABOVE_DIP_DB:
            if peak_counts and peak_db > dip_db + PEAK_ABOVE_DIP_DB:
                count += 1
            dip_db, peak_db, peak_counts = level, level, False
        if level < dip_db:
            dip_db, peak_db, peak_counts = level, level, False
    if peak_counts and peak_db > dip_db + PEAK_ABOVE_DIP_DB:
        count += 1
    return count / (len(levels_db) * HOP_S)
