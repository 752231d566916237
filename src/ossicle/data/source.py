"""What every source of samples is: numbered samples, each a pure function of the source's settings and its number.

    source.sample(0), source.sample(1), …          a manifest's rows, or what a generator makes of each number

A source is finite (`len(source)`) or endless. To add one: a file here with a `Source` and its `Config`, and one line in
`NAMES` of this folder or of `questions`. Source: our choice.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from string import Template
from typing import Any, ClassVar

from ossicle import registry
from ossicle.config import Section
from ossicle.data.sample import Sample
from ossicle.errors import ConfigError, DataError, suggest

TEXT_SAMPLES = 2000
"""Endless sources show this many samples to a tokenizer that trains on their text."""


class SourceConfig(Section):
    """Settings that every source has: `kind` is its name in the table of `data` or `questions`."""

    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """Something a recipe wants from outside.

    Attributes:
        what: Its name.
        source: Where it is looked for, or where its owner publishes it.
        present: It is there.
        bytes: Its size, None when unknown.
        licence: Its terms, None when unknown.
    """

    what: str
    source: str
    present: bool
    bytes: int | None = None
    licence: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceContext:
    """What a source may look at.

    Attributes:
        folder: Where relative paths of the recipe start.
        seed: The recipe's seed, for generators.
        cache_dir: Where a generator may keep what it rendered; None = nowhere.
        shrink: A small run: a generator may make less.
    """

    folder: Path = field(default_factory=Path)
    seed: int = 0
    cache_dir: Path | None = None
    shrink: bool = False

    def path(self, text: str) -> Path:
        """Return a path of the recipe: `${VARIABLES}` and `~` filled in, relative to the recipe's folder or to here."""
        path = Path(Template(text).safe_substitute(os.environ)).expanduser()
        if "${" in str(path):  # a variable that is not set: nothing is there, and the message should show its name
            return path
        beside = self.folder / path
        return beside if beside.exists() or not path.exists() else path


class Source:
    """Numbered samples. Subclasses set `Config` and implement `sample` and, when finite, `__len__`."""

    Config: ClassVar[type[SourceConfig]] = SourceConfig
    endless: ClassVar[bool] = False
    """There is a sample for every number; `len()` is not asked. Its features cannot be cached."""

    def __init__(self, config: Any, context: SourceContext) -> None:
        self.config = config
        self.context = context

    @classmethod
    def needs(cls, config: Any, context: SourceContext) -> list[Need]:
        """Return what this source wants from outside, without opening it."""
        return []

    @classmethod
    def stand_in(cls, config: Any, context: SourceContext) -> Any:
        """Return settings for the same kind of source over a few synthetic clips, for a small run without the data.

        Raises:
            DataError: This kind has no `root` under which sets lie.
        """
        from ossicle.data.stand_in import write_sets

        needs = cls.needs(config, context)
        if not hasattr(config, "root"):
            missing = "; ".join(f"{need.what} ({need.source})" for need in needs if not need.present)
            raise DataError(f"source of kind '{config.kind}' needs what is not here, and has no stand-in: {missing}")
        root = write_sets((context.cache_dir or Path()) / "stand_in", [need.what for need in needs], context.seed)
        return config.model_copy(update={"root": str(root.resolve())})

    def __len__(self) -> int:
        """Return how many samples there are."""
        raise NotImplementedError

    def sample(self, index: int) -> Sample:
        """Return sample number `index`, always the same one."""
        raise NotImplementedError

    def duration_s(self, index: int) -> float:
        """Return about how long the audio of a sample is, cheaply, for length-bucketed batches; 0 = unknown."""
        return 0.0

    def texts(self) -> Iterator[str]:
        """Yield the text of the samples, for a tokenizer that trains on it."""
        for index in range(TEXT_SAMPLES if self.endless else len(self)):
            yield from (turn["content"] for turn in self.sample(index).messages)

    def skipped(self) -> dict[str, int]:
        """Return how many items were left out, by reason."""
        return {}

    def fingerprint(self) -> str:
        """Return a hash of what the samples are made from: of the file, or of the settings."""
        import hashlib

        return hashlib.blake2b(self.config.model_dump_json().encode(), digest_size=16).hexdigest()


def source_class(kind: str) -> type[Source]:
    """Return the class behind a kind.

    Raises:
        ConfigError: No such kind in `data` or `questions`.
    """
    rooms = {name: room for room in ("questions", "data") for name in _names(room)}
    if kind not in rooms:
        raise ConfigError(f"unknown kind of source '{kind}'; {suggest(kind, list(rooms))}")
    return registry.lookup(rooms[kind], kind)  # type: ignore[no-any-return]


def source_kinds() -> list[str]:
    """Return the kinds of sources there are."""
    return sorted({name for room in ("data", "questions") for name in _names(room)})


def _names(room: str) -> dict[str, str]:
    import importlib

    return registry.names(room) if hasattr(importlib.import_module(f"ossicle.{room}"), "NAMES") else {}


def too_many_skipped(skips: dict[str, int], total: int, allowed: float, first: str) -> None:
    """Fail when more than `allowed` (a share) of the items were skipped.

    Raises:
        DataError: With the counts by reason and the first one's place.
    """
    lost = sum(skips.values())
    if total and lost > allowed * total:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(skips.items(), key=lambda item: -item[1]))
        raise DataError(f"{first} [{lost} of {total} items cannot be used ({reasons}); allowed: {allowed:.0%}]")
