"""What of a long recording is heard: the seconds that stand out from the rest of it.

    an hour   ▁▁▁▁▁▁▁▁▁▁▁▁▂▁▁▁▁▁▁▁▇▆▁▁▁▁▁▁▁▁▁▁▁▁▁▃▁▁▁▁     of each second, how far its tokens lie from the median second
                                 └─┘             └┘        the farthest stretches, until there is enough, in their order

A model that learnt from clips of seconds is lost among ten thousand tokens, nearly all of them alike: attention spreads
over all, and times are far beyond those it knows. So its decoder hears a few stretches, one right after the other, and
their places in the recording go along. Distances are in median absolute deviations of every feature, so that any
encoder will do. Source: our choice; it is off where a model's `focus` is not set.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from ossicle.config import Section, validate
from ossicle.types import AudioTokens

FARTHEST = 20.0
"""Deviations that are as good as more, so that one odd feature does not decide."""


class FocusConfig(Section):
    """Settings of `focus`.

    Attributes:
        over_s: Recordings that are no longer are heard whole.
        keep_s: Seconds that are heard of longer ones, rounded up to whole stretches.
        stretch_s: Length of a stretch.
    """

    over_s: float = Field(60.0, gt=0)
    keep_s: int = Field(12, ge=1)
    stretch_s: int = Field(4, ge=1)


def focused(encoded: Mapping[str, AudioTokens], settings: Mapping[str, Any] | None) -> dict[str, AudioTokens]:
    """Return the encoders' tokens, of long clips only those of the stretches that stand out.

    Args:
        encoded: Tokens by stream, all of the same clips.
        settings: Of `FocusConfig`; None = every clip is heard whole.

    Raises:
        ConfigError: Unknown settings.
    """
    if settings is None or not encoded:
        return dict(encoded)
    config = validate(FocusConfig, dict(settings), where="focus")
    length_s = torch.stack([tokens.counts() / tokens.rate_hz for tokens in encoded.values()]).amax(0).tolist()
    if max(length_s) <= config.over_s:
        return dict(encoded)
    chosen = [
        _stretches(encoded, clip, config) if length > config.over_s else None for clip, length in enumerate(length_s)
    ]
    return {name: _cut(tokens, chosen) for name, tokens in encoded.items()}


@torch.no_grad()
def _stretches(encoded: Mapping[str, AudioTokens], clip: int, config: FocusConfig) -> list[tuple[float, float]]:
    """Return the stretches of one clip that are heard, in order and joined where they touch."""
    per_second = [_seconds(tokens, clip) for tokens in encoded.values()]
    count = min(len(each) for each in per_second)
    unlike = torch.stack([_unlike(each[:count]) for each in per_second]).mean(0)
    size = min(config.stretch_s, count)
    left = unlike.unfold(0, size, 1).sum(1)
    starts: list[int] = []
    while len(starts) * size < config.keep_s and bool((left > -torch.inf).any()):
        start = int(left.argmax())
        starts.append(start)
        left[max(0, start - size + 1) : start + size] = -torch.inf
    joined: list[tuple[float, float]] = []
    for start in sorted(starts):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], float(start + size))
        else:
            joined.append((float(start), float(start + size)))
    return joined


def _seconds(tokens: AudioTokens, clip: int) -> Tensor:
    """Return (S, D) the mean token of each second of a clip; where none begins, the token that lasts into it."""
    values = tokens.values[clip, : int(tokens.counts()[clip])].float()
    second = tokens.times_s()[: len(values)].to(values.device).long()
    total = values.new_zeros(int(second[-1]) + 1, values.shape[1]).index_add_(0, second, values)
    count = torch.bincount(second)
    middles = torch.arange(len(count), device=values.device) + 0.5
    at_that_time = values[(middles * tokens.rate_hz).long().clamp(max=len(values) - 1)]
    return torch.where(count[:, None] > 0, total / count[:, None].clamp(min=1), at_that_time)


def _unlike(seconds: Tensor) -> Tensor:
    """Return (S,) how far each second lies from the median one, in deviations, the mean over features."""
    away = (seconds - seconds.median(0).values).abs()
    return (away / (away.median(0).values + 1e-3)).clamp(max=FARTHEST).mean(1)


def _cut(tokens: AudioTokens, chosen: list[list[tuple[float, float]] | None]) -> AudioTokens:
    """Return one stream's tokens, of some clips only those in their stretches."""
    times, counts = tokens.times_s(), tokens.counts().tolist()
    rows = []
    for clip, stretches in enumerate(chosen):
        row = tokens.values[clip, : counts[clip]]
        if stretches is not None:
            inside = torch.zeros(counts[clip], dtype=torch.bool, device=row.device)
            for start, end in stretches:
                inside |= (times[: counts[clip]] >= start) & (times[: counts[clip]] < end)
            row = row[inside]
        rows.append(row)
    values = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    valid = (
        torch.arange(values.shape[1], device=values.device)
        < torch.tensor([len(row) for row in rows], device=values.device)[:, None]
    )
    return tokens.with_values(values, valid=valid).of(chosen)
