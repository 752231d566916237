"""Runs of consecutive tokens: what `stack`, `pool` and the window-level `qformer` share.

    (C, N, D) ──► (C, ⌈N / size⌉, size, D), the last group filled with zeros that are not real

Source: our choice.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from ossicle.audio.chunk import ceil_div, prefix_mask
from ossicle.types import AudioTokens


def grouped(tokens: AudioTokens, size: int) -> tuple[Tensor, Tensor]:
    """Return (C, G, size, D) groups of tokens, zero where not real, and the (C, G, size) mask of what is real."""
    count = tokens.values.shape[1]
    missing = ceil_div(count, size) * size - count
    values = functional.pad(tokens.values.masked_fill(~tokens.valid[..., None], 0), (0, 0, 0, missing))
    return values.unflatten(1, (-1, size)), functional.pad(tokens.valid, (0, missing)).unflatten(1, (-1, size))


def shrunk_mask(tokens: AudioTokens, size: int) -> Tensor:
    """Return (C, ⌈N / size⌉), True for groups with at least one real token."""
    return prefix_mask(-(-tokens.counts() // size), ceil_div(tokens.values.shape[1], size))
