"""Numbers in words: five levels between four cut points, and the cut points of F0 by gender.

    very low < c₁ ≤ relatively low < c₂ ≤ medium < c₃ ≤ relatively high < c₄ ≤ very high

A value equal to a cut point belongs to the upper level.

- The top range reads ">180 Hz" and ">270 Hz", as the cut points say. LTU-AS printed ">240 Hz" for both genders, and one
  of its four builders took the female cut points for every other gender; `compat=True` gives these two back.

Source: LTU-AS, data generation code (gpt_qa_batch_*.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ossicle.errors import DataError

LEVELS = ("very low", "relatively low", "medium", "relatively high", "very high")
F0_CUTS_HZ = {"male": (95.0, 120.0, 135.0, 180.0), "female": (160.0, 200.0, 220.0, 270.0)}
COMPAT_TOP_HZ = 240


def level_index(value: float, cuts: Sequence[float]) -> int:
    """Return 0 to 4: how many of the four cut points `value` has reached.

    Raises:
        DataError: The cut points are not four rising numbers, or the value is NaN.
    """
    if len(cuts) != len(LEVELS) - 1 or any(low >= high for low, high in pairwise(cuts)):
        raise DataError(f"cut points are {tuple(cuts)}; expected four rising numbers")
    if value != value:
        raise DataError("the value is NaN; expected a number (leave out what was not measured)")
    return sum(value >= cut for cut in cuts)


def five_levels(value: float, cuts: Sequence[float]) -> str:
    """Return the word for `value` between four rising cut points.

    Raises:
        DataError: As for `level_index`.

    Example:
        >>> five_levels(120, (95, 120, 135, 180))
        'medium'
    """
    return LEVELS[level_index(value, cuts)]


def f0_phrase(f0_hz: float, gender: str, *, compat: bool = False) -> str:
    """Return the word and range of an F0 among voices of one gender.

    Args:
        f0_hz: Fundamental frequency in Hz.
        gender: "male" or "female", exactly.
        compat: Print the top range as LTU-AS did, and use the female cut points for any other gender.

    Raises:
        DataError: Another gender, and not `compat`.

    Example:
        >>> f0_phrase(100, "male")
        'relatively low (95-120 Hz)'
    """
    if gender not in F0_CUTS_HZ and not compat:
        raise DataError(f"gender is {gender!r}; expected 'male' or 'female', for only these have cut points of F0")
    cuts = F0_CUTS_HZ.get(gender, F0_CUTS_HZ["female"])
    index = level_index(f0_hz, cuts)
    if index == 0:
        span = f"<{cuts[0]:g}"
    elif index == len(cuts):
        span = f">{COMPAT_TOP_HZ if compat else cuts[-1]:g}"
    else:
        span = f"{cuts[index - 1]:g}-{cuts[index]:g}"
    return f"{LEVELS[index]} ({span} Hz)"
