"""`ossicle eval MODEL --suite S --root DIR`: a suite over a folder of labelled sets, each score beside its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import DeviceOption, DtypeOption, JsonOption, SeedOption
from ossicle.cli.output import emit, note_setting_line

app = typer.Typer()


@app.command()
def command(
    model: Annotated[str, typer.Argument(help="A model folder, or a model that ships: nano.")] = "nano",
    suite: Annotated[str, typer.Option("--suite", help="nano, clips, or tasks by name, with commas.")] = "nano",
    root: Annotated[
        Path, typer.Option("--root", envvar="OSSICLE_DATA", help="One folder per set, each with a manifest.jsonl.")
    ] = Path("data"),
    task: Annotated[
        list[Path] | None, typer.Option("--task", help="A task file of your own, instead of a suite.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of answers and card; a stopped run goes on.")
    ] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many clips per task.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Questions asked at once.")] = 32,
    controls: Annotated[bool, typer.Option(help="Ask blind and shuffled too.")] = True,
    wordings: Annotated[Path | None, typer.Option("--wordings", help="YAML of other questions.")] = None,
    protocol: Annotated[
        str, typer.Option("--protocol", help="ours, or paper: the papers' scorers beside it.")
    ] = "ours",
    embedder: Annotated[
        str, typer.Option("--embedder", help="For --protocol paper: hash, a folder, or https://host/v1#model.")
    ] = "hash",
    judge: Annotated[str, typer.Option("--judge", help="https://host/v1#model that judges answers too.")] = "",
    predictions: Annotated[
        Path | None, typer.Option("--predictions", help="JSONL of id and answer, instead of a model.")
    ] = None,
    questions_out: Annotated[
        Path | None, typer.Option("--questions-out", help="Only write the questions with their ids.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Write a page with confusions and errors to hear.")] = False,
    verify: Annotated[Path | None, typer.Option("--verify", help="A card to rerun and check.")] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> int:
    """Score a model on a suite, beside its controls."""
    from ossicle.evaluation import card as cards
    from ossicle.evaluation.models import open_judge, open_model
    from ossicle.evaluation.run import Outcome, Setting, build_tasks, rerun_setting, run_suite
    from ossicle.evaluation.task import load_spec, suite_specs

    old = cards.read_card(verify) if verify else None
    specs = [load_spec(path) for path in task] if task else None
    setting = Setting(
        suite=",".join(spec.task for spec in specs) if specs else suite,
        root=root,
        limit=limit,
        seed=seed,
        controls=controls and predictions is None,
        batch_size=batch_size,
        progress=True,
        protocol=protocol,
        embedder=embedder,
        judge=open_judge(judge),
        **({"wordings": wordings} if wordings else {}),
    )
    setting = setting if old is None else rerun_setting(setting, old)
    specs = specs or suite_specs(setting.suite)
    setting.check()
    if questions_out is not None:
        from ossicle.evaluation.predictions import write_questions

        outcome = Outcome()
        build_tasks(setting, specs, outcome)
        count = write_questions(questions_out, outcome.built.values())
        emit({"path": questions_out, "questions": count}, json=json, text=f"{count} questions: {questions_out}")
        return 0
    if predictions is not None:
        answerer, identity = predictions, {"name": predictions.stem, "hash": "", "setting": "answers from a file"}
    else:
        answerer, identity = open_model(model, device=device, dtype=dtype)
    note_setting_line(identity["setting"])
    if old is not None:
        from ossicle.evaluation.verify import verify_card

        result = verify_card(old, setting, answerer, out=out, model=identity, specs=specs)
        emit(result, json=json, text=f"reproduces: {result['reproduces']}")
        return 1 if result["reproduces"] == "no" else 0
    result = run_suite(setting, answerer, out=out, model=identity, specs=specs, report=report)
    emit(result, json=json, text=cards.page(cards.read_card(Path(result["card"]))) + f"\ncard: {result['card']}")
    return 1 if any("error" in row for row in result["tasks"].values()) else 0
