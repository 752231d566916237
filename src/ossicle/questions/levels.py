"""Loudness, pitch and speaking rate in five levels: which value is called what.

`evaluation.levels` asks by the same edges (a test holds the two together). Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence

LOUDNESS = ("very quiet", "quiet", "medium", "loud", "very loud")
LOUDNESS_DB = (-44.0, -36.0, -28.0, -20.0)
"""Edges of loudness: RMS over the sound in dB of full scale."""
PITCH = ("very low", "low", "medium", "high", "very high")
PITCH_HZ = (110.0, 220.0, 440.0, 880.0)
"""Edges of pitch: F0 in Hz."""
RATE = ("very slow", "slow", "medium", "fast", "very fast")
RATE_WPM = (115.0, 150.0, 185.0, 230.0)
"""Edges of speaking rate: words per minute."""


def level_of(value: float, edges: Sequence[float], names: Sequence[str]) -> str:
    """Return the name of the level that a value falls into.

    Example:
        >>> level_of(300.0, PITCH_HZ, PITCH)
        'medium'
    """
    return names[sum(value >= edge for edge in edges)]


def near_edge(value: float, edges: Sequence[float], margin: float) -> bool:
    """Return whether a value lies so close to an edge that either name would do."""
    return any(abs(value - edge) < margin for edge in edges)
