"""Front ends: samples to features, in torch, one window of one clip to a row.

    frames ──window──► |FFT|² ──mel──► log ──► the family's own padding and scale

| function          | for                  | frames               | after the clip's end            |
|-------------------|----------------------|----------------------|---------------------------------|
| `log_mel`         | cnn                  | centred in their hop | the floor                       |
| `whisper_log_mel` | whisper              | centred, reflected   | silence, or 0.0 as LTU-AS       |
| `kaldi_fbank`     | ast, sslam           | snipped at the edges | 0.0, before any normalising     |
| `clap_log_mel`    | clap                 | centred, 48 kHz      | the clip repeated, then silence |
| `unit_variance`   | wav2vec2 and kin     | none: samples        | 0.0                             |

All but `whisper_log_mel` look only at a row's own samples, and so does it after padding to its window: a clip gives
the same features alone and in a batch. Constants are cached functions, not module buffers, so that models can be
built on the meta device. Autocast is off inside: half precision destroys a spectrogram.
Source: the extractors of transformers, whose numbers these are (to 1e-4); `log_mel` and its frame grid: our choice.
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ossicle.audio.chunk import ceil_div, conv_length, prefix_mask
from ossicle.types import SAMPLE_RATE_HZ

FRAME_SAMPLES = 400
HOP_SAMPLES = 160
KALDI_FLOOR = float(torch.finfo(torch.float32).eps)

SHARED_CALLS = 4
"""Results of `log_mel` that `shared` keeps: what encoders make of some windows before the next encoder hears them."""
_kept: ContextVar[list[tuple[tuple[object, ...], Tensor, Tensor]] | None] = ContextVar("kept", default=None)

P = ParamSpec("P")
R = TypeVar("R")


class MelBank(NamedTuple):
    """A mel filter bank: everything that its matrix depends on."""

    num_mels: int
    fft: int = 400
    low_hz: float = 0.0
    high_hz: float = 8000.0
    scale: str = "slaney"
    norm: str | None = "slaney"
    sample_rate_hz: int = SAMPLE_RATE_HZ
    triangles_in_mel: bool = False


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run a front end outside autocast."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        device = next(value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)).device
        with torch.autocast(device.type, enabled=False):
            return function(*args, **kwargs)

    return run


@contextmanager
def shared() -> Iterator[None]:
    """Let encoders that hear the same samples through the same front end share its log-mel while this is entered.

    Example:
        >>> with shared():
        ...     a, b = (log_mel(torch.zeros(1, 800), torch.tensor([800]), num_mels=16) for _ in range(2))
        >>> a is b
        True
    """
    token = _kept.set([])
    try:
        yield
    finally:
        _kept.reset(token)


def once(function: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Take the result of the same call on the same samples, where `shared` keeps one; it is not to be written to."""

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        kept, (windows, lengths) = _kept.get(), args[:2]
        assert isinstance(windows, Tensor)
        assert isinstance(lengths, Tensor)
        if kept is None or windows.requires_grad or windows.device.type != "cpu":  # elsewhere comparing is waiting
            return function(*args, **kwargs)
        key = (windows.shape, windows.dtype, windows.device, tuple(lengths.tolist()), *sorted(kwargs.items()))
        for known, samples, result in kept:
            if known == key and torch.equal(samples, windows):
                return result
        result = function(*args, **kwargs)
        if len(kept) < SHARED_CALLS:
            kept.append((key, windows, result))
        return result

    return run


@functools.lru_cache(maxsize=64)
def mel_matrix(bank: MelBank, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (fft // 2 + 1, num_mels) matrix of a bank."""
    from transformers.audio_utils import mel_filter_bank

    with warnings.catch_warnings():
        # Kaldi's 128 filters at 16 kHz have an empty one, in every published model; nothing to tell the caller.
        warnings.filterwarnings("ignore", "At least one mel filter")
        matrix = mel_filter_bank(
            num_frequency_bins=bank.fft // 2 + 1,
            num_mel_filters=bank.num_mels,
            min_frequency=bank.low_hz,
            max_frequency=bank.high_hz,
            sampling_rate=bank.sample_rate_hz,
            norm=bank.norm,
            mel_scale=bank.scale,
            triangularize_in_mel_space=bank.triangles_in_mel,
        )
    with torch.inference_mode(False):
        return torch.from_numpy(np.ascontiguousarray(matrix)).to(device, dtype)


@functools.lru_cache(maxsize=64)
def hann(samples: int, periodic: bool, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return the (samples,) Hann window."""
    with torch.inference_mode(False):
        return torch.hann_window(samples, periodic=periodic, device=device, dtype=dtype)


def _wide(device: torch.device) -> torch.dtype:
    """Return the dtype for spectra whose quietest bins count: double, where the device has it."""
    return torch.float32 if device.type == "mps" else torch.float64


def num_log_mel_frames(num_samples: int, hop_samples: int = HOP_SAMPLES) -> int:
    """Return how many frames of `log_mel` belong to a clip: one for each started hop."""
    return ceil_div(num_samples, hop_samples)


@once
@full_precision
def log_mel(
    windows: Tensor,
    lengths: Tensor,
    *,
    num_mels: int,
    window_samples: int = FRAME_SAMPLES,
    hop_samples: int = HOP_SAMPLES,
    fft: int = 512,
    mel_scale: str = "slaney",
    high_hz: float = SAMPLE_RATE_HZ / 2,
    floor: float = 1e-8,
) -> Tensor:
    """Return the log10 mel power of each window.

    Frame t is centred on the middle of hop t, so that frame and token times are those of the samples they replace.

    Args:
        windows: (W, S) samples at 16 kHz, zero after each row's length.
        lengths: (W,) real samples of each row.
        num_mels: Mel bins F.
        window_samples: Length of a frame under its Hann window.
        hop_samples: Samples from frame to frame.
        fft: Points of the Fourier transform, at least `window_samples`.
        mel_scale: `slaney` (with its area norm), `htk` or `kaldi` (without).
        high_hz: Upper edge of the last filter.
        floor: Smallest power; every frame after a row's end holds exactly log10(floor).

    Returns:
        (W, F, T) float32 with T = `num_log_mel_frames(S)`.
    """
    frames = num_log_mel_frames(windows.shape[1], hop_samples)
    left = (window_samples - hop_samples) // 2
    right = (frames - 1) * hop_samples + window_samples - left - windows.shape[1]
    rows = functional.pad(windows.float(), (left, max(0, right))).unfold(1, window_samples, hop_samples)[:, :frames]
    norm = "slaney" if mel_scale == "slaney" else None
    matrix = mel_matrix(MelBank(num_mels, fft, 0.0, high_hz, mel_scale, norm), windows.device, torch.float32)
    shape = hann(window_samples, True, windows.device, torch.float32)
    together = 1 if windows.device.type == "cpu" else len(windows)  # a row's spectrum fits a CPU's cache, many do not
    mels = torch.cat([_power(part * shape, fft) @ matrix for part in rows.split(together)])  # (W, T, F)
    real = prefix_mask(-(-lengths // hop_samples), frames)[..., None]
    return mels.clamp_min(floor).log10().masked_fill(~real, math.log10(floor)).transpose(1, 2)


def _power(frames: Tensor, fft: int) -> Tensor:
    """Return the (…, bins) power spectrum of frames (…, samples); without the roots that `abs` would take."""
    parts = torch.view_as_real(torch.fft.rfft(frames, fft)).square()
    return parts[..., 0] + parts[..., 1]


@full_precision
def whisper_log_mel(windows: Tensor, *, num_mels: int, num_samples: int) -> Tensor:
    """Return Whisper's log-mel of windows padded with silence to `num_samples`.

    Args:
        windows: (W, S) samples at 16 kHz, zero after each row's end, S at most `num_samples`.
        num_mels: Mel bins F.
        num_samples: Samples of a full window.

    Returns:
        (W, F, num_samples // 160) float32; largest value − 2 is the floor of each row.
    """
    rows = functional.pad(windows.float(), (0, num_samples - windows.shape[1]))
    mels = _whisper_power(rows, num_mels).clamp_min(1e-10).log10()
    mels = torch.maximum(mels, mels.amax((1, 2), keepdim=True) - 8.0)
    return (mels + 4.0) / 4.0


@full_precision
def ltu_whisper_log_mel(clips: Tensor, lengths: Tensor, *, num_mels: int, num_frames: int) -> Tensor:
    """Return Whisper's log-mel as LTU-AS pads it: whole clips, cut or filled to `num_frames` *after* scaling.

    The fill is 0.0 (silence would lie at the largest value − 2), and the floor uses the maximum of the whole clip even
    where the frames kept are quieter. Source: LTU-AS's official code (`pad_or_trim` on the log-mel).

    Args:
        clips: (C, S) samples at 16 kHz.
        lengths: (C,) real samples of each row.
        num_mels: Mel bins F.
        num_frames: Frames T that come out.

    Returns:
        (C, F, T) float32.
    """
    out = clips.new_zeros(len(clips), num_mels, num_frames, dtype=torch.float32)
    for row, (clip, length) in enumerate(zip(clips.float(), lengths.tolist(), strict=True)):
        # Reflection at the edges needs more than half a frame of samples.
        samples = functional.pad(clip[:length], (0, max(0, FRAME_SAMPLES - length)))
        mels = _whisper_power(samples, num_mels).clamp_min(1e-10).log10()
        mels = (torch.maximum(mels, mels.max() - 8.0) + 4.0) / 4.0
        kept = min(num_frames, mels.shape[1])
        out[row, :, :kept] = mels[:, :kept]
    return out


def _whisper_power(samples: Tensor, num_mels: int) -> Tensor:
    """Return (…, F, S // 160) mel power, frames centred, edges reflected, last frame dropped."""
    window = hann(FRAME_SAMPLES, True, samples.device, torch.float32)
    spectrum = torch.stft(samples, FRAME_SAMPLES, HOP_SAMPLES, window=window, return_complex=True)
    power = (spectrum[..., :-1].abs() ** 2).contiguous()
    return mel_matrix(MelBank(num_mels), samples.device, torch.float32).T @ power


def num_kaldi_frames(num_samples: int) -> int:
    """Return the frames of `kaldi_fbank` that belong to a clip, at least 1."""
    return max(1, conv_length(num_samples, kernel=FRAME_SAMPLES, stride=HOP_SAMPLES))


def kaldi_samples(num_frames: int) -> int:
    """Return the samples that fill `num_frames` frames exactly."""
    return FRAME_SAMPLES + (num_frames - 1) * HOP_SAMPLES


@full_precision
def kaldi_fbank(
    windows: Tensor, lengths: Tensor, *, num_frames: int, num_mels: int = 128, remove_mean: bool = False
) -> Tensor:
    """Return Kaldi's log filter bank (25 ms Hann, 10 ms hop, pre-emphasis 0.97, 20 to 8000 Hz, no dither).

    Args:
        windows: (W, S) samples at 16 kHz in −1..1, zero after each row's length.
        lengths: (W,) real samples of each row; a row shorter than one frame is filled up with silence.
        num_frames: Frames T that come out; more are cut, fewer are filled with 0.0.
        num_mels: Mel bins F.
        remove_mean: Subtract the mean of the real samples first (SSLAM, LTU).

    Returns:
        (W, T, F) float32 natural logarithms, not normalised.
    """
    device, dtype = windows.device, _wide(windows.device)
    rows = windows.to(dtype)
    if remove_mean:
        real = prefix_mask(lengths, rows.shape[1])
        rows = (rows - (rows.sum(1) / lengths)[:, None]).masked_fill(~real, 0)
    counts = ((lengths - FRAME_SAMPLES) // HOP_SAMPLES + 1).clamp(1, num_frames)
    samples = kaldi_samples(int(counts.max()))
    rows = functional.pad(rows, (0, max(0, samples - rows.shape[1])))[:, :samples]
    frames = rows.unfold(1, FRAME_SAMPLES, HOP_SAMPLES)  # (W, T', 400)
    frames = frames - frames.mean(-1, keepdim=True)
    frames = torch.cat([frames[..., :1] * 0.03, frames[..., 1:] - 0.97 * frames[..., :-1]], -1)
    power = torch.fft.rfft(frames * hann(FRAME_SAMPLES, False, device, dtype), 512).abs().square()
    bank = MelBank(num_mels, 512, 20.0, SAMPLE_RATE_HZ / 2, "kaldi", None, triangles_in_mel=True)
    mels = (power @ mel_matrix(bank, device, dtype)).clamp_min(KALDI_FLOOR).log()
    mels = mels.masked_fill(~prefix_mask(counts, mels.shape[1])[..., None], 0)
    return functional.pad(mels, (0, 0, 0, num_frames - mels.shape[1])).float()


@full_precision
def unit_variance(windows: Tensor, lengths: Tensor) -> Tensor:
    """Return (W, S) samples scaled to mean 0 and variance 1 over each row's real samples, zero after them."""
    real = prefix_mask(lengths, windows.shape[1])
    rows = windows.to(_wide(windows.device))
    mean = (rows * real).sum(1, keepdim=True) / lengths[:, None]
    centred = (rows - mean) * real
    variance = centred.square().sum(1, keepdim=True) / lengths[:, None]
    return (centred / (variance + 1e-7).sqrt()).float()


class ClapBank(NamedTuple):
    """What differs between CLAP front ends: `fused` models take HTK filters, the others Slaney's."""

    num_mels: int = 64
    low_hz: float = 50.0
    high_hz: float = 14000.0
    fused: bool = False


@full_precision
def clap_log_mel(windows: Tensor, lengths: Tensor, *, bank: ClapBank, num_samples: int) -> Tensor:
    """Return CLAP's log-mel in dB: resampled to 48 kHz, repeated as often as it fits, filled with silence.

    Args:
        windows: (W, S) samples at 16 kHz, zero after each row's length.
        lengths: (W,) real samples of each row.
        bank: The filters.
        num_samples: Samples of a full window at 16 kHz.

    Returns:
        (W, T, F) float32 with T = num_samples · 3 / 480 + 1, from −100 dB up.
    """
    device, dtype = windows.device, _wide(windows.device)
    rows = upsample(windows.to(dtype), 3)
    length, total = 3 * lengths[:, None], 3 * num_samples
    index = torch.arange(total, device=device)[None]
    rows = rows.gather(1, index % length) * (index < total // length * length)
    stft = torch.stft(rows, 1024, 480, window=hann(1024, True, device, dtype), return_complex=True)
    scale, norm = ("htk", None) if bank.fused else ("slaney", "slaney")
    mel_bank = MelBank(bank.num_mels, 1024, bank.low_hz, bank.high_hz, scale, norm, 3 * SAMPLE_RATE_HZ)
    mels = stft.abs().square().transpose(1, 2) @ mel_matrix(mel_bank, device, dtype)
    return (10 * mels.clamp_min(1e-10).log10()).float()


def upsample(rows: Tensor, factor: int, *, half_width: int = 32) -> Tensor:
    """Return (W, factor · S) samples at `factor` times the rate: Kaiser-windowed sinc, cut-off at the old Nyquist."""
    kernel = _upsampling_kernel(factor, half_width, rows.device, rows.dtype)
    phases = functional.conv1d(functional.pad(rows[:, None], (half_width, half_width)), kernel)  # (W, factor, S)
    return phases.transpose(1, 2).flatten(1)


@functools.lru_cache(maxsize=8)
def _upsampling_kernel(factor: int, half_width: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return (factor, 1, 2 · half_width + 1): one interpolating filter for each phase; phase 0 is the sample itself."""
    with torch.inference_mode(False):
        taps = torch.arange(-half_width, half_width + 1, dtype=torch.float64)
        shift = torch.arange(factor, dtype=torch.float64)[:, None] / factor
        distance = taps - shift
        window = torch.special.i0(9.0 * (1 - (distance / (half_width + 1)).square()).clamp_min(0).sqrt())
        kernel = torch.sinc(distance) * window / torch.special.i0(torch.tensor(9.0, dtype=torch.float64))
        return (kernel / kernel.sum(1, keepdim=True))[:, None].to(device, dtype)
