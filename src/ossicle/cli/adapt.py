"""`ossicle adapt FOLDER`: your recordings become a model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import DeviceOption, JsonOption, SeedOption
from ossicle.cli.output import emit, note

app = typer.Typer()


@app.command()
def command(
    folder: Annotated[Path, typer.Argument(help="One folder per label, or a CSV or JSONL table with 'path'.")],
    start: Annotated[str, typer.Option("--from", help="Model to begin with.")] = "nano",
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the new model; default adapted/NAME.")] = None,
    replay: Annotated[
        Path | None,
        typer.Option("--replay", envvar="OSSICLE_DATA", help="Recordings of what it should go on hearing."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option("--steps", min=1, help="Optimiser steps; default 500, or 350 where sentences are taught."),
    ] = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Your recordings become a model: a folder in, a model out."""
    from ossicle.adapt.run import Plan, adapt, report_text

    plan = Plan(
        folder=folder,
        out=out or Path("adapted") / folder.resolve().stem,
        start=start,
        replay=replay,
        steps=steps,
        seed=seed,
        device=device,
    )
    result = adapt(plan, tell=note)
    emit(result, json=json, text=report_text(result))
