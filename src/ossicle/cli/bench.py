"""`ossicle bench`: speed and memory, side by side in one run."""

from __future__ import annotations

from typing import Annotated

import typer

from ossicle.cli import output
from ossicle.cli.options import JsonOption

app = typer.Typer(help="Measure speed and memory side by side.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure speed and memory side by side."""


@app.command()
def integrations(
    shape: Annotated[str, typer.Option(help="Named decoder shape.")] = "cpu-small",
    rounds: Annotated[int, typer.Option(help="Counted steps of each variant.", min=1)] = 7,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="fp32 or bf16.")] = "fp32",
    threads: Annotated[int | None, typer.Option(help="CPU threads of each process.")] = None,
    audio_tokens: Annotated[int | None, typer.Option(help="Audio tokens of a row.")] = None,
    text_tokens: Annotated[int | None, typer.Option(help="Text tokens of a row.")] = None,
    batch: Annotated[int | None, typer.Option(help="Rows of a step.")] = None,
    freeze_ffn: Annotated[bool, typer.Option("--freeze-ffn", help="Feed-forward blocks do not train.")] = False,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Recompute layers in backward.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare the ways of hearing: PLITS, LAL, PAL, cross-attention; random weights, nothing is fetched."""
    from ossicle.bench.integrations import Setting, run

    setting = Setting(
        shape=shape,
        rounds=rounds,
        device=device,
        dtype=dtype,
        threads=threads,
        audio_tokens=audio_tokens,
        text_tokens=text_tokens,
        batch=batch,
        freeze_ffn=freeze_ffn,
        checkpointing=checkpointing,
    )
    output.note(f"bench integrations at {shape}: {rounds} rounds, one process per variant")
    result = run(setting)
    lines = [f"{'variant':14} {'train samples/s':>16} {'kept for backward':>18} {'infer samples/s':>16}"]
    for name, row in result["results"].items():
        kept = row["train"]["activation_bytes"] / 1e6
        speeds = row["train"]["samples_per_s"], row["infer"]["samples_per_s"]
        lines.append(f"{name:14} {speeds[0]:16.1f} {kept:15.0f} MB {speeds[1]:16.1f}")
    for pair, ratio in result["ratios"].items():
        limit = f"analytic {ratio['analytic']:.2f}x, share {ratio['share']:.0%}"
        lines.append(f"{pair}: {ratio['measured']:.2f}x as fast in training ({limit})")
    output.emit(result, json=json, text="\n".join(lines))
