"""`ossicle world`: the sound world's sources with how fast they render, or a sheet to listen to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli import output
from ossicle.cli.options import JsonOption, SeedOption

app = typer.Typer()


@app.command()
def command(
    sheet: Annotated[bool, typer.Option("--sheet", help="Render a page with players, pictures and truth.")] = False,
    out: Annotated[Path, typer.Option("--out", help="Folder of the sheet.")] = Path("world-sheet"),
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Render the sound world: sources, scenes, exact truth."""
    if sheet:
        from ossicle.world.sheet import render_sheet

        path = render_sheet(out, seed, progress=output.note)
        output.emit({"path": path}, json=json, text=f"wrote {path}; open it in a browser")
        return
    from ossicle.world import throughput
    from ossicle.world.sounds import SOURCES

    items = [
        {"name": s.name, "spoken": s.spoken, "family": s.family, "ranges": dict(s.ranges)} for s in SOURCES.values()
    ]
    speed = throughput(seed=seed)
    lines = [f"{s.family:8} {s.name:16} {', '.join(s.ranges)}" for s in SOURCES.values()]
    lines.append(f"{len(items)} sources; {speed.times_real_time:.0f} times real time on one core (random scenes)")
    output.emit({"items": items, "throughput": speed}, json=json, text="\n".join(lines))
