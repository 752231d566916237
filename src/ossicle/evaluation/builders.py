"""The items of composed tasks: which sounds, which questions, which truth.

Rows are drawn balanced: as many scenes of each size, each level, and as many "yes" as "no" for every sound asked about.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.errors import ConfigError
from ossicle.evaluation.choices import build_choices, choices_path
from ossicle.evaluation.composed import Part, Plan, Shelf, draw_parts, read_shelf, renderer, scene_of
from ossicle.evaluation.levels import (
    HIGHEST_HZ,
    LOUDEST_DB,
    LOUDNESS,
    LOUDNESS_DB,
    LOWEST_HZ,
    PITCH,
    PITCH_HZ,
    SOFTEST_DB,
    band,
)
from ossicle.evaluation.parse import vocabulary_named
from ossicle.evaluation.phrasings import FILE, with_article
from ossicle.evaluation.sets import build_clips, manifest_path, row_vocabulary, wording
from ossicle.evaluation.task import Item, Sound, Task, TaskSpec


class Draft:
    """Collects sounds and items of one task."""

    def __init__(self, spec: TaskSpec, root: Path, *, limit: int | None, seed: int, wordings: Path) -> None:
        self.spec = spec
        self.root = root
        self.wordings = wordings
        self.per_row = min(spec.source.per_row, limit or spec.source.per_row)
        self.rng = np.random.default_rng([seed, zlib.crc32(spec.task.encode()), 20261121])
        self.sounds: dict[str, Sound] = {}
        self.items: list[Item] = []
        self.counts: dict[str, int] = {}

    def plan(self, kind: str, parts: tuple[Part, ...], **settings: Any) -> Plan:
        """Return a new plan and put its sound on the list."""
        key = f"{kind}-{len(self.sounds):04d}"
        plan = Plan(key=key, parts=parts, seed=(int(self.rng.integers(2**31)), len(self.sounds)), **settings)
        self.sounds[key] = Sound(
            key=key,
            load=renderer(plan),
            duration_s=plan.duration_s,
            digest=plan.digest(),
            tags=", then ".join(plan.labels),
        )
        return plan

    def add(self, row: str, plan: Plan, truth: Any, **slots: str) -> None:
        """Ask one question about a plan, where the task has such a row."""
        settings = self.spec.rows.get(row)
        if settings is None:
            return
        index = self.counts[row] = self.counts.get(row, -1) + 1
        self.items.append(
            Item(
                key=f"{self.spec.task}/{row}/{plan.key}/{index}",
                task=self.spec.task,
                row=row,
                audio=plan.key,
                question=wording(settings, index, self.wordings, **slots),
                truth=truth,
                cluster=plan.key,
                content=" ".join(plan.labels),
            )
        )

    def task(self, labels: Iterable[str] = ()) -> Task:
        """Return the finished task."""
        own = {label: [] for label in labels}
        vocabularies = {name: row_vocabulary(row, []) or own for name, row in self.spec.rows.items()}
        return Task(spec=self.spec, items=self.items, sounds=self.sounds, vocabularies=vocabularies)


def build_world(draft: Draft) -> Task:
    """Return the items of the parametric sound world."""
    from ossicle.world.sounds import SOURCES

    names = [name for name in SOURCES if name in vocabulary_named("world")]
    rng, n = draft.rng, draft.per_row
    for name in _rounds(rng, names, n):
        draft.add("what", draft.plan("one", (Part(label=name),), room=True), name)
    for index in range(n):
        chosen = [str(x) for x in rng.choice(names, 1 + index % 4, replace=False)]
        plan = draft.plan("scene", tuple(Part(label=x) for x in chosen), room=True)
        draft.add("count", plan, len(chosen))
        if len(chosen) == 1:
            chosen = [str(x) for x in rng.choice(names, 2, replace=False)]
            plan = draft.plan("scene", tuple(Part(label=x) for x in chosen), room=True)
        draft.add("first", plan, chosen[0])
        draft.add("last", plan, chosen[-1])
    _loudness(draft, names)
    pitched = [name for name in names if SOURCES[name].pitch is not None]
    for index in range(n):
        low, high = band(index % 5, PITCH_HZ, LOWEST_HZ, HIGHEST_HZ, log=True)
        able = [
            x for x in pitched if SOURCES[x].ranges["pitch_hz"].low < high and SOURCES[x].ranges["pitch_hz"].high > low
        ]
        name = str(rng.choice(able))
        scope = SOURCES[name].ranges["pitch_hz"]
        hertz = float(np.exp(rng.uniform(np.log(max(low, scope.low)), np.log(min(high, scope.high)))))
        plan = draft.plan("pitch", (Part(label=name),), params=(("pitch_hz", hertz),))
        draft.add("pitch", plan, PITCH[index % 5])
    return draft.task(names)


def _loudness(draft: Draft, names: list[str]) -> None:
    """Ask how loud single sources are; where peaks would have to be turned down, another source takes its place."""
    for index, name in enumerate(_rounds(draft.rng, names, draft.per_row)):
        inner = band(index % 5, LOUDNESS_DB, SOFTEST_DB, LOUDEST_DB)
        for other in (name, *draft.rng.permutation(names)):
            plan = draft.plan("level", (Part(label=str(other)),), gain_db=inner)
            if inner[0] - 0.01 <= scene_of(plan).events[0].level_db:
                break
            del draft.sounds[plan.key]
        draft.add("loudness", plan, LOUDNESS[index % 5])


def build_scenes(draft: Draft) -> Task | None:
    """Return the items over scenes of real clips; None where neither sounds nor digits are there."""
    sounds = read_shelf(draft.root, draft.spec.source.sounds)
    digits = read_shelf(draft.root, draft.spec.source.digits)
    if sounds is not None:
        _sound_scenes(draft, sounds)
    if digits is not None:
        _digit_scenes(draft, digits)
    return draft.task(sounds.labels if sounds else ()) if draft.items else None


def _sound_scenes(draft: Draft, shelf: Shelf) -> None:
    n, quarter = draft.per_row, -(-draft.per_row // 4)
    for size in [*([2] * n), *([1, 3, 4] * quarter)]:
        labels = [str(x) for x in draft.rng.choice(shelf.labels, min(size, len(shelf.labels)), replace=False)]
        index = draft.counts.get("order", -1) + 1
        plan = draft.plan("scene", draw_parts(draft.rng, shelf, labels))
        if len(labels) == 2 and index < n:
            draft.add("order", plan, labels)
        if len(labels) != 2 or index < quarter:
            draft.add("count", plan, len(labels))
        if len(labels) < 4 and (len(labels) != 2 or index < quarter):
            draft.add("caption", plan, sorted(labels))
        if len(labels) > 2 or (len(labels) == 2 and index >= n - 2 * quarter):
            draft.add("first", plan, labels[0])
            draft.add("last", plan, labels[-1])


def _digit_scenes(draft: Draft, shelf: Shelf) -> None:
    speakers = sorted({name for name in shelf.speakers.values()})
    for index in range(draft.per_row):
        voice = speakers[index % len(speakers)]
        one = {x: [p for p in paths if shelf.speakers[p] == voice] for x, paths in shelf.by_label.items()}
        one = {label: paths for label, paths in one.items() if paths}
        string = [str(x) for x in draft.rng.choice(sorted(one), 1 + index % 4)]
        plan = draft.plan("digits", draw_parts(draft.rng, Shelf(by_label=one, speakers=shelf.speakers), string))
        draft.add("digits", plan, [int(x) for x in string])


def build_presence(draft: Draft) -> Task | None:
    """Return "is there X?" about single clips and scenes; each sound is present as often as it is absent.

    Raises:
        ConfigError: Scenes are asked for and there are two labels; one without X has two other sounds at least.
    """
    shelf = read_shelf(draft.root, draft.spec.source.sounds)
    if shelf is None:
        return None
    names = draft.spec.source.spoken
    rows = [(row, size) for row, size in (("clip", 1), ("scene", 3)) if row in draft.spec.rows]
    if "scene" in draft.spec.rows and len(shelf.labels) < 3:
        raise ConfigError(
            f"task '{draft.spec.task}': {draft.spec.source.sounds} has two labels; row 'scene' takes three at least, "
            "leave it out of the task"
        )
    for row, size in rows:
        for index, asked in enumerate(_rounds(draft.rng, shelf.labels * 2, draft.per_row)):
            there = index % 2 == 0
            others = [label for label in shelf.labels if label != asked]
            size_here = min(size, len(others)) if size == 1 else int(draft.rng.integers(2, min(size, len(others)) + 1))
            labels = [str(x) for x in draft.rng.choice(others, size_here, replace=False)]
            if there:
                labels[int(draft.rng.integers(len(labels)))] = asked
            plan = draft.plan(row, draw_parts(draft.rng, shelf, labels))
            draft.add(row, plan, there, sound=names.get(asked, with_article(asked)))
    return draft.task(shelf.labels)


def _rounds(rng: np.random.Generator, names: list[str], count: int) -> list[str]:
    """Return `count` names, all equally often; each pair of neighbours is one name when `names` lists each twice."""
    if len(set(names)) < len(names):
        return [name for name in _rounds(rng, sorted(set(names)), -(-count // 2)) for _ in range(2)][:count]
    drawn: list[str] = []
    while len(drawn) < count:
        drawn += [names[i] for i in rng.permutation(len(names))]
    return drawn[:count]


BUILDERS = {"world": build_world, "scenes": build_scenes, "presence": build_presence}


def build(
    spec: TaskSpec, root: Path, *, limit: int | None = None, seed: int = 0, wordings: Path = FILE
) -> tuple[Task | None, list[str]]:
    """Return a task over what is under the root, and the names of the sets that are not there.

    Args:
        spec: Task file.
        root: Folder of sets.
        limit: At most so many clips (items per row for composed tasks).
        seed: Of every draw.
        wordings: File of questions.

    Raises:
        ConfigError: A row that a composed task does not know.
        DataError: The clips do not fit the task.
    """
    source = spec.source
    if source.kind == "clips":
        manifest = manifest_path(root, spec)
        if not manifest.is_file():
            return None, [source.set or source.manifest]
        return build_clips(spec, root, limit=limit, seed=seed, wordings=wordings), []
    if source.kind == "choices":
        there = choices_path(root, spec).is_file()
        return (build_choices(spec, root, limit=limit, seed=seed), []) if there else (None, [source.manifest])
    needed = {"world": (), "scenes": (source.sounds, source.digits), "presence": (source.sounds,)}[source.kind]
    absent = [name for name in needed if not (root / name / "manifest.jsonl").is_file()]
    task = BUILDERS[source.kind](Draft(spec, root, limit=limit, seed=seed, wordings=wordings))
    if task is not None:
        empty = set(spec.rows) - {item.row for item in task.items}
        if empty and not absent:
            raise ConfigError(
                f"task '{spec.task}': nothing makes rows {', '.join(sorted(empty))} of kind '{source.kind}'"
            )
    return task, absent
