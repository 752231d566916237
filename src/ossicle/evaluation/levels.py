"""Loudness and pitch in five levels: which value is called what, with a margin so that no truth lies on an edge."""

from __future__ import annotations

import math
from collections.abc import Sequence

LOUDNESS = ("very quiet", "quiet", "medium", "loud", "very loud")
PITCH = ("very low", "low", "medium", "high", "very high")
LOUDNESS_DB = (-44.0, -36.0, -28.0, -20.0)
"""Edges between levels of loudness, RMS over the sound in dB of full scale."""
PITCH_HZ = (110.0, 220.0, 440.0, 880.0)
"""Edges between levels of pitch in Hz."""
SOFTEST_DB, LOUDEST_DB = -52.0, -12.0
LOWEST_HZ, HIGHEST_HZ = 55.0, 1760.0


def band(
    index: int, cuts: Sequence[float], low: float, high: float, *, margin: float = 0.25, log: bool = False
) -> tuple[float, float]:
    """Return the part of a level's range that is not near an edge.

    Args:
        index: Of the level.
        cuts: Edges between levels.
        low: Lower end of the lowest level.
        high: Upper end of the highest level.
        margin: Share of the range left out at each edge.
        log: Take shares on a logarithmic scale.
    """
    ends = [low, *cuts, high]
    bottom, top = (math.log(end) if log else end for end in (ends[index], ends[index + 1]))
    inner = bottom + margin * (top - bottom), top - margin * (top - bottom)
    return (math.exp(inner[0]), math.exp(inner[1])) if log else inner
