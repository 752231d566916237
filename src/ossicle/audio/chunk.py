"""All frame, window and token arithmetic. Nobody else computes a length.

A clip longer than an encoder's window is cut on a fixed grid, so that live audio only ever replaces the last window:

    samples  0 ────────── w ────────── 2w ─────── end
    windows  [     0     ][     1     ][   2    ]         the last one may be short
    tokens   n(w)          n(w)         n(end − 2w)       stitched end to end, valid ones only

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """One stretch of one clip: which clip, first sample, number of samples."""

    clip: int
    start: int
    length: int


def ceil_div(a: int, b: int) -> int:
    """Return a / b rounded up."""
    return -(-a // b)


def conv_length(length: int, *, kernel: int, stride: int, padding: int = 0) -> int:
    """Return the output length of a convolution or pooling without dilation, at least 0."""
    return max(0, (length + 2 * padding - kernel) // stride + 1)


def window_grid(lengths: Sequence[int], window_samples: int) -> list[Window]:
    """Return the windows of every clip, clip by clip.

    Example:
        >>> [tuple(window) for window in window_grid([5, 2], 3)]
        [(0, 0, 3), (0, 3, 2), (1, 0, 2)]
    """
    return [
        Window(clip, start, min(window_samples, length - start))
        for clip, length in enumerate(lengths)
        for start in range(0, length, window_samples)
    ]


def cut(audio: Tensor, windows: Sequence[Window]) -> tuple[Tensor, Tensor]:
    """Return the windows as rows, zero-padded to the longest.

    Args:
        audio: (C, S) clips.
        windows: From `window_grid`.

    Returns:
        (W, S') samples and (W,) lengths in samples.
    """
    longest = max(window.length for window in windows)
    rows = audio.new_zeros(len(windows), longest)
    for row, window in enumerate(windows):
        rows[row, : window.length] = audio[window.clip, window.start : window.start + window.length]
    return rows, torch.tensor([window.length for window in windows], device=audio.device)


def stitch(values: Tensor, counts: Sequence[int], windows: Sequence[Window], num_clips: int) -> tuple[Tensor, Tensor]:
    """Join the valid tokens of each clip's windows into one row.

    Args:
        values: (W, N, D) tokens of each window.
        counts: Real tokens of each window, a prefix of its row.
        windows: From `window_grid`, clip by clip.
        num_clips: Number of clips C.

    Returns:
        (C, N', D) values, zero where not real, and (C, N') boolean mask.
    """
    parts: list[list[Tensor]] = [[] for _ in range(num_clips)]
    for row, (window, count) in enumerate(zip(windows, counts, strict=True)):
        parts[window.clip].append(values[row, :count])
    return pad_rows([torch.cat(rows) if len(rows) > 1 else rows[0] for rows in parts])


def pad_rows(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Return rows (N_i, D) as (C, max N, D), zero-padded at the end, and the (C, max N) mask of what is real."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    counts = torch.tensor([len(row) for row in rows], device=padded.device)
    return padded, prefix_mask(counts, padded.shape[1])


def prefix_mask(counts: Tensor, length: int) -> Tensor:
    """Return (C, length) boolean, True for the first `counts[c]` places of row c."""
    return torch.arange(length, device=counts.device) < counts[:, None]
