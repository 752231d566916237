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
    dtype: Annotated[str, typer.Option("--dtype", help="Compute in auto, fp32 or bf16, in every stage.")] = "auto",
    json: JsonOption = False,
) -> None:
    """Run a recipe's whole curriculum, stage after stage; a killed run goes on with --resume.

    Example: ossicle train nano-smoke stages.0.steps=100
    """
    from ossicle.training.recipe import load

    changes = [*(overrides or []), *([f"seed={seed}"] if seed is not None else [])]
    loaded = load(recipe, changes)
    if dtype != "auto":
        stages = range(len(loaded.recipe.stages))
        loaded = load(recipe, [*changes, *(f"stages.{number}.precision={dtype}" for number in stages)])

    from ossicle.inference.engine import choose_device
    from ossicle.training import processes
    from ossicle.training import run as runs
    from ossicle.training.result import free_folder
    from ossicle.training.shrink import shrink as cut

    loaded = cut(loaded) if shrink else loaded
    name = loaded.recipe.name + ("-shrunk" if shrink else "")
    resume = resume or processes.restarted()
    with processes.joined(choose_device(device)) as place:
        if processes.is_main():
            _note(place, [stage.precision for stage in loaded.recipe.stages])
        folder = processes.agree(out or free_folder(RUNS, name, resume=resume))
        tell = output.note if processes.is_main() else _silent
        try:
            result = runs.Run(loaded, folder, device=place, shrink=shrink, tell=tell).train(resume=resume)
        except KeyboardInterrupt as error:  # one without words came in the middle of a step
            if str(error):
                output.note(f"ossicle: {error}, which is saved; go on with --resume")
            raise
        if processes.is_main():
            output.emit(asdict(result), json=json, text=_text(result))


def _silent(text: str) -> None:
    """Say nothing: another process of the run speaks."""


def _note(device: Any, precisions: list[str]) -> None:
    """Say once where and how it trains; stages may differ."""
    from ossicle.training.loop import autocast_dtype
    from ossicle.training.processes import world

    lowered = dict.fromkeys(autocast_dtype(precision, device) for precision in precisions)
    note = ", then ".join(
        "fp32" if lower is None else f"fp32 weights, {str(lower).removeprefix('torch.')} autocast" for lower in lowered
    )
    together = f", {world()} processes" if world() > 1 else ""
    output.note_setting_line(f"device {device}, {note}, attention sdpa{together}")


def _text(result: Any) -> str:
    lines = [
        f"{stage.name}: {stage.steps} steps, loss {stage.first_loss:.3f} → {stage.last_loss:.3f}, {stage.seconds:.0f} s"
        for stage in result.stages
    ]
    return "\n".join([*lines, f"model: {result.checkpoint}"])
