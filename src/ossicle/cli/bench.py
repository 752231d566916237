"""`ossicle bench`: speed and memory, side by side in one run."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from ossicle.cli import output
from ossicle.cli.options import DeviceOption, JsonOption, SeedOption

BenchDtypeOption = Annotated[Literal["fp32", "bf16"], typer.Option("--dtype", help="Number format: fp32 or bf16.")]

app = typer.Typer(help="Measure speed and memory side by side.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Measure speed and memory side by side."""


@app.command()
def integrations(
    shape: Annotated[str, typer.Option(help="Named decoder shape.")] = "cpu-small",
    rounds: Annotated[int, typer.Option(help="Counted steps of each variant.", min=1)] = 7,
    device: DeviceOption = "cpu",
    dtype: BenchDtypeOption = "fp32",
    threads: Annotated[int | None, typer.Option(help="CPU threads of each process.", min=1)] = None,
    audio_tokens: Annotated[int | None, typer.Option(help="Audio tokens of a row.", min=1)] = None,
    text_tokens: Annotated[int | None, typer.Option(help="Text tokens of a row.", min=2)] = None,
    batch: Annotated[int | None, typer.Option(help="Rows of a step.", min=1)] = None,
    freeze_ffn: Annotated[bool, typer.Option("--freeze-ffn", help="Feed-forward blocks do not train.")] = False,
    checkpointing: Annotated[bool, typer.Option("--checkpointing", help="Recompute layers in backward.")] = False,
    lora: Annotated[
        int, typer.Option(help="Rank of adapters on Q, K, V, O over a frozen decoder; 0 = all trains.", min=0)
    ] = 0,
    compiled: Annotated[bool, typer.Option("--compiled", help="Norms and feed-forward blocks are compiled.")] = False,
    clock: Annotated[
        Literal["wall", "cpu"], typer.Option(help="wall, or cpu: seconds of the process, on a busy machine.")
    ] = "wall",
    only: Annotated[list[str] | None, typer.Option(help="Measure only this variant; may be given again.")] = None,
    peers: Annotated[bool, typer.Option("--peers", help="Also transformers' Qwen2-Audio and Trainer.")] = False,
    matrices: Annotated[bool, typer.Option("--matrices", help="Also a PLITS step's matrix products alone.")] = False,
    json: JsonOption = False,
) -> None:
    """Compare the ways of hearing: PLITS, LAL, PAL, cross-attention; random weights, nothing is fetched."""
    from ossicle.bench.integrations import Setting, run
    from ossicle.bench.shapes import VARIANTS
    from ossicle.inference.engine import choose_device

    setting = Setting(
        shape=shape,
        rounds=rounds,
        device=str(choose_device(device)),
        dtype=dtype,
        threads=threads,
        audio_tokens=audio_tokens,
        text_tokens=text_tokens,
        batch=batch,
        freeze_ffn=freeze_ffn,
        checkpointing=checkpointing,
        lora=lora,
        compiled=compiled,
        clock=clock,
    )
    output.note(f"bench integrations at {shape}: {rounds} rounds, one process per variant")
    result = run(setting, only or VARIANTS, peers=peers, matrices=matrices)
    lines = [f"{'variant':14} {'train samples/s':>16} {'kept for backward':>18} {'infer samples/s':>16}"]
    for name, row in {**result["results"], **result.get("peers", {})}.items():
        kept = row["train"]["activation_bytes"] / 1e6
        speeds = row["train"]["samples_per_s"], row["infer"]["samples_per_s"]
        lines.append(f"{name:14} {speeds[0]:16.1f} {kept:15.0f} MB {speeds[1]:16.1f}")
    for pair, ratio in result["ratios"].items():
        limit = f"analytic {ratio['analytic']:.2f}x, share {ratio['share']:.0%}"
        lines.append(f"{pair}: {ratio['measured']:.2f}x as fast in training ({limit})")
    if "matrices" in result:
        lines.append(f"plits-mlp: its matrix products alone take {result['matrices']['train']:.0%} of a training step")
    output.emit(result, json=json, text="\n".join(lines))


@app.command()
def serve(
    model: Annotated[str, typer.Argument(help="A model folder, or a model that ships.")] = "nano",
    concurrency: Annotated[int, typer.Option(help="Questions at once.", min=2)] = 16,
    tokens: Annotated[int, typer.Option(help="Tokens of each answer.", min=4)] = 64,
    repeats: Annotated[int, typer.Option(help="Clips of which a second question is asked.", min=1)] = 5,
    long: Annotated[int, typer.Option(help="Long questions of the mixed load.", min=1)] = 8,
    short: Annotated[int, typer.Option(help="Short questions of the mixed load.", min=1)] = 56,
    part: Annotated[
        list[str] | None,
        typer.Option(help="throughput, handles, plits, steady, mixed or burst; repeat it; without, all."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the clips.")] = 0,
    json: JsonOption = False,
) -> None:
    """Load a server: many questions at once, second questions, gaps between tokens, short beside long.

    Example: ossicle bench serve nano --json
    """
    from ossicle.bench.serve import PARTS, Setting, lines, run

    output.note(f"bench serve: {model}, {concurrency} at once, {tokens} tokens each")
    result = run(
        Setting(
            model=model, concurrency=concurrency, tokens=tokens, repeats=repeats, long=long, short=short, seed=seed
        ),
        part or PARTS,
    )
    output.emit(result, json=json, text="\n".join(lines(result)))


@app.command()
def data(
    clips: Annotated[int, typer.Option(help="Labelled clips that are asked about.", min=100)] = 3000,
    rounds: Annotated[int, typer.Option(help="Measurements; the fastest counts.", min=1)] = 3,
    cores: Annotated[int, typer.Option(help="Of one machine, for the scaling.", min=1)] = 16,
    batch: Annotated[int, typer.Option(help="Samples of a batch, for its padding.", min=2)] = 32,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure per core: closed questions from facts, describing audio, decoding and features; and padding.

    Example: ossicle bench data --json
    """
    from ossicle.bench import data as engine
    from ossicle.bench import input as incoming

    result = engine.run(clips=clips, rounds=rounds, cores=cores, seed=seed)
    result |= incoming.run(rounds=rounds, batch=batch, seed=seed)
    padding, goals = result["padding"], result["goals"]
    lines = [
        f"{result['closed_questions_per_s']} closed questions a second and core",
        f"{result['describe_ms_per_10s']} ms to describe 10 s of audio, "
        f"{result['describe_times_real_time']} x real time",
        f"the paper's set, hours by machines of {cores} cores: {result['paper_set']['hours']}",
        *(
            f"{name}: decoding {row['decode']:.0f}, features {row['features']:.0f}, both "
            f"{row['times_real_time']:.0f} x real time and core (goal at least {goals['times_real_time']})"
            for name, row in result["input"].items()
        ),
        f"padding in batches of {batch}: {padding['tokens']:.1%} of tokens (goal at most {goals['padding']:.0%}; audio "
        f"{padding['audio']:.1%}, text {padding['text']:.1%}); random batches {padding['tokens_random']:.1%}",
    ]
    output.emit(result, json=json, text="\n".join(lines))


@app.command()
def train(
    steps: Annotated[int, typer.Option(help="Optimiser steps over kept features.", min=2)] = 12,
    batch: Annotated[int, typer.Option(help="Samples of a step.", min=2)] = 16,
    clips: Annotated[int, typer.Option(help="Clips that the mixture hears.", min=2)] = 16,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Measure what training waits for when features are kept, and what a mixture costs that selects one encoder.

    Example: ossicle bench train --json
    """
    from ossicle.bench.train import run

    output.note(f"bench train: {steps} steps of {batch} over kept features; a mixture over {clips} clips")
    result = run(steps=steps, batch=batch, clips=clips, seed=seed)
    cached, mowe, goals = (result[name] for name in ("cached", "mowe", "goals"))
    lines = [
        f"kept features: the decoder is busy {cached['busy']:.1%} of the time (goal at least {goals['busy']:.0%}); "
        f"a step {cached['step_s'] * 1000:.0f} ms, of which its batch {cached['batch_s'] * 1000:.1f} ms",
        f"MoWE top 1: {mowe['ratio']:.3f} x the operations of base, selected encoders and router, "
        f"{mowe['seconds_ratio']:.2f} x their time (goal at most {goals['mowe']:g})",
    ]
    output.emit(result, json=json, text="\n".join(lines))


@app.command()
def length(
    shape: Annotated[str, typer.Option(help="Named decoder shape.")] = "cpu-small",
    seconds: Annotated[
        list[int] | None, typer.Option(help="Lengths of the audio; default 10 s to an hour.", min=1)
    ] = None,
    rounds: Annotated[int, typer.Option(help="Prefills of each length; the fastest counts.", min=1)] = 2,
    limit: Annotated[float, typer.Option(help="Seconds that a length may take.", min=1)] = 60.0,
    device: DeviceOption = "cpu",
    dtype: BenchDtypeOption = "fp32",
    threads: Annotated[int | None, typer.Option(help="CPU threads of each process.", min=1)] = None,
    json: JsonOption = False,
) -> None:
    """Measure prefill time and memory over the length of the audio, attended and prepended.

    Example: ossicle bench length --seconds 60 --seconds 300 --seconds 600
    """
    from ossicle.bench.integrations import Setting
    from ossicle.bench.length import LENGTHS_S, run
    from ossicle.inference.engine import choose_device

    setting = Setting(shape=shape, device=str(choose_device(device)), dtype=dtype, threads=threads)
    output.note(f"bench length at {shape}: one process for each length")
    result = run(setting, sorted(seconds or LENGTHS_S), rounds=rounds, limit_s=limit)
    lines = []
    for name, rows in result["curves"].items():
        for row in rows:
            took = row.get("failed") or f"{row['prefill_s']:.2f} s, {row['peak_bytes'] / 1e6:.0f} MB"
            lines.append(f"{name:10} {row['seconds']:5} s of audio: {took}")
        found = [f"{what} {value:.2f}" for what, value in result["slopes"][name].items() if value is not None]
        lines.append(f"{name:10} slope from 5 minutes on: {', '.join(found) or 'not reached'} (goal {result['goal']})")
    output.emit(result, json=json, text="\n".join(lines))
