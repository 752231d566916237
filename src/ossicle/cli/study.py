"""`ossicle study STUDY`: a base recipe over axes of settings, same data and budget."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli import output
from ossicle.cli.options import DeviceOption, JsonOption

app = typer.Typer()


@app.command()
def command(
    study: Annotated[str, typer.Argument(help="A study that ships (nano-family), or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings to change.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the study; default studies/NAME.")] = None,
    row: Annotated[list[str] | None, typer.Option("--row", help="Only this row; may be given again.")] = None,
    engine: Annotated[str, typer.Option("--engine", help="local, or ray: several rows at once.")] = "local",
    dry: Annotated[bool, typer.Option("--dry", help="Print rows and budget, run nothing.")] = False,
    shrink: Annotated[bool, typer.Option("--shrink", help="Cut every recipe and ask little: does it run?")] = False,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Run a recipe over axes of settings, rows written as they finish; the same call goes on where it was stopped.

    Example: ossicle study nano-family --dry
    """
    from ossicle.study.report import text_of
    from ossicle.study.run import Plan, run_study

    plan = Plan(
        study=study,
        overrides=tuple(overrides or ()),
        out=out,
        engine=engine,
        device=device,
        rows=tuple(row or ()),
        shrink=shrink,
        dry=dry,
    )
    result = run_study(plan, output.note)
    output.emit(result, json=json, text=result["text"] if dry else text_of(result))
