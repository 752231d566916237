"""What a study is: axes of settings over a base recipe, unfolded into rows.

    recipe: nano-plits
    axes:
      system: {plits: {}, lal: {recipe: nano-lal}, mowe: {recipe: nano-mowe, …: …}}     variant → dotted key → value
      stages.0.learning_rate: [1e-3, 3e-3]                                              a key → its values

`design: product` makes a row of every combination; `star` changes one axis at a time from the first variant of each.
Rows of one study have the same samples per stage in the same order, the same seeds and the same budget; where an axis
changes the data itself, its rows say so. Source: our choice.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ossicle import config
from ossicle.config import Section
from ossicle.errors import ConfigError, suggest
from ossicle.training import recipe as recipes
from ossicle.training.estimate import Sample
from ossicle.training.recipe import Loaded

FOLDER = recipes.FOLDER / "studies"
"""Where the studies lie that ship with ossicle."""


class Budget(Section):
    """What every row may spend.

    Attributes:
        by: `steps`: every row takes the steps of its recipe, which must be as many samples for all. `flops`: steps are
            scaled so that training takes as many operations as in the first row.
        sample: The sample that operations are counted for.
    """

    by: Literal["steps", "flops"] = "steps"
    sample: Sample = Sample()


class Measure(Section):
    """How every row is scored.

    Attributes:
        suite: Suite or tasks.
        root: Folder of sets; `${VARIABLES}` are filled in. None = nothing but what needs no recordings.
        limit: At most so many clips per task.
        controls: Ask blind and shuffled too.
        held_out: Set → groups, or share of the groups, that are asked about; other sets are asked about whole.
        outside: Tasks on a corpus that no row was trained on; left out of the mean score.
    """

    suite: str = "world"
    root: str | None = None
    limit: int | None = Field(default=100, ge=1)
    controls: bool = True
    held_out: dict[str, list[str] | float] = Field(default={})
    outside: list[str] = Field(default=[])


class Claim(Section):
    """What a paper says, as a comparison of two rows.

    Attributes:
        paper: Whose claim.
        says: In words.
        better: Row that should score higher.
        than: Row it is compared with.
        by: By more than so much.
        tasks: On these tasks; empty = on the mean of all.
        cheaper: `train_flops` or `ask_flops`: `better` should need at most `share` of `than`'s instead.
        share: See `cheaper`.
    """

    paper: str
    says: str
    better: str
    than: str
    by: float = 0.0
    tasks: list[str] = Field(default=[])
    cheaper: Literal["", "train_flops", "ask_flops"] = ""
    share: float = 1.0


class StudyConfig(Section):
    """A study file.

    Attributes:
        name: Its name.
        description: One line for people.
        recipe: The base recipe: a shipped name, or a file beside the study.
        set: Dotted key → value, in all rows.
        axes: Axis → variants: name → dotted key → value (`recipe` is another base). Or a dotted key → list of values.
        design: `product`, or `star`.
        seeds: Seeds of every row.
        headline: Rows that are run with `headline_seeds` instead.
        headline_seeds: See `headline`.
        budget: What a row may spend.
        measure: How rows are scored.
        claims: What is to be decided.
    """

    name: str
    description: str = ""
    recipe: str
    set: dict[str, Any] = Field(default={})
    axes: dict[str, dict[str, dict[str, Any]] | list[Any]] = Field(min_length=1)
    design: Literal["product", "star"] = "product"
    seeds: list[int] = Field(default=[0], min_length=1)
    headline: list[str] = Field(default=[])
    headline_seeds: list[int] = Field(default=[0, 1, 2], min_length=1)
    budget: Budget = Budget()
    measure: Measure = Measure()
    claims: list[Claim] = Field(default=[])

    @model_validator(mode="after")
    def _is_whole(self) -> StudyConfig:
        for axis, variants in self.axes.items():
            if not variants:
                raise ValueError(f"axis '{axis}' has no variants")
        names = [row.name for row in unfold(self)]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rows are called '{name}'; give their variants other names")
        named = [*self.headline, *(name for claim in self.claims for name in (claim.better, claim.than))]
        for name in named:
            if name not in names:
                raise ValueError(f"there is no row '{name}'; {suggest(name, names)}")
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """One choice on one axis: its name, the base recipe it asks for, and what it sets."""

    name: str
    recipe: str | None
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowPlan:
    """A row before it is run.

    Attributes:
        name: Its name.
        labels: Axis → variant.
        recipe: Base recipe.
        settings: Dotted key → value.
    """

    name: str
    labels: dict[str, str]
    recipe: str
    settings: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One row with one seed.

    Attributes:
        row: The row.
        seed: The seed.
        loaded: Its recipe, checked, with seed and budget written in.
    """

    row: RowPlan
    seed: int
    loaded: Loaded

    @property
    def key(self) -> str:
        """Name of row and seed, fit for a folder; rows whose names are alike there are told apart by a hash."""
        name = self.row.name
        clean = re.sub(r"[^A-Za-z0-9.]+", "-", name).strip("-")
        mark = "" if clean == name else f"-{hashlib.blake2b(name.encode(), digest_size=4).hexdigest()}"
        return f"{clean}{mark}-s{self.seed}".strip("-")


def shipped() -> list[str]:
    """Return the names of the studies that ship with ossicle."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_study(name: str, overrides: list[str] | None = None) -> tuple[StudyConfig, Path]:
    """Return a checked study, and the folder that it lies in.

    Args:
        name: A file, or the name of a shipped study.
        overrides: `a.b=c`, applied last.

    Raises:
        ConfigError: One line with file and line.
    """
    path = Path(name)
    if not path.is_file():
        path = FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"study '{name}': neither a file nor a study of ossicle; {suggest(name, shipped())}")
    return config.load(StudyConfig, path, overrides or []), path.parent


def variants_of(axis: str, given: dict[str, dict[str, Any]] | list[Any]) -> list[Variant]:
    """Return the variants of an axis.

    Example:
        >>> [v.settings for v in variants_of("seed", [1, 2])]
        [{'seed': 1}, {'seed': 2}]
    """
    if isinstance(given, list):
        return [Variant(name=_shown(value), recipe=None, settings={axis: value}) for value in given]
    return [
        Variant(
            name=name, recipe=values.get("recipe"), settings={key: v for key, v in values.items() if key != "recipe"}
        )
        for name, values in given.items()
    ]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def unfold(study: StudyConfig) -> list[RowPlan]:
    """Return the rows of a study; the first one is the reference of all tests."""
    axes = {axis: variants_of(axis, given) for axis, given in study.axes.items()}
    first = [variants[0] for variants in axes.values()]
    if study.design == "product":
        return [_row(study, axes, list(chosen), chosen) for chosen in itertools.product(*axes.values())]
    rows = [_row(study, axes, first[:1], first)]
    for place, variants in enumerate(axes.values()):
        for variant in variants[1:]:
            rows.append(_row(study, axes, [variant], [*first[:place], variant, *first[place + 1 :]]))
    return rows


def _row(study: StudyConfig, axes: dict[str, list[Variant]], named: list[Variant], chosen: Any) -> RowPlan:
    """Return a row; later axes win where two set the same key."""
    asked = [variant.recipe for variant in chosen if variant.recipe]
    settings = dict(study.set)
    for variant in chosen:
        settings |= variant.settings
    return RowPlan(
        name=", ".join(variant.name for variant in named),
        labels={axis: variant.name for axis, variant in zip(axes, chosen, strict=True)},
        recipe=asked[-1] if asked else study.recipe,
        settings=settings,
    )


def jobs_of(study: StudyConfig, folder: Path) -> list[Job]:
    """Return every row with each of its seeds, its recipe checked: the reference first, then one seed after the other.

    Raises:
        ConfigError: A row's recipe is wrong; names the row.
    """
    jobs = []
    for row in unfold(study):
        seeds = study.headline_seeds if row.name in study.headline else study.seeds
        for seed in seeds:
            overrides = [f"{key}={json.dumps(value)}" for key, value in row.settings.items()]
            beside = folder / row.recipe
            base = str(beside) if beside.is_file() else row.recipe
            try:
                loaded = recipes.load(base, [*overrides, f"seed={seed}"])
            except ConfigError as error:
                raise ConfigError(f"study '{study.name}', row '{row.name}': {error}") from None
            jobs.append(Job(row=row, seed=seed, loaded=loaded))
    ranks = {seed: rank for rank, seed in enumerate(dict.fromkeys([*study.seeds, *study.headline_seeds]))}
    return sorted(jobs, key=lambda job: ranks[job.seed])


def recipe_mark(loaded: Loaded, *, shrink: bool) -> str:
    """Return a hash of what a row is: its whole recipe, and whether generators make less."""
    text = json.dumps([config.dump(loaded.recipe), shrink])
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def data_mark(loaded: Loaded) -> str:
    """Return a hash of what is drawn in which order: the same for rows that see the same samples."""
    recipe = loaded.recipe
    drawn = [
        (place, [entry.model_dump() for entry in stage.mix], stage.batch_size)
        for place, stage in enumerate(recipe.stages)
    ]
    used = {entry.source for stage in recipe.stages for entry in stage.mix}
    sources = {name: spec for name, spec in recipe.data.items() if name in used}
    text = json.dumps([recipe.seed, drawn, sources], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
