"""`ossicle inspect RECIPE_OR_MODEL`: parameters, stages, streams and needs, without weights or network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli import output
from ossicle.cli.options import JsonOption
from ossicle.errors import ConfigError

app = typer.Typer()


@app.command()
def command(
    what: Annotated[str, typer.Argument(metavar="RECIPE_OR_MODEL", help="A recipe, a YAML file, or a model folder.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings to change.")] = None,
    json: JsonOption = False,
) -> None:
    """Show parameters, what each stage trains, streams and needs; nothing is downloaded or loaded.

    Example: ossicle inspect nano-smoke
    """
    from ossicle.inference.engine import BUNDLED
    from ossicle.training import inspection
    from ossicle.training.recipe import load, shipped

    if (Path(what).is_dir() or what in BUNDLED) and what not in shipped():
        if overrides:
            raise ConfigError(f"{what}: a model folder takes no settings; take {', '.join(overrides)} out")
        facts = inspection.inspect_folder(Path(what))
    else:
        facts = inspection.inspect_recipe(load(what, overrides or []))
    output.emit(facts, json=json, text=inspection.text_of(facts))
