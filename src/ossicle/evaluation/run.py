"""A suite from beginning to end: build the tasks, ask what is not known yet, score, write the card.

    suite + root ──build──► tasks ──collect──► answers.jsonl ──score──► results ──► card.json, card.md

A task that fails is an error in the results, never a missing row.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

from ossicle.errors import ConfigError, DataError, OssicleError
from ossicle.evaluation import refusal, text_only
from ossicle.evaluation.answers import Answerer, AnswerStore, Silent, collect, longest, read_header
from ossicle.evaluation.builders import build
from ossicle.evaluation.caption_metrics import caption_metrics
from ossicle.evaluation.card import dataset_hash, make_card, read_card, write_card
from ossicle.evaluation.contamination import contamination, file_hashes
from ossicle.evaluation.embedding import embedder_named
from ossicle.evaluation.judge import judge_rows
from ossicle.evaluation.models import code_hash, default_out
from ossicle.evaluation.nearest import NearestLabel
from ossicle.evaluation.phrasings import FILE, phrasings
from ossicle.evaluation.predictions import read_predictions
from ossicle.evaluation.protocol import paper_report
from ossicle.evaluation.remote import Remote
from ossicle.evaluation.report import write_report
from ossicle.evaluation.rivals import Rival, run_rival
from ossicle.evaluation.score import RowScore, score_rows, task_report, task_requests
from ossicle.evaluation.sets import MOST_SKIPPED
from ossicle.evaluation.task import Task, TaskSpec, check_root, suite_specs
from ossicle.inference.drawing import drawing
from ossicle.inference.transcribe import Hearing, check_mode, hearing

FAILURES = (OssicleError, OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError)
"""What makes a task an error instead of ending the run."""
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
        embedder: Reads labels that no listed word names (empty: nothing does), and maps answers to classes under
            `paper` (empty: `hash`).
        judge: A model that says whether an answer is right, beside the parser.
        decoding: How answers are drawn: `greedy`, `ltu` (as LTU-AS samples) or `beam`.
        input_mode: Whether the model gets audio and transcript (`joint`), or only one of them.
        transcribe: What makes transcripts; empty = nothing.
        trained_on: Folders of recordings, or manifests, that the model was taught, to look for the same files.
        rivals: Other models that are asked the same.
        before: The model (with its name) that training started from, for what text alone has lost.
        text_only: Ask questions in text alone too.
    """

    suite: str
    root: Path
    limit: int | None = None
    seed: int = 0
    controls: bool = True
    batch_size: int = 64
    wordings: Path = FILE
    progress: bool = False
    protocol: str = "ours"
    embedder: str = ""
    judge: Remote | None = None
    trained_on: tuple[Path, ...] = ()
    decoding: str = "greedy"
    input_mode: str = "joint"
    transcribe: str = ""
    rivals: tuple[Rival, ...] = ()
    before: tuple[Answerer, str] | None = None
    text_only: bool = False

    def facts(self) -> dict[str, Any]:
        """Return what scores depend on, for the card."""
        paper = {"protocol": self.protocol} if self.protocol == "paper" else {}
        paper |= {"embedder": self.embedder or "hash"} if self.embedder or paper else {}
        return {**self.asked(), **paper, "input_mode": self.input_mode}

    def asked(self) -> dict[str, Any]:
        """Return what answers depend on, for the answer file; how they are read may change later."""
        kept = {"suite": self.suite, "limit": self.limit, "seed": self.seed, "controls": self.controls}
        heard = {"input_mode": self.input_mode, "transcribe": self.transcribe}
        heard = heard if self.input_mode != "joint" or self.transcribe else {}
        drawn = {"decoding": self.decoding} if self.decoding != "greedy" else {}
        return {**kept, "wordings": self.wordings.name, **heard, **drawn}

    def hearing(self) -> Hearing:
        """Return what of a clip the model gets."""
        return hearing(self.input_mode, self.transcribe)

    def check(self) -> None:
        """Raise what is wrong before a model is loaded.

        Raises:
            DataError: No such folder, or wordings that cannot be read.
            ConfigError: No such suite, protocol, input mode or way of decoding.
        """
        check_root(self.root)
        phrasings(self.wordings)
        for taught in self.trained_on:
            if not taught.exists():
                raise DataError(
                    f"--trained-on {taught}: no such folder or manifest; expected what the model was taught"
                )
        if self.protocol not in ("ours", "paper"):
            raise ConfigError(f"--protocol {self.protocol}: expected 'ours' or 'paper'")
        check_mode(self.input_mode, readable=bool(self.transcribe))
        drawing(self.decoding)


def rerun_setting(setting: Setting, card: Mapping[str, Any]) -> Setting:
    """Return the setting with what a card says about its run."""
    facts = card["setting"]
    kept = {key: facts[key] for key in ("suite", "limit", "seed", "controls")}
    optional = "protocol", "embedder", "decoding", "input_mode", "transcribe"
    kept |= {key: facts[key] for key in optional if key in facts}
    return replace(setting, **kept)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a suite.

    Attributes:
        tasks: Task → result, or `{"error": …}`.
        absent: Sets that are not under the root.
        refusal: Result on questions outside the model's skills, None where the suite has none.
        judge: Task → what the judge says.
        contamination: Task → files that were also trained on, None where nobody said on what.
        rivals: Name → what identifies another model that was asked the same.
        text_only: Skill in text alone, before and after training; None where no model could be asked.
        near: What read labels by their meaning, None where nothing did.
        scores: Task → marks, for reports.
        built: Task → items.
    """

    tasks: dict[str, dict[str, Any]] = field(default_factory=dict)
    absent: list[str] = field(default_factory=list)
    refusal: dict[str, Any] | None = None
    judge: dict[str, Any] | None = None
    contamination: dict[str, dict[str, int]] | None = None
    rivals: dict[str, dict[str, Any]] = field(default_factory=dict)
    text_only: dict[str, Any] | None = None
    near: NearestLabel | None = None
    scores: dict[str, list[RowScore]] = field(default_factory=dict)
    built: dict[str, Task] = field(default_factory=dict)


def build_tasks(setting: Setting, specs: Iterable[TaskSpec], outcome: Outcome) -> None:
    """Build every task; what is absent or fails is noted in the outcome."""
    check_root(setting.root)
    for spec in specs:
        try:
            task, absent = build(spec, setting.root, limit=setting.limit, seed=setting.seed, wordings=setting.wordings)
        except FAILURES as error:
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
    """Ask everything that is missing; a task whose sounds or model fail becomes an error, the others go on.

    All tasks share their batches, so that few are half empty; where one fails, each task is asked by itself.
    """
    wanted = {
        name: task_requests(task, seed=setting.seed, controls=setting.controls) for name, task in outcome.built.items()
    }
    shared = {request.key: request for request in longest(chain(*wanted.values()))}
    try:
        collect(
            answerer,
            shared.values(),
            {name: task.sounds for name, task in outcome.built.items()},
            store,
            batch_size=setting.batch_size,
            progress=setting.progress,
            label=setting.suite,
        )
    except FAILURES as error:
        if "out of memory" in str(error):
            raise
        logger.warning("a batch failed (%s); asking task by task", error)
    for name, task in list(outcome.built.items()):
        requests = [shared[request.key] for request in wanted[name]]
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
        except FAILURES as error:
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
    if setting.embedder:
        outcome.near = NearestLabel(embedder_named(setting.embedder), setting.embedder)
    for name, task in outcome.built.items():
        scores = score_rows(task, store, seed=setting.seed, controls=setting.controls, near=outcome.near)
        outcome.scores[name] = scores
        outcome.tasks[name] = {**task_report(scores, seed=setting.seed), "skipped": task.skipped}
        for score in scores:
            if score.spec.metric == "cider_d":
                marks = score.marks
                other = caption_metrics([m.answer for m in marks], [m.item.truth for m in marks])
                outcome.tasks[name].setdefault("captions", {})[score.name] = other
        if setting.protocol == "paper":
            _add_paper(setting, task, scores, outcome.tasks[name])


def _add_paper(setting: Setting, task: Task, scores: list[RowScore], result: dict[str, Any]) -> None:
    """Put the papers' number beside ours for every row that has one."""
    embedder = setting.embedder or "hash"
    embed = embedder_named(embedder)
    for score in scores:
        if score.spec.paper:
            labels = list(task.vocabularies.get(score.name, {}))
            result.setdefault("paper", {})[score.name] = paper_report(score, labels, embed, embedder)


def run_suite(
    setting: Setting,
    answerer: Answerer | Path | None,
    *,
    out: Path | None,
    model: Mapping[str, Any],
    specs: list[TaskSpec] | None = None,
    report: bool = False,
) -> dict[str, Any]:
    """Run a suite and write its card.

    Args:
        setting: What is run.
        answerer: The model, or a file of answers (see `predictions`), or None to score again what `out` holds.
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
    header = {**setting.asked(), "model": dict(model), "dataset": dataset, "code": code_hash()}
    if answerer is None:
        header, answerer = _answered(out, dataset), Silent()
        model = header["model"]
    out = out or default_out(header)
    store = AnswerStore(out / "answers.jsonl", header)
    if isinstance(answerer, Path):
        read_predictions(answerer, outcome.built.values(), store)
    else:
        ask_tasks(setting, answerer, store, outcome)
    score_tasks(setting, store, outcome)
    if not isinstance(answerer, Path):
        if any("nano" in spec.suites for spec in specs):
            outcome.refusal = _refusal(setting, answerer, store, outcome)
        if setting.text_only:
            outcome.text_only = _text_only(setting, answerer, store, out, header)
    _add_others(setting, outcome, out, header)
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


def _add_others(setting: Setting, outcome: Outcome, out: Path, header: Mapping[str, Any]) -> None:
    """Add what other models say and what was trained on to the results."""
    if setting.trained_on:
        outcome.contamination = contamination(outcome.built, file_hashes(setting.trained_on))
    results = {name: outcome.tasks[name] for name in outcome.built}
    for other in setting.rivals:
        outcome.rivals[other.name] = dict(other.facts)
        places = {"header": header, "seed": setting.seed, "batch_size": setting.batch_size}
        run_rival(other, outcome.built, results, out, **places)
    if setting.judge is not None:
        outcome.judge = {
            name: judge_rows(setting.judge, rows, out / "judge.jsonl") for name, rows in outcome.scores.items()
        }


def _answered(out: Path | None, dataset: str) -> dict[str, Any]:
    """Return the header of a folder's answers, checked against the questions as they are now."""
    if out is None or not (out / "answers.jsonl").is_file():
        raise DataError(f"{out}: no answers.jsonl to score; expected the folder of an earlier run")
    header = read_header(out / "answers.jsonl")
    if header.get("dataset") != dataset:
        raise DataError(f"{out}: its answers are to other questions or recordings than those under this root now")
    return header


def _text_only(
    setting: Setting, answerer: Answerer, store: AnswerStore, out: Path, header: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the skill in text alone, beside that of the model before training where there is one."""
    try:
        now = text_only.measure(answerer, store, batch_size=setting.batch_size, seed=setting.seed)
        if setting.before is None:
            return now
        model, name = setting.before
        earlier = AnswerStore(out / "answers-before.jsonl", {**header, "model": {"name": name}})
        before = text_only.measure(model, earlier, batch_size=setting.batch_size, seed=setting.seed)
        return text_only.against(now, before, name)
    except FAILURES as error:
        if "out of memory" in str(error):
            raise
        logger.error("questions in text alone failed: %s", error)
        return None


def _refusal(setting: Setting, answerer: Answerer, store: AnswerStore, outcome: Outcome) -> dict[str, Any] | None:
    if not outcome.built:
        return None
    return refusal.measure(answerer, store, outcome.built, outcome.scores, batch_size=setting.batch_size)


def _failed(outcome: Outcome, name: str, error: Exception) -> None:
    where = "".join(traceback.format_exception(error)[-2:-1]).strip().splitlines()
    logger.error("task %s failed: %s", name, error)
    outcome.tasks[name] = {"error": f"{type(error).__name__}: {error}", "where": where[0].strip() if where else ""}
