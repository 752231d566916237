"""What high, loud and fast mean in a set: the fact that each is told by, and four cut points of that fact.

    facts of all clips ──20, 40, 60, 80 %──► four cut points ──► "very low" … "very high"        NAME.levels.json
    cuts: {rms_db: [-50, -40, -30, -20]} ──────► stand instead of what the set would give

Source: LTU-AS (arXiv 2309.14405, official code): pitch, volume and speed in five levels. What they were measured with
and where they are cut is not published (only F0 by gender is, see `audio.levels`): ours are the set's own fifths, and
all of it is a setting.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field, model_validator

from ossicle.audio.levels import LEVELS
from ossicle.config import Section
from ossicle.data.clip import Clip
from ossicle.data.rows import writing
from ossicle.errors import DataError

Quality = Literal["pitch", "volume", "speed"]
ALWAYS = ("f0_median_hz", "rms_db", "words_per_s", "syllables_per_s")
"""Facts whose levels are fitted whether or not a quality is told by them."""
MIN_TO_FIT = 20
"""With fewer clips a set has no fifths."""
DIGITS = 4


def _rising(numbers: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(numbers))


class LevelsConfig(Section):
    """How facts become words.

    Attributes:
        pitch: Fact that pitch is told by.
        volume: Fact that volume is told by.
        speed: Fact that speaking speed is told by.
        percentiles: Where the clips of a set are cut into five levels.
        cuts: Fact to four cut points that stand instead of the set's.
    """

    pitch: Literal["f0_median_hz", "f0_low_hz", "f0_high_hz"] = "f0_median_hz"
    volume: Literal["rms_db", "peak_db", "loudness_lufs"] = "rms_db"
    speed: Literal["words_per_s", "syllables_per_s"] = "words_per_s"
    percentiles: tuple[float, float, float, float] = (20.0, 40.0, 60.0, 80.0)
    cuts: dict[str, tuple[float, float, float, float]] = Field(default={})

    @model_validator(mode="after")
    def _rises(self) -> Self:
        if not _rising((0.0, *self.percentiles, 100.0)):
            raise ValueError(f"percentiles are {self.percentiles}; expected four rising numbers between 0 and 100")
        for fact, cuts in self.cuts.items():
            if not _rising(cuts):
                raise ValueError(f"cuts of {fact} are {cuts}; expected four rising numbers")
        unknown = set(self.cuts) - {*ALWAYS, self.pitch, self.volume, self.speed}
        if unknown:
            raise ValueError(f"cuts of '{min(unknown)}': no level is told by that fact")
        return self

    def fact(self, quality: Quality) -> str:
        """Return the fact that a quality is told by."""
        return str(getattr(self, quality))


DEFAULT = LevelsConfig()


@dataclass(frozen=True, slots=True, kw_only=True)
class SetLevels:
    """The levels of one set.

    Attributes:
        config: Which facts.
        cuts: Fact → four cut points; a fact that the set does not support is absent.
    """

    config: LevelsConfig = DEFAULT
    cuts: Mapping[str, Sequence[float]] = field(default_factory=dict)

    def word(self, quality: Quality, clip: Clip) -> str | None:
        """Return the level of a clip, None where the clip has no such fact or the set no cut points.

        Example:
            >>> levels = SetLevels(cuts={"rms_db": (-50, -40, -30, -20)})
            >>> levels.word("volume", Clip(path=Path("x"), source="s", facts={"rms_db": -35.0}))
            'medium'
        """
        fact = self.config.fact(quality)
        value, cuts = clip.facts.get(fact), self.cuts.get(fact)
        return None if value is None or cuts is None else LEVELS[sum(value >= cut for cut in cuts)]


def fit_levels(clips: Sequence[Clip], config: LevelsConfig = DEFAULT) -> SetLevels:
    """Return the levels of a set: four rising cut points for each fact that has enough clips and spread.

    Example:
        >>> clips = [Clip(path=Path("x"), source="s", facts={"rms_db": float(i)}) for i in range(-100, 0)]
        >>> fit_levels(clips).cuts["rms_db"]
        [-80.2, -60.4, -40.6, -20.8]
    """
    cuts: dict[str, Sequence[float]] = {}
    for fact in dict.fromkeys((*ALWAYS, config.pitch, config.volume, config.speed)):
        values = [clip.facts[fact] for clip in clips if fact in clip.facts]
        if fact in config.cuts:
            cuts[fact] = list(config.cuts[fact])
        elif len(values) >= MIN_TO_FIT:
            edges = [round(float(edge), DIGITS) for edge in np.percentile(values, config.percentiles)]
            if _rising(edges):
                cuts[fact] = edges
    return SetLevels(config=config, cuts=cuts)


def levels_path(path: Path) -> Path:
    """Return where the levels of a file of clips are saved."""
    return path.with_suffix(".levels.json")


def write_levels(path: Path, levels: SetLevels, num_clips: int) -> None:
    """Save the levels of a file of clips beside it."""
    told = {"cuts": levels.cuts, "clips": num_clips, "settings": levels.config.model_dump(mode="json")}
    with writing(levels_path(path)) as file:
        json.dump({"unit_of": "facts of the same name", **told}, file, indent=1)


def read_levels(path: Path) -> SetLevels | None:
    """Return the levels saved with a file of clips, None where there are none.

    Raises:
        DataError: The file holds something else.
    """
    place = levels_path(path)
    if not place.is_file():
        return None
    try:
        told = json.loads(place.read_text(encoding="utf-8"))
        return SetLevels(config=LevelsConfig.model_validate(told.get("settings", {})), cuts=dict(told["cuts"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"{place}: is no file of levels; describe the clips again") from None
