"""Tokens of one encoder onto the clock of another, by the exact times of both.

    base    |  0  |  1  |  2  |  3  |          token n covers n/r … (n+1)/r seconds
    faster  |0|1|2|3|4|5|6|7|8|9|              mean over what token n covers, parts of tokens counted as parts
    slower  |    0    |    1    |              linear between the middles of its two neighbours

`nearest` takes the one token that holds the middle of the base's. A place past the last real token holds that token.
Source: our choice (how MoWE-Audio aligns its encoders is unknown).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor


def shares(ratio: float, num: int, *, nearest: bool = False) -> tuple[Tensor, Tensor]:
    """Return which tokens a base token is made of, and in which shares.

    Args:
        ratio: Tokens of the other encoder per base token.
        num: Base tokens N.
        nearest: One token alone instead.

    Returns:
        (N, K) int64 index (it may lie outside the clip) and (N, K) float32 share; shares of a row sum to 1.

    Example:
        >>> shares(2.0, 2)[1].tolist()
        [[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]]
    """
    place = torch.arange(num, dtype=torch.float64)
    if nearest:
        index = ((place + 0.5) * ratio).floor()[:, None]
        share = torch.ones_like(index)
    elif ratio < 1:
        middle = (place + 0.5) * ratio - 0.5
        left = middle.floor()
        index = torch.stack([left, left + 1], 1)
        share = torch.stack([left + 1 - middle, middle - left], 1)
    else:
        start, end = place * ratio, (place + 1) * ratio
        index = start.floor()[:, None] + torch.arange(math.ceil(ratio) + 1, dtype=torch.float64)
        share = (torch.minimum(index + 1, end[:, None]) - torch.maximum(index, start[:, None])).clamp(min=0) / ratio
    return index.long(), share.float()


def onto(
    values: Tensor, counts: Tensor, *, rate_hz: float, base_rate_hz: float, num: int, nearest: bool = False
) -> Tensor:
    """Return the tokens at the base's times.

    Args:
        values: (W, N, D) tokens of the other encoder.
        counts: (W,) real tokens of each row, at least 1.
        rate_hz: Their rate.
        base_rate_hz: The base's rate.
        num: Base tokens N' of a row.
        nearest: See `shares`.

    Returns:
        (W, N', D).
    """
    index, share = shares(rate_hz / base_rate_hz, num, nearest=nearest)
    index, share = index.to(values.device), share.to(values)
    last = counts[:, None] - 1
    out = values.new_zeros(len(values), num, values.shape[-1])
    for k in range(index.shape[1]):
        places = torch.minimum(index[:, k].clamp(min=0)[None], last)  # (W, N')
        picked = values.gather(1, places[..., None].expand(-1, -1, values.shape[-1]))
        out = out + share[:, k, None] * picked
    return out
