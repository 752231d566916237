"""A suite from beginning to end: build the tasks, ask what is not known yet, score, write the card.

    suite + root ──build──► tasks ──collect──► answers.jsonl ──score──► results ──► card.json, card.md

A task that fails is an error in the results, never a missing row.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ossicle.errors import ConfigError, DataError, OssicleError
from ossicle.evaluation import refusal
from ossicle.evaluation.answers import Answerer, AnswerStore, collect
from ossicle.evaluation.builders import build
from ossicle.evaluation.card import dataset_hash, make_card, read_card, write_card
from ossicle.evaluation.contamination import contamination, file_hashes
from ossicle.evaluation.embedding import embedder_named
from ossicle.evaluation.judge import judge_rows
from ossicle.evaluation.models import code_hash, default_out
from ossicle.evaluation.phrasings import FILE, phrasings
from ossicle.evaluation.predictions import read_predictions
from ossicle.evaluation.protocol import paper_report
from ossicle.evaluation.remote import Remote
from ossicle.evaluation.report import write_report
from ossicle.evaluation.score import RowScore, score_rows, task_report, task_requests
from ossicle.evaluation.sets import MOST_SKIPPED
from ossicle.evaluation.task import Task, TaskSpec, check_root, suite_specs
from ossicle.inference.transcribe import Hearing, check_mode, hearing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a suite is run.

    Attributes:
        suite: Name of a suite or of tasks.
        root: Folder of sets.
        limit: At most so many clips per task.
        seed: Of every draw.
        controls: Whether the controls are asked too.
        batch_size: Questions at once.
        wordings: File of questions.
        progress: Show a bar.
        protocol: `ours`, or `paper`: the papers' own scorers beside it.
        embedder: What maps free answers to class names under `paper`.
        judge: A model that says whether an answer is right, beside the parser.
        input_mode: Whether the model gets audio and transcript (`joint`), or only one of them.
        transcribe: What makes transcripts; empty = nothing.
        trained_on: Folders of recordings that the model was taught, to look for the same files in the suite.
    """

    suite: str
    root: Path
    limit: int | None = None
    seed: int = 0
    controls: bool = True
    batch_size: int = 32
    wordings: Path = FILE
    progress: bool = False
    protocol: str = "ours"
    embedder: str = "hash"
    judge: Remote | None = None
    trained_on: tuple[Path, ...] = ()
    input_mode: str = "joint"
    transcribe: str = ""

    def facts(self) -> dict[str, Any]:
        """Return what scores depend on, for the card and the answer file."""
        kept = {"suite": self.suite, "limit": self.limit, "seed": self.seed, "controls": self.controls}
        paper = {"protocol": self.protocol, "embedder": self.embedder} if self.protocol == "paper" else {}
        heard = {"input_mode": self.input_mode, "transcribe": self.transcribe}
        heard = heard if self.input_mode != "joint" or self.transcribe else {}
        return {**kept, "wordings": self.wordings.name, **paper, **heard}

    def hearing(self) -> Hearing:
        """Return what of a clip the model gets."""
        return hearing(self.input_mode, self.transcribe)

    def check(self) -> None:
        """Raise what is wrong before a model is loaded.

        Raises:
            DataError: No such folder, or wordings that cannot be read.
            ConfigError: No such suite.
        """
        check_root(self.root)
        phrasings(self.wordings)
        for folder in self.trained_on:
            check_root(folder)
        if self.protocol not in ("ours", "paper"):
            raise ConfigError(f"--protocol {self.protocol}: expected 'ours' or 'paper'")
        check_mode(self.input_mode, readable=bool(self.transcribe))


def rerun_setting(setting: Setting, card: Mapping[str, Any]) -> Setting:
    """Return the setting with what a card says about its run."""
    facts = card["setting"]
    heard = {key: facts[key] for key in ("input_mode", "transcribe") if key in facts}
    return replace(setting, **{key: facts[key] for key in ("suite", "limit", "seed", "controls")}, **heard)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a suite.

    Attributes:
        tasks: Task → result, or `{"error": …}`.
        absent: Sets that are not under the root.
        refusal: Result on questions outside the model's skills, None where the suite has none.
        judge: Task → what the judge says.
        contamination: Task → files that were also trained on, None where nobody said on what.
        scores: Task → marks, for reports.
        built: Task → items.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    refusal: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    contamination: dict[str, dict[str, int]] | None = None
    scores: dict[str, list[RowScore]] = field(default_factory=dict)
    built: dict[str, Task] = field(default_factory=dict)


def build_tasks(setting: Setting, specs: Iterable[TaskSpec], outcome: Outcome) -> None:
    """Build every task; what is absent or fails is noted in the outcome."""
    check_root(setting.root)
    for spec in specs:
        try:
            task, absent = build(spec, setting.root, limit=setting.limit, seed=setting.seed, wordings=setting.wordings)
        except (OssicleError, OSError, ValueError, KeyError) as error:
            _failed(outcome, spec.task, error)
            continue
        outcome.absent += [name for name in absent if name not in outcome.absent]
        if task is not None:
            outcome.built[spec.task] = task
    outcome.absent.sort()
    if not outcome.built and not outcome.tasks:
        raise DataError(
            f"--root {setting.root}: none of the sets of '{setting.suite}' is here ({', '.join(outcome.absent)}); "
            "expected one folder per set, each with a manifest.jsonl"
        )


def ask_tasks(setting: Setting, answerer: Answerer, store: AnswerStore, outcome: Outcome) -> None:
    """Ask everything that is missing; a task whose sounds or model fail becomes an error, the others go on."""
    for name, task in list(outcome.built.items()):
        requests = task_requests(task, seed=setting.seed, controls=setting.controls)
        try:
            collect(
                answerer,
                requests,
                {name: task.sounds},
                store,
                batch_size=setting.batch_size,
                progress=setting.progress,
                label=name,
            )
        except (OssicleError, OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError) as error:
            if "out of memory" in str(error):
                raise
            _failed(outcome, name, error)
            del outcome.built[name]
            continue
        _count_unreadable(outcome, task, store)


def _count_unreadable(outcome: Outcome, task: Task, store: AnswerStore) -> None:
    """Note clips that could not be decoded (their answers count as wrong); too many of them fail the task."""
    lost = [key for name, key in store.unreadable if name == task.spec.task]
    if len(lost) > MOST_SKIPPED * len(task.sounds):
        _failed(outcome, task.spec.task, DataError(f"{len(lost)} of {len(task.sounds)} clips unreadable, as {lost[0]}"))
        del outcome.built[task.spec.task]
    elif lost:
        task.skipped["unreadable"] = len(lost)


def score_tasks(setting: Setting, store: AnswerStore, outcome: Outcome) -> None:
    """Score every task that was asked."""
    for name, task in outcome.built.items():
        scores = score_rows(task, store, seed=setting.seed, controls=setting.controls)
        outcome.scores[name] = scores
        outcome.tasks[name] = {**task_report(scores, seed=setting.seed), "skipped": task.skipped}
        if setting.protocol == "paper":
            _add_paper(setting, task, scores, outcome.tasks[name])


def _add_paper(setting: Setting, task: Task, scores: list[RowScore], result: dict[str, Any]) -> None:
    """Put the papers' number beside ours for every row that has one."""
    embed = embedder_named(setting.embedder)
    for score in scores:
        if score.spec.paper:
            labels = list(task.vocabularies.get(score.name, {}))
            result.setdefault("paper", {})[score.name] = paper_report(score, labels, embed, setting.embedder)


def run_suite(
    setting: Setting,
    answerer: Answerer | Path,
    *,
    out: Path | None,
    model: Mapping[str, Any],
    specs: list[TaskSpec] | None = None,
    report: bool = False,
) -> dict[str, Any]:
    """Run a suite and write its card.

    Args:
        setting: What is run.
        answerer: The model, or a file of answers (see `predictions`).
        out: Folder of `answers.jsonl`, `card.json` and `card.md`; a run that stopped there goes on;
            None = one that is named after model, data and setting.
        model: What identifies the model (name, hash).
        specs: Tasks instead of a suite.
        report: Write `report.html` too.

    Returns:
        `tasks`, `absent`, `card` (its path) and, where the suite has it, `refusal`.

    Raises:
        DataError: No folder, or no set of the suite in it.
        ConfigError: No such suite.
    """
    outcome = Outcome()
    specs = suite_specs(setting.suite) if specs is None else specs
    build_tasks(setting, specs, outcome)
    dataset = dataset_hash(outcome.built.values())
    header = {**setting.facts(), "model": dict(model), "dataset": dataset, "code": code_hash()}
    out = out or default_out(header)
    store = AnswerStore(out / "answers.jsonl", header)
    if isinstance(answerer, Path):
        read_predictions(answerer, outcome.built.values(), store)
    else:
        ask_tasks(setting, answerer, store, outcome)
    score_tasks(setting, store, outcome)
    if setting.trained_on:
        outcome.contamination = contamination(outcome.built, file_hashes(setting.trained_on))
    if not isinstance(answerer, Path) and any("nano" in spec.suites for spec in specs):
        outcome.refusal = _refusal(setting, answerer, store, outcome)
    if setting.judge is not None:
        outcome.judge = {
            name: judge_rows(setting.judge, rows, out / "judge.jsonl") for name, rows in outcome.scores.items()
        }
    result: dict[str, Any] = {"tasks": outcome.tasks, "absent": outcome.absent}
    if outcome.refusal is not None:
        result["refusal"] = outcome.refusal
    card = make_card(setting.facts(), model, specs, outcome)
    result["card"] = str(write_card(out, card))
    if report:
        result["report"] = str(write_report(out, card, outcome.scores, outcome.built))
    return result


def read_result(result: Mapping[str, Any], task: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return one task's result and the whole card.

    Raises:
        DataError: The task failed.
    """
    found = result["tasks"][task]
    if "error" in found:
        raise DataError(f"task '{task}' failed: {found['error']}")
    return found, read_card(Path(result["card"]))


def _refusal(setting: Setting, answerer: Answerer, store: AnswerStore, outcome: Outcome) -> dict[str, Any] | None:
    if not outcome.built:
        return None
    return refusal.measure(answerer, store, outcome.built, outcome.scores, batch_size=setting.batch_size)


def _failed(outcome: Outcome, name: str, error: Exception) -> None:
    where = "".join(traceback.format_exception(error)[-2:-1]).strip().splitlines()
    logger.error("task %s failed: %s", name, error)
    outcome.tasks[name] = {"error": f"{type(error).__name__}: {error}", "where": where[0].strip() if where else ""}
