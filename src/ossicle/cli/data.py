"""`ossicle data`: from labelled recordings to questions and answers, step by step or whole."""

from __future__ import annotations

import json as jsonlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.options import JsonOption, SeedOption

app = typer.Typer(help="Clips, questions, mixes, shards and caches: the data engine.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.")]
Clips = Annotated[Path, typer.Argument(help="Clips, as `ossicle data import` writes them.")]
Questions = Annotated[Path, typer.Argument(help="Questions, as `ossicle data generate` writes them.")]
Jobs = Annotated[int, typer.Option(help="Processes; 0 = one per core.", min=0)]
Engine = Annotated[str, typer.Option(help="Where it runs: local, or ray.")]


@app.callback()
def _group() -> None:
    """Turn recordings and what is known of them into questions and answers."""


@app.command("import")
def import_command(
    root: Annotated[Path, typer.Argument(help="A dataset's folder, or a table, shard or file of cuts.")],
    out: Out = Path("clips.jsonl"),
    adapter: Annotated[str, typer.Option(help="Layout: see `ossicle list datasets`; auto, or a YAML file.")] = "auto",
    source: Annotated[str, typer.Option(help="Name of the set; by default the adapter's or the folder's.")] = "",
    licence: Annotated[str, typer.Option(help="Terms of the recordings, where the set does not say.")] = "",
    json: JsonOption = False,
) -> None:
    """Read a dataset's official layout into clips.

    Example: ossicle data import sounds/ --out clips.jsonl
    """
    from ossicle.data.imports import import_clips

    layout, tally = import_clips(root, out, adapter=adapter, source=source, licence=licence)
    if layout.layout == "unverified" and layout.page:
        output.warn(f"the layout of {layout.name} was not checked against {layout.page}; look at the counts")
    _emit(tally.report(), out, tally.text(), json, adapter=layout.name)


@app.command("stats")
def stats_command(
    path: Annotated[Path, typer.Argument(help="Clips or questions.")],
    picture: Annotated[Path | None, typer.Option(help="Draw the most frequent labels into this file.")] = None,
    json: JsonOption = False,
) -> None:
    """Count clips or questions: hours, labels, balance, licences."""
    from ossicle.data import stats
    from ossicle.data.rows import read_rows

    found = stats.count(read_rows(path))
    if picture is not None:
        found["picture"] = stats.picture(found, picture)
    output.emit({"in": found["rows"], "out": found["rows"], "skipped": {}, **found}, json=json, text=stats.table(found))


@app.command("describe")
def describe_command(
    clips: Clips,
    out: Out = Path("described.jsonl"),
    jobs: Jobs = 1,
    engine: Engine = "local",
    loudness: Annotated[bool, typer.Option("--loudness", help="Measure LUFS too; takes longer.")] = False,
    json: JsonOption = False,
) -> None:
    """Measure pitch, level, rate, pauses and noise of every clip, and fit five levels to the set."""
    from ossicle.data.imports import describe_file

    started = time.monotonic()
    tally, cuts, seconds = describe_file(
        clips, out, jobs=jobs, engine=engine, loudness=loudness, progress=_progress("clips")
    )
    wall = time.monotonic() - started
    more = {"levels": cuts, "audio_s": round(seconds, 1), "seconds": round(wall, 2)}
    _emit(tally.report(), out, f"{tally.text()}; {seconds / max(wall, 1e-9):.0f} x real time", json, **more)


@app.command("generate")
def generate_command(
    clips: Clips,
    out: Out = Path("questions.jsonl"),
    task: Annotated[list[str] | None, typer.Option("--task", help="A closed task; repeat for more.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Questions of each task that fits a clip.")] = 1,
    paper: Annotated[bool, typer.Option("--paper", help="Answer shapes, prefix and cut points of LTU-AS.")] = False,
    wordings: Annotated[Path | None, typer.Option(help="YAML of other wordings.")] = None,
    jobs: Jobs = 1,
    engine: Engine = "local",
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Make closed questions with one right answer from labels and facts."""
    from ossicle.data.rows import Tally, write_rows
    from ossicle.questions.generate import Plan, generate, read_set

    plan = Plan(tasks=tuple(task or ()), repeat=repeat, seed=seed, paper=paper, wordings=wordings)
    found, corpus = read_set(clips)
    tally = Tally(taken=len(found))
    tally.given = write_rows(out, generate(found, corpus, plan, jobs=jobs, how=engine))
    _emit(tally.report(), out, f"{tally.taken} clips, {tally.given} questions", json)


def _emit(report: dict[str, Any], out: Path, text: str, json: bool, **more: Any) -> None:
    output.emit({**report, "path": out, **more}, json=json, text=f"{text}\n{out}")


def _progress(what: str) -> Any:
    """Return a function that notes how many are done, every few seconds."""
    last = [time.monotonic()]

    def tell(done: int) -> None:
        if time.monotonic() - last[0] > 5:
            last[0] = time.monotonic()
            output.note(f"{done} {what}")

    return tell


def _plain(value: Any) -> str:
    return jsonlib.dumps(value, ensure_ascii=False, indent=2, default=str)
