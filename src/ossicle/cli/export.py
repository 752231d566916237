"""`ossicle export MODEL`: a plain model folder, LoRA merged; or one made of a published LTU or LTU-AS checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.options import DtypeOption, JsonOption

app = typer.Typer()

FromLtu = Annotated[
    list[Path] | None, typer.Option("--from-ltu", help="Published checkpoint (.bin, .pt, folder); repeat for more.")
]


@app.command()
def command(
    model: Annotated[str, typer.Argument(help="A model folder, or nano; with --from-ltu a recipe: ltu or ltu-as.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]...", help="Settings of the recipe.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")] = Path("export"),
    decoder_only: Annotated[bool, typer.Option("--decoder-only", help="Only the language model, as its own.")] = False,
    from_ltu: FromLtu = None,
    partial: Annotated[bool, typer.Option("--partial", help="Let missing and extra tensors of --from-ltu be.")] = False,
    dtype: DtypeOption = "auto",
    json: JsonOption = False,
) -> None:
    """Write a model as a plain folder, LoRA merged.

    Example: ossicle export ltu-as --from-ltu ltuas_long_noqa_a6.bin model.language_model.pretrained=vicuna --out ltu-as
    """
    from ossicle.errors import ConfigError

    if from_ltu:
        _published(model, overrides or [], from_ltu, out, dtype=dtype, partial=partial, json=json)
        return
    if overrides or partial:
        raise ConfigError(f"{overrides[0] if overrides else '--partial'}: only together with --from-ltu")
    from ossicle.inference.export import export

    folder = export(model, out, decoder_only=decoder_only, dtype=dtype)
    _tell(folder, {}, "", json)


def _published(
    recipe: str, overrides: list[str], files: list[Path], out: Path, *, dtype: str, partial: bool, json: bool
) -> None:
    """Write the model of a published checkpoint."""
    from ossicle.errors import CheckpointError
    from ossicle.inference.engine import choose_device, choose_dtype
    from ossicle.training.published import import_ltu, write_model
    from ossicle.training.recipe import load

    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"'{out}' holds something already; give another folder: --out NEW")
    kept = None if dtype == "auto" else choose_dtype(dtype, choose_device("cpu"))
    built, report = import_ltu(load(recipe, overrides), files, partial=partial)
    if kept is not None:
        built.model.to(kept)
    write_model(built, out)
    counts = f"{len(report.loaded)} tensors read, {len(report.missing)} missing, {len(report.unexpected)} left over"
    rest = f"{len(report.misshapen)} of another shape, {len(report.ignored)} without effect"
    _tell(out, {"report": report.facts()}, f"; {counts}, {rest}", json)


def _tell(folder: Path, facts: dict[str, Any], more: str, json: bool) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    output.emit({"path": folder, "bytes": size, **facts}, json=json, text=f"{folder} ({size / 1e6:.1f} MB){more}")
