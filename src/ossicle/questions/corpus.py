"""What a question about one clip needs to know of all the others: levels, what could be confused, whom to compare with.

    all clips ─► cut points of five levels · label → labels it occurs with elsewhere · labels of each set · 2000 clips

Hard negatives are labels that keep company with the clip's own labels in other clips; then labels of the same set.
Source: our choice.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from ossicle.data.clip import Clip
from ossicle.data.set_levels import SetLevels, fit_levels

POOL = 2000
COMPANY = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """Facts about a whole set.

    Attributes:
        levels: What high, loud and fast mean in it.
        company: Label → labels that occur with it, most often first.
        labels: Source → its labels.
        pool: Clips to compare with, the same ones whichever part of the set is worked on.
    """

    levels: SetLevels = field(default_factory=SetLevels)
    company: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pool: tuple[Clip, ...] = ()

    def absent(self, clip: Clip) -> list[str]:
        """Return labels that the clip does not have: company of its own first, then others of its set."""
        own = set(clip.labels)
        near = [label for mine in clip.labels for label in self.company.get(mine, ()) if label not in own]
        return near or [label for label in self.labels.get(clip.source, ()) if label not in own]


def survey(clips: Iterable[Clip], levels: SetLevels | None = None) -> Corpus:
    """Return what questions need to know of a set.

    Args:
        clips: All of them.
        levels: Levels that were fitted before; None = fitted here.
    """
    clips = list(clips)
    together: dict[str, Counter[str]] = {}
    labels: dict[str, dict[str, None]] = {}
    for clip in clips:
        labels.setdefault(clip.source, {}).update(dict.fromkeys(clip.labels))
        for one, other in combinations(sorted(set(clip.labels)), 2):
            together.setdefault(one, Counter())[other] += 1
            together.setdefault(other, Counter())[one] += 1
    company = {
        label: tuple(name for name, _ in sorted(found.items(), key=lambda item: (-item[1], item[0]))[:COMPANY])
        for label, found in together.items()
    }
    pool = sorted(clips, key=lambda clip: hashlib.blake2b(clip.key.encode(), digest_size=8).digest())[:POOL]
    return Corpus(
        levels=fit_levels(clips) if levels is None else levels,
        company=company,
        labels={source: tuple(sorted(found)) for source, found in labels.items()},
        pool=tuple(pool),
    )
