"""Shares of a set: so many rows of each kind as a published set has, whatever the sizes of the files at hand.

    composition: {speech words: {rows: 151294, of: [libritts_words/closed]}, …}
    weight of a file = rows of its share · its size / sizes of the share's files      absent shares: left out
    total = the most for which no row comes more often than its `times`

Source: our choice; recipe `openasqa` takes the counts from LTU-AS's merge scripts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from pydantic import Field

from ossicle.config import Section
from ossicle.data.blend import BlendEntry
from ossicle.errors import ConfigError


class Share(Section):
    """One line of a composition.

    Attributes:
        rows: Rows of it in the set that is followed.
        of: Which files it is made of: `part/closed`, `part/open`; `*` fits any name.
    """

    rows: int = Field(ge=1)
    of: list[str] = Field(min_length=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """One file of questions that goes into the mix.

    Attributes:
        kind: `part/closed` or `part/open`.
        entry: Its place in the mix.
    """

    kind: str
    entry: BlendEntry


def weighted(
    made: Sequence[Made], composition: Mapping[str, Share], total: int | None = None
) -> tuple[list[BlendEntry], list[int], dict[str, Any]]:
    """Return the entries with the weights of a composition, how many rows each gives, and each share's fate.

    Args:
        made: Files of questions.
        composition: Shares by name.
        total: Rows of the mix; None = the most for which no row comes more often than its `times`.

    Raises:
        ConfigError: A file belongs to no share.
    """
    share_of = {one.kind: _share(one.kind, composition) for one in made}
    sizes = {one.kind: _size(one.entry) for one in made}
    whole = dict.fromkeys(composition, 0.0)
    for kind, size in sizes.items():
        whole[share_of[kind]] += size
    there = {name: share.rows for name, share in composition.items() if whole[name]}
    total = total or int(min(whole[name] * sum(there.values()) / rows for name, rows in there.items()))
    entries = [
        one.entry.model_copy(update={"weight": sizes[one.kind] / whole[share_of[one.kind]] * there[share_of[one.kind]]})
        for one in made
        if sizes[one.kind]
    ]
    told = {
        name: {"rows": share.rows, "at_hand": round(whole[name]), "share": round(share.rows / sum(there.values()), 4)}
        for name, share in composition.items()
        if name in there
    }
    counts = [int(total * (entry.weight or 0) / sum(there.values()) + 1e-9) for entry in entries]
    return entries, counts, {"shares": told, "absent": [name for name in composition if name not in there]}


def _share(kind: str, composition: Mapping[str, Share]) -> str:
    for name, share in composition.items():
        if any(fnmatch(kind, pattern) for pattern in share.of):
            return name
    raise ConfigError(f"composition: no share takes '{kind}'; add it to the 'of' of one, or take the part out")


def _size(entry: BlendEntry) -> float:
    with Path(entry.path).open("rb") as file:
        rows = sum(1 for line in file if line.strip())
    return entry.times * min(rows, entry.max_samples or rows)


def table(found: Mapping[str, Any]) -> list[str]:
    """Return the shares of a composition as lines of Markdown."""
    lines = ["| share | rows in the set that is followed | rows at hand | share of the mix |", "|---|---|---|---|"]
    for name, told in found["shares"].items():
        lines.append(f"| {name} | {told['rows']:,} | {told['at_hand']:,} | {100 * told['share']:.1f} % |")
    return [*lines, "", f"Shares of which nothing is at hand: {', '.join(found['absent']) or 'none'}.", ""]
