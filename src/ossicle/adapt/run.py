"""From a folder of recordings to a model folder, and how good it is beside honest baselines.

Everything is made in a hidden folder beside the result and renamed at the end: nothing half-written stays behind.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ossicle.adapt import samples
from ossicle.adapt.folder import Recording, Recordings, read_recordings
from ossicle.adapt.probe import pooled_features, probe_answers
from ossicle.adapt.split import split_by_group
from ossicle.adapt.tags import with_tags
from ossicle.adapt.teach import train_model
from ossicle.audio.io import SUFFIXES, load_audio
from ossicle.data.rows import write_rows
from ossicle.errors import DataError, UserError, require
from ossicle.evaluation.builders import build
from ossicle.evaluation.card import write_card
from ossicle.evaluation.run import Setting, read_result, run_suite
from ossicle.evaluation.task import RowSpec, SourceSpec, TaskSpec, suite_specs
from ossicle.questions.names import spoken

logger = logging.getLogger(__name__)

FEW = 8
"""A label with fewer recordings than this on the training side is named as having too little data."""
TASK = "recordings"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a model is adapted.

    Attributes:
        folder: Recordings.
        out: Folder of the new model.
        start: Model to begin with.
        replay: Folder with recordings of what the model should go on hearing, or None.
        steps: Optimiser steps; None = what suits the way it is taught.
        batch_size: Samples a step.
        learning_rate: Peak; None = what suits the way it is taught.
        tags: Give the model a stream with a tagger of the labels (`adapt.tags`), where it can have one.
        replay_sounds: Sounds that old questions are asked about.
        other_sounds: Most recordings in a folder of `replay` that the tagger learns to leave alone, beside those.
        forgetting_items: Items per row for measuring what was forgotten.
        seed: Of everything.
        device: Where it is computed.
    """

    folder: Path
    out: Path
    start: str = "nano"
    replay: Path | None = None
    steps: int | None = None
    batch_size: int = 32
    learning_rate: float | None = None
    tags: bool = True
    replay_sounds: int = 560
    other_sounds: int = 250
    forgetting_items: int = 24
    seed: int = 0
    device: str = "auto"


def adapt(plan: Plan, *, tell: Callable[[str], None] = logger.info) -> dict[str, Any]:
    """Teach a model the user's recordings.

    Args:
        plan: What is done.
        tell: Takes lines for people.

    Returns:
        `splits`, `score`, `majority`, `probe`, `blind`, `forgetting`, `checkpoint`, and details beside them.

    Raises:
        DataError: The recordings do not fit, or the folder of the result is taken.
        CheckpointError: No such model to start from.
    """
    began = time.perf_counter()
    if plan.out.exists() and (not plan.out.is_dir() or any(plan.out.iterdir())):
        raise DataError(f"--out {plan.out}: is not empty; give a folder that does not exist yet")
    if plan.out.resolve() == Path.cwd():  # it would be replaced, and whoever stands in it stand nowhere
        raise DataError(f"--out {plan.out}: is the folder you are in; give one that does not exist yet")
    if plan.replay is not None and not plan.replay.is_dir():
        raise DataError(f"--replay {plan.replay}: no such folder; expected one folder of recordings per set, or none")
    found = read_recordings(plan.folder)
    train, test = split_by_group(found.found, seed=plan.seed)
    if any(row.metric in ("wer", "cer") for row in task_of(train).rows.values()):
        require("jiwer", "eval")  # now, not when everything is learnt
    tell(f"{len(train)} recordings to learn from, {len(test)} to test with; skipped: {found.told()}")
    work = plan.out.with_name(f".{plan.out.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        result = _adapt_in(plan, work, found, train, test, tell)
        result["seconds"] = round(time.perf_counter() - began, 1)
        (work / "model" / "adapt.json").write_text(json.dumps(result, ensure_ascii=False, indent=1), encoding="utf-8")
        _publish(work / "model", plan.out)
    except UserError as error:
        if not (work / "model" / "config.json").is_file():
            raise
        _publish(work / "model", plan.out)
        raise UserError(f"{error}; what was taught is in {plan.out}, without its scores") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return {**result, "checkpoint": str(plan.out)}


def _publish(model: Path, out: Path) -> None:
    """Put the finished model where it is wanted."""
    try:
        if out.exists():
            out.rmdir()
        model.replace(out)
    except OSError:  # a link to an empty folder, or the root of another disk
        shutil.copytree(model, out, dirs_exist_ok=True)


def _adapt_in(
    plan: Plan,
    work: Path,
    found: Recordings,
    train: Sequence[Recording],
    test: Sequence[Recording],
    tell: Callable[[str], None],
) -> dict[str, Any]:
    from ossicle.inference.engine import load

    old = load(plan.start, device=plan.device)
    keep = _keep_specs(plan)
    before = _measure_kept(plan, old, keep, work / "before")
    tell("asking the old questions once more, so that they are not forgotten")
    audio = work / "audio"
    audio.mkdir()
    others = _other_recordings(plan, found.found)
    sounds = list(samples.old_sounds(train, others, count=plan.replay_sounds, seed=plan.seed))
    not_mine = [wave for kind, wave in sounds if kind != "own"]
    not_mine += samples.some_of(others, plan.replay, each=plan.other_sounds, seed=plan.seed)
    tagged = with_tags(old, train, not_mine, work / "start", seed=plan.seed) if plan.tags else None
    frozen = tagged is not None and not any(r.caption or r.transcript or r.question for r in train)
    if frozen:  # what is not the user's cannot change
        sounds = [(kind, wave) for kind, wave in sounds if kind == "own"]
    write_rows(audio / "replay.jsonl", samples.replay_samples(old, sounds, audio, seed=plan.seed))
    write_rows(audio / "own.jsonl", samples.own_samples(train, audio, seed=plan.seed))
    probe = _probe(old, train, test, plan.seed)
    del old, sounds, not_mine
    losses = train_model(plan, work, tell, tags=tagged and tagged[0], frozen=frozen)
    new = load(work / "model", device=plan.device)
    report = _score(plan, new, train, test, work)
    after = _measure_kept(plan, new, keep, work / "after")
    drops = {name: before[name] - after[name] for name in before}
    result = {
        "splits": _splits(train, test, found),
        "score": report["value"],
        "metric": report["metric"],
        "ci95": report["ci95"],
        "majority": report["majority"],
        "probe": probe,
        "tagger": tagged and tagged[1].told(),
        "blind": report["blind"],
        "shuffled": report["shuffled"],
        "unparsed": report["unparsed"],
        "forgetting": sum(drops.values()) / len(drops),
        "forgetting_by_task": {name: {"before": before[name], "after": after[name]} for name in before},
        "per_label": report["per_label"],
        "training": losses,
    }
    return {**result, "notes": _notes(result, train)}


def _splits(train: Sequence[Recording], test: Sequence[Recording], found: Recordings) -> dict[str, Any]:
    return {
        "train": len(train),
        "test": len(test),
        "train_groups": len({recording.group for recording in train}),
        "test_groups": len({recording.group for recording in test}),
        "labels": dict(sorted(Counter(r.label for r in train if r.label).items())),
        "skipped": dict(found.skipped),
    }


def _probe(engine: Any, train: Sequence[Recording], test: Sequence[Recording], seed: int) -> float | None:
    """Return the accuracy of the linear probe on the test recordings, None without labels."""
    known, asked = [r for r in train if r.label], [r for r in test if r.label]
    if not known or not asked:
        return None
    features = pooled_features(engine, [load_audio(recording.path) for recording in (*known, *asked)])
    said = probe_answers(
        features[: len(known)],
        [recording.label for recording in known],
        [recording.group for recording in known],
        features[len(known) :],
        seed=seed,
    )
    return sum(a == recording.label for a, recording in zip(said, asked, strict=True)) / len(asked)


def _score(
    plan: Plan, engine: Any, train: Sequence[Recording], test: Sequence[Recording], work: Path
) -> dict[str, Any]:
    """Return the result on the test recordings, with controls and one line per label; the card goes to the model."""
    spec = task_of(train)
    rows = [{"path": str(r.path), "duration_s": r.duration_s, "group": r.group, **_told(r)} for r in test]
    write_rows(work / "test.jsonl", rows)
    setting = Setting(suite=TASK, root=work, seed=plan.seed)
    result = run_suite(setting, engine, out=work / "scored", model={"name": plan.out.name}, specs=[spec])
    report, card = read_result(result, TASK)
    write_card(work / "model", card)
    right: dict[str, list[float]] = {}
    truth = {str(recording.path): recording.label for recording in test}
    for key, credit, weight, _ in card["marks"][TASK].get("label", []):
        path = key if key in truth else key.rpartition("#")[0]
        right.setdefault(truth[path], []).append(credit / weight)
    taught = Counter(recording.label for recording in train)
    per_label = {
        label: {"train": taught[label], "test": len(marks), "score": sum(marks) / len(marks)}
        for label, marks in sorted(right.items())
        if label
    }
    return {**report, "per_label": per_label}


def task_of(train: Sequence[Recording]) -> TaskSpec:
    """Return the task of the test recordings: one row for each kind of truth there is."""
    labels = sorted({recording.label for recording in train if recording.label})
    rows = {}
    if labels:
        names = {label: [spoken(label).removeprefix("an ").removeprefix("a ")] for label in labels}
        names = {label: [alias for alias in aliases if alias != label] for label, aliases in names.items()}
        counts = dict(Counter(recording.label for recording in train if recording.label))
        rows["label"] = RowSpec(ask="sound", vocabulary=names, training_counts=counts)
    if any(recording.transcript for recording in train):
        rows["transcript"] = RowSpec(
            ask="transcript", truth="transcript", parser="text", metric="wer", max_new_tokens=96
        )
    if any(recording.answer for recording in train):
        rows["answer"] = RowSpec(questions=["{question}"], truth="answer", parser="exact", max_new_tokens=64)
    if not rows:
        rows["caption"] = RowSpec(ask="caption", truth="caption", parser="text", metric="cer", max_new_tokens=64)
    first = next(iter(rows))  # one number stands for all: the first row's
    rows = {name: row.model_copy(update={"counts": name == first, "optional": True}) for name, row in rows.items()}
    source = SourceSpec(kind="clips", manifest="test.jsonl", cluster="group")
    return TaskSpec(task=TASK, source=source, rows=rows)


def _told(recording: Recording) -> dict[str, str]:
    names = ("label", "caption", "transcript", "question", "answer")
    return {name: value for name in names if (value := getattr(recording, name))}


def _keep_specs(plan: Plan) -> list[TaskSpec]:
    """Return the tasks on which forgetting is measured: the sound world, and ESC-10 where it is under `replay`."""
    specs = suite_specs("world")
    if plan.replay is not None and (plan.replay / "esc10" / "manifest.jsonl").is_file():
        specs += suite_specs("esc10")
    return specs


def _measure_kept(plan: Plan, engine: Any, specs: list[TaskSpec], out: Path) -> dict[str, float]:
    root = plan.replay if plan.replay is not None else out
    out.mkdir(parents=True, exist_ok=True)
    found = {}
    for spec in specs:
        setting = Setting(suite=spec.task, root=root, limit=_limit(plan, spec), seed=plan.seed, controls=False)
        result = run_suite(setting, engine, out=out / spec.task, model={"name": out.name}, specs=[spec])
        found[spec.task] = float(read_result(result, spec.task)[0]["value"])
    return found


def _limit(plan: Plan, spec: TaskSpec) -> int:
    return plan.forgetting_items * (4 if spec.source.kind == "clips" else 1)


def _other_recordings(plan: Plan, own: Sequence[Recording]) -> list[Path]:
    """Return recordings under `replay`, without the user's own and without those that forgetting is measured on."""
    if plan.replay is None:
        return []
    folder, left_out = plan.folder.resolve(), {recording.path.resolve() for recording in own}
    for spec in _keep_specs(plan):
        task, _ = build(spec, plan.replay, limit=_limit(plan, spec), seed=plan.seed)
        left_out |= {sound.path.resolve() for sound in task.sounds.values() if sound.path} if task else set()
    return sorted(
        path
        for path in plan.replay.rglob("*")
        if path.suffix.lower() in SUFFIXES and folder not in path.resolve().parents and path.resolve() not in left_out
    )


def _notes(result: dict[str, Any], train: Sequence[Recording]) -> list[str]:
    """Return what a user should know in plain words."""
    notes = []
    score, probe = result["score"], result["probe"]
    if probe is not None and probe > score:
        notes.append(
            f"a linear probe on the same features is better ({probe:.2f} against {score:.2f}): "
            "for labels alone it is the better tool; the model answers in words"
        )
    if score is not None and result["metric"] == "accuracy" and score <= result["majority"]:
        notes.append("the score is no better than always saying the commonest label")
    untested = sorted({r.label for r in train if r.label} - set(result["per_label"]))
    if untested:
        notes.append(f"no recording to test with, as all share a group with others: {', '.join(untested)}")
    few = sorted(label for label, count in Counter(r.label for r in train if r.label).items() if count < FEW)
    if few:
        notes.append(f"too little data (fewer than {FEW} recordings to learn from): {', '.join(few)}")
    if result["forgetting"] > 0.05:
        notes.append("it has forgotten more than 5 points of what it knew; give --replay a folder of such recordings")
    return notes


def report_text(result: dict[str, Any]) -> str:
    """Return a result for people."""
    splits = result["splits"]

    def shown(value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}"

    lines = [
        f"learnt from {splits['train']} recordings, tested on {splits['test']} of other groups",
        f"{result['metric']}: {shown(result['score'])} ({'–'.join(shown(end) for end in result['ci95'])})",
        f"majority {shown(result['majority'])}, linear probe {shown(result['probe'])}, blind {shown(result['blind'])}",
        f"forgotten: {result['forgetting']:+.3f}",
    ]
    if result["tagger"]:
        lines.append(
            "new recordings that the tagger takes for yours: {found:.0%} of yours, {false_alarms:.0%} of others".format(
                **result["tagger"]
            )
        )
    lines += [
        f"  {label}: {row['score']:.2f} of {row['test']} (learnt from {row['train']})"
        for label, row in result["per_label"].items()
    ]
    return "\n".join([*lines, *result["notes"], f"model: {result['checkpoint']}"])
