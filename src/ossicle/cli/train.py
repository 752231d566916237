"""`ossicle train RECIPE [a.b=c…]`: run a recipe's whole curriculum."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.options import DeviceOption, JsonOption

app = typer.Typer()

RUNS = Path("runs")


@app.command()
def command(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships ('ossicle list recipes'), or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings to change.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder.")] = False,
    shrink: Annotated[bool, typer.Option("--shrink", help="Cut depth, width and steps: seconds, not hours.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; default runs/NAME.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed; default the recipe's.")] = None,
    device: DeviceOption = "auto",
    json: JsonOption = False,
) -> None:
    """Run a recipe's whole curriculum, stage after stage; a killed run goes on with --resume.

    Example: ossicle train nano-smoke stages.0.steps=100
    """
    from ossicle.training.recipe import load

    changes = [*(overrides or []), *([f"seed={seed}"] if seed is not None else [])]
    loaded = load(recipe, changes)

    from ossicle.training import run as runs
    from ossicle.training.shrink import shrink as cut

    loaded = cut(loaded) if shrink else loaded
    name = loaded.recipe.name + ("-shrunk" if shrink else "")
    folder = out or runs.free_folder(RUNS, name, resume=resume)
    work = runs.Run(loaded, folder, device=_device(device), shrink=shrink, tell=output.note)
    result = work.train(resume=resume)
    output.emit(asdict(result), json=json, text=_text(result))


def _device(device: str) -> Any:
    from ossicle.inference.engine import choose_device
    from ossicle.training.loop import autocast_dtype

    chosen = choose_device(device)
    lower = autocast_dtype("auto", chosen)
    note = "fp32" if lower is None else f"fp32 weights, {str(lower).removeprefix('torch.')} autocast"
    output.note_setting_line(f"device {chosen}, {note}, attention sdpa")
    return chosen


def _text(result: Any) -> str:
    lines = [
        f"{stage.name}: {stage.steps} steps, loss {stage.first_loss:.3f} → {stage.last_loss:.3f}, {stage.seconds:.0f} s"
        for stage in result.stages
    ]
    return "\n".join([*lines, f"model: {result.checkpoint}"])
