"""`ossicle export MODEL`: a plain model folder, LoRA merged."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli import output
from ossicle.cli.options import DtypeOption, JsonOption

app = typer.Typer()


@app.command()
def command(
    model: Annotated[str, typer.Argument(help="A model folder, or a model that ships: nano.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("export"),
    decoder_only: Annotated[bool, typer.Option("--decoder-only", help="Only the language model, as its own.")] = False,
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Write a model as a plain folder, LoRA merged."""
    from ossicle.inference.export import export

    folder = export(model, out, decoder_only=decoder_only, dtype=dtype)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    output.emit({"path": folder, "bytes": size}, json=json, text=f"{folder} ({size / 1e6:.1f} MB)")
