"""Tasks as data: a YAML file says what is asked of which clips, how answers are read, and how they are scored.

    tasks/esc10.yaml ──► TaskSpec ──build(root)──► Task(items, sounds) ──answers──► scores
                                                        item: sound + question + truth

Your own task is a manifest and ten lines (see `docs/evaluation.md`):

    task: machines
    source: {kind: clips, manifest: machines/manifest.jsonl, cluster: machine}
    rows:
      state:
        questions: ["What state is the machine in?"]
        truth: label
        parser: label
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from ossicle.config import SafeLoader, Section, validate
from ossicle.errors import ConfigError, DataError, suggest
from ossicle.types import Waveform

HERE = Path(__file__).with_name("tasks")


class RowSpec(Section):
    """One row of a task: one kind of question and how its answers are read.

    Attributes:
        ask: Kind of question in `phrasings.yaml`.
        questions: Wordings of your own instead.
        truth: Column of the manifest that holds the right answer (composed tasks know it themselves).
        parser: How an answer is read, a name in `parse.PARSERS`.
        vocabulary: Name of a label list, or label → aliases; empty = the labels that occur in the set.
        metric: `accuracy`, `balanced_accuracy` (mean over labels of the share that is right), `wer`, `cer`, `mae`, or
            `precision` (share of named labels that are there).
        paper: Scorer of the papers' protocol, a name in `paper.QUIRKS`; empty = none.
        merge: Raw label → label that counts, where several raw labels are one.
        keep: Column → values; other clips are left out.
        training_counts: Label → clips in the training split, for the majority control.
        max_new_tokens: Longest answer.
        counts: Whether the row enters the task's value.
        optional: Clips without the truth are not of this row; otherwise they count as skipped.
    """

    ask: str = ""
    questions: list[str] = Field(default_factory=list)
    truth: str = "label"
    parser: str = "label"
    vocabulary: str | dict[str, list[str]] = ""
    metric: Literal["accuracy", "balanced_accuracy", "wer", "cer", "precision", "mae", "cider_d"] = "accuracy"
    paper: str = ""
    merge: dict[str, str] = Field(default_factory=dict)
    keep: dict[str, list[str]] = Field(default_factory=dict)
    training_counts: dict[str, int] = Field(default_factory=dict)
    max_new_tokens: int = Field(default=32, ge=1)
    counts: bool = True
    optional: bool = False


class SourceSpec(Section):
    """Where the clips of a task come from.

    Attributes:
        kind: `clips` (a manifest of recordings), `choices` (a benchmark's official file), or composed: `world`,
            `scenes`, `presence`.
        set: Folder under the root that holds `manifest.jsonl`.
        manifest: Manifest file under the root, instead of `set`.
        cluster: Column of recordings that belong together (speaker, source recording).
        sounds: Folder of labelled sounds that composed tasks are made of.
        digits: Folder of spoken digits that composed tasks are made of.
        per_row: How many items each composed row has.
        spoken: Label → how it stands in a question ("a barking dog"); its article is guessed where missing.
        by: Fields of a benchmark's official file whose values are scored apart as well.
    """

    kind: Literal["clips", "choices", "world", "scenes", "presence"] = "clips"
    set: str = ""
    manifest: str = ""
    cluster: str = ""
    sounds: str = "esc10"
    digits: str = "fsdd"
    per_row: int = Field(default=150, ge=1)
    spoken: dict[str, str] = Field(default_factory=dict)
    by: list[str] = Field(default_factory=list)

    @model_validator(mode="after")
    def _by_is_of_choices(self) -> SourceSpec:
        if self.by and self.kind != "choices":
            raise ValueError(f"'by' names fields of a choice benchmark's official file; this source is '{self.kind}'")
        return self


class TaskSpec(Section):
    """A task file.

    Attributes:
        task: Name.
        about: One line for people.
        suites: Suites that hold it.
        source: Where its clips come from.
        rows: Row name → what is asked.
        origin: Where the set is published.
        licence: Of the set.
    """

    task: str
    about: str = ""
    suites: list[str] = Field(default_factory=list)
    source: SourceSpec = Field(default_factory=SourceSpec)
    rows: dict[str, RowSpec] = Field(min_length=1)
    origin: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """One recording or composition that questions are about.

    Attributes:
        key: Unique in its task; a path under the root, or the name of a composition.
        load: Returns the 16 kHz waveform; cheap to keep, called when needed.
        duration_s: Length, for batching.
        digest: Hash of the content (file bytes, or what a composition is made of).
        path: File, where there is one.
        tags: What is in it, by its labels, for models that are told instead of hearing.
        snr_db: How far the sound lies above its background, where the manifest says so.
    """

    key: str
    load: Callable[[], Waveform]
    duration_s: float
    digest: str
    path: Path | None = None
    tags: str = ""
    snr_db: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One question about one sound, and its truth.

    Attributes:
        key: Unique in the suite.
        task: Name of the task.
        row: Name of the row.
        audio: Key of the sound.
        question: Words asked.
        truth: Right answer, in the form that the row's parser gives.
        cluster: Recordings that belong together.
        content: What is in the sound, to find one with another label.
        options: What may be chosen, for choice questions.
        kinds: Field → value ("difficulty" → "easy"), each scored apart as well.
    """

    key: str
    task: str
    row: str
    audio: str
    question: str
    truth: Any
    cluster: str
    content: str
    options: tuple[str, ...] = ()
    kinds: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task over the clips that are there.

    Attributes:
        spec: Its file.
        items: Questions.
        sounds: Key → sound.
        vocabularies: Row → label list.
        skipped: Reason → number of clips left out.
    """

    spec: TaskSpec
    items: list[Item]
    sounds: dict[str, Sound]
    vocabularies: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


def load_spec(path: Path) -> TaskSpec:
    """Return a checked task file.

    Raises:
        ConfigError: The file cannot be read, or a key does not fit.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=SafeLoader)
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot read the task: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping with 'task' and 'rows'")
    spec = validate(TaskSpec, values, where=str(path))
    for name, row in spec.rows.items():
        if not row.ask and not row.questions:
            raise ConfigError(f"{path}: row '{name}' asks nothing; give 'ask' (a kind of question) or 'questions'")
    return spec


_shipped = cache(load_spec)


def shipped_specs() -> dict[str, TaskSpec]:
    """Return the tasks that come with ossicle, by name."""
    return {spec.task: spec for spec in map(_shipped, sorted(HERE.glob("*.yaml")))}


def suite_specs(suite: str) -> list[TaskSpec]:
    """Return the tasks of a suite; a task's own name, or several with commas, work too.

    Raises:
        ConfigError: Neither a suite nor a task.
    """
    known = shipped_specs()
    suites = {name for spec in known.values() for name in spec.suites}
    chosen: list[TaskSpec] = []
    for part in (word.strip() for word in suite.split(",")):
        if part in suites:
            chosen += [spec for spec in known.values() if part in spec.suites]
        elif part in known:
            chosen.append(known[part])
        else:
            raise ConfigError(f"no suite or task '{part}'; {suggest(part, [*suites, *known])}")
    return list({spec.task: spec for spec in chosen}.values())


def check_root(root: Path) -> Path:
    """Return the folder of sets.

    Raises:
        DataError: It is not a folder.
    """
    if not root.is_dir():
        raise DataError(f"--root {root}: no such folder; expected one folder per set, each with a manifest.jsonl")
    return root
