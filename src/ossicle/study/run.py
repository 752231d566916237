"""A study from its file to its report; the same call goes on with a study that was stopped.

    OUT/study.yaml     the resolved study        OUT/rows.jsonl   a line for each finished row and seed
    OUT/runs/ROW-sN/   run, model and card       OUT/report.md    table, tests, claims     OUT/pareto.png
    OUT/result.json    what `--json` prints

Source: our choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ossicle import config
from ossicle.errors import ConfigError, MissingExtraError
from ossicle.evaluation.card import read_card
from ossicle.evaluation.task import suite_specs
from ossicle.study import budget, engines, report
from ossicle.study.held_out import root_of
from ossicle.study.plan import Job, StudyConfig, jobs_of, load_study, recipe_mark, unfold
from ossicle.study.rows import Place, Rows
from ossicle.study.verdicts import decide, score, tests_of
from ossicle.training.shrink import shrink as cut

SMALL_LIMIT = 4
"""Clips of a task in a small run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a study is run.

    Attributes:
        study: A file, or the name of a study that ships.
        overrides: `a.b=c` on the study.
        out: Folder; None = studies/NAME.
        engine: `local`, or `ray`.
        device: Where rows are computed.
        rows: Only these rows; empty = all.
        shrink: Cut the recipes, and ask little.
        dry: Only print the budget.
    """

    study: str
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    engine: str = "local"
    device: str = "auto"
    rows: tuple[str, ...] = ()
    shrink: bool = False
    dry: bool = False


def run_study(plan: Plan, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run the rows that are not finished yet and write the report.

    Returns:
        `rows`, `tests`, `claims`, `unfinished`, `report` (its path; None in a dry run).

    Raises:
        UserError: Something in the study, its recipes or its data does not fit; before any row is run where it can be.
    """
    study, folder = load_study(plan.study, list(plan.overrides))
    run_rows = engines.engine(plan.engine)
    suite_specs(study.measure.suite)
    jobs = jobs_of(study, folder)
    _check_rows(plan.rows, study)
    measure = study.measure
    if plan.shrink:
        jobs = [replace(job, loaded=cut(job.loaded)) for job in jobs]
        measure = measure.model_copy(update={"limit": SMALL_LIMIT, "root": None, "suite": "world"})
    settled = budget.settle(jobs, study.budget)
    told = f"budget by {study.budget.by}:\n{budget.budget_text(settled)}"
    if plan.dry:
        costs = {job.row.name: {"cost": cost} for job, cost in settled}
        empty = {"rows": [], "tests": [], "claims": [], "unfinished": list(costs), "report": None}
        return {**empty, "budget": costs, "text": told}
    tell(told)
    out = plan.out or Path("studies") / (study.name + ("-shrunk" if plan.shrink else ""))
    _claim(out, study)
    rows = Rows(out / "rows.jsonl")
    _check_finished(rows, [job for job, _ in settled], shrink=plan.shrink)
    place = Place(
        out=out,
        root=root_of(measure.root, measure.held_out, out / "sets"),
        measure=measure,
        device=plan.device,
        shrink=plan.shrink,
    )
    waiting = [
        (job, cost)
        for job, cost in settled
        if (job.row.name, job.seed) not in rows.records and (not plan.rows or job.row.name in plan.rows)
    ]
    tell(f"{len(settled)} runs, {len(rows.records)} finished before, {len(waiting)} to do, in {out}")
    for record in run_rows(waiting, place, tell):
        rows.add(record, place.folder(record["key"]))
        summarise(study, rows, out)
    return summarise(study, rows, out)


def summarise(study: StudyConfig, rows: Rows, out: Path) -> dict[str, Any]:
    """Return and write what the finished rows say."""
    order = [row.name for row in unfold(study)]
    records: dict[str, list[dict[str, Any]]] = {name: [] for name in order}
    for record in rows.records.values():
        records[record["row"]].append(record)
    done = {name: sorted(found, key=lambda r: r["seed"]) for name, found in records.items() if found}
    cards = {name: {r["seed"]: read_card(out / r["card"]) for r in found} for name, found in done.items()}
    costs = {name: found[0]["cost"] for name, found in done.items()}
    outside = study.measure.outside
    result: dict[str, Any] = {
        "rows": [_row(name, found, score(cards[name], outside), outside) for name, found in done.items()],
        "tests": tests_of(cards, outside) if order[0] in done else [],
        "claims": [decide(claim, cards, costs, outside) for claim in study.claims],
        "unfinished": [name for name in order if name not in done],
        "report": str(out / "report.md"),
    }
    picture: str | None = "pareto.png"
    try:
        if any(row["score"]["value"] is not None for row in result["rows"]):
            report.draw(result["rows"], out / "pareto.png")
        else:
            picture = None
    except MissingExtraError:
        picture = None
    _write(out / "report.md", report.page(result, title=f"Study {study.name}", picture=picture))
    _write(out / "result.json", json.dumps(result, ensure_ascii=False, indent=1, default=str) + "\n")
    return result


def _row(name: str, records: list[dict[str, Any]], found: Mapping[str, Any], outside: list[str]) -> dict[str, Any]:
    """Return one row of the result: of its seeds the mean of times and gains, and the pooled score."""
    first = records[0]
    gains = [
        task["gain"]
        for record in records
        for key, task in record["tasks"].items()
        if key not in outside and task.get("gain") is not None
    ]
    return {
        "row": name,
        "labels": first["labels"],
        "seeds": [record["seed"] for record in records],
        "data": first["data"],
        "cost": first["cost"],
        "score": dict(found),
        "gain": sum(gains) / len(gains) if gains else None,
        "train_s": sum(record["train_s"] for record in records) / len(records),
        "asked_s": sum(record["asked_s"] for record in records) / len(records),
        "last_loss": [record["stages"][-1]["last_loss"] for record in records],
        "tasks": first["tasks"],
        "cards": [record["card"] for record in records],
        "device": first["device"],
    }


def _check_rows(wanted: tuple[str, ...], study: StudyConfig) -> None:
    from ossicle.errors import suggest

    names = [row.name for row in unfold(study)]
    for name in wanted:
        if name not in names:
            raise ConfigError(f"--row '{name}': the study has no such row; {suggest(name, names)}")


def _check_finished(rows: Rows, jobs: list[Job], *, shrink: bool) -> None:
    """Refuse rows that another recipe or size finished; older records do not say theirs and are taken as they are."""
    for job in jobs:
        mark = recipe_mark(job.loaded, shrink=shrink)
        if rows.records.get((job.row.name, job.seed), {}).get("recipe", mark) != mark:
            raise ConfigError(
                f"{rows.path}: row '{job.row.name}', seed {job.seed}, was finished with another recipe, "
                "or with or without --shrink; use --out"
            )


def _claim(out: Path, study: StudyConfig) -> None:
    """Make the folder, or check that it holds this study; claims may be changed afterwards."""
    written, resolved = out / "study.yaml", config.dump(study.model_copy(update={"claims": []}))
    if not written.is_file():
        if out.exists() and any(out.iterdir()):
            raise ConfigError(f"{out}: holds something else than a study; use --out for another folder")
        out.mkdir(parents=True, exist_ok=True)
        _write(written, resolved)
    before = written.read_text(encoding="utf-8")
    if before != resolved:
        pairs = zip(before.splitlines(), resolved.splitlines(), strict=False)
        old, new = next(((a, b) for a, b in pairs if a != b), ("its end", "more"))
        raise ConfigError(f"{out}: its study says '{old.strip()}', now it says '{new.strip()}'; use --out")


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f"{path.name}.writing")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
