"""`ossicle data`: from labelled recordings to questions and answers, step by step or whole."""

from __future__ import annotations

import json as jsonlib
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.options import JsonOption, SeedOption, changed, check_picture
from ossicle.errors import ConfigError

app = typer.Typer(help="Clips, questions, mixes, shards and caches: the data engine.", no_args_is_help=True)

Out = Annotated[Path, typer.Option("--out", "-o", help="File to write.")]
Clips = Annotated[Path, typer.Argument(help="Clips, as `ossicle data import` writes them.")]
Questions = Annotated[Path, typer.Argument(help="Questions, as `ossicle data generate` writes them.")]
Jobs = Annotated[int, typer.Option(help="Processes; 0 = one per core.", min=0)]
Engine = Annotated[str, typer.Option(help="Where it runs: local, or ray.")]

OF_AN_ENDPOINT = (
    "prompt", "pairs", "key_variable", "at_once", "tries", "timeout", "max_usd", "max_tokens", "max_seconds",
    "price_in", "price_out", "dry_run", "again",
)  # fmt: skip
"""Options of open questions."""


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

    if picture is not None:
        check_picture("--picture", picture)
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
    transcribe: Annotated[
        str | None, typer.Option(help="Words where there are none: ctc (nano's), or a Whisper folder or hub id.")
    ] = None,
    tag: Annotated[
        str | None, typer.Option(help="Labels where there are none: nano, a model folder, or an audio classifier.")
    ] = None,
    levels: Annotated[
        list[str] | None,
        typer.Option(
            metavar="a=b", help="What five levels are told by: volume=peak_db, cuts.rms_db=[-50,-40,-30,-20]."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Measure pitch, level, rate, pauses and noise of every clip, and fit five levels to the set."""
    from ossicle.config import from_overrides
    from ossicle.data.hear import Hearer
    from ossicle.data.imports import describe_file
    from ossicle.data.set_levels import LevelsConfig

    settings = from_overrides(LevelsConfig, levels or [], name="--levels")
    hear = Hearer(transcribe=transcribe, tag=tag) if transcribe or tag else None
    started = time.monotonic()
    tally, fitted, seconds = describe_file(
        clips, out, jobs=jobs, engine=engine, hear=hear, levels=settings, progress=_progress("clips")
    )
    wall = time.monotonic() - started
    more = {"levels": fitted.cuts, "audio_s": round(seconds, 1), "seconds": round(wall, 2)}
    _emit(tally.report(), out, f"{tally.text()}; {seconds / max(wall, 1e-9):.0f} x real time", json, **more)


@app.command("generate")
def generate_command(
    clips: Clips,
    out: Out = Path("questions.jsonl"),
    task: Annotated[list[str] | None, typer.Option("--task", help="A closed task; repeat for more.")] = None,
    repeat: Annotated[int, typer.Option(min=1, help="Questions of each task that fits a clip.")] = 1,
    paper: Annotated[bool, typer.Option("--paper", help="Answer shapes, prefix and cut points of LTU-AS.")] = False,
    wordings: Annotated[Path | None, typer.Option(help="YAML of other wordings.")] = None,
    endpoint: Annotated[str, typer.Option(help="Open questions by a model: https://host/v1#model.")] = "",
    prompt: Annotated[str, typer.Option(help="Of open questions: auto, sound, speech, music, joint, …")] = "auto",
    pairs: Annotated[int | None, typer.Option(min=1, help="Open questions per clip; by default the prompt's.")] = None,
    key_variable: Annotated[str, typer.Option(help="Environment variable with the key.")] = "OPENAI_API_KEY",
    at_once: Annotated[int, typer.Option(min=1, help="Requests in flight.")] = 8,
    tries: Annotated[int, typer.Option(min=1, help="Requests for one reply.")] = 6,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for a reply.")] = 120.0,
    max_usd: Annotated[float | None, typer.Option(help="Stop at this much money.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Stop at so many tokens.")] = None,
    max_seconds: Annotated[float | None, typer.Option(help="Stop after so long.")] = None,
    price_in: Annotated[float, typer.Option(help="Dollars for a million prompt tokens.")] = 0.0,
    price_out: Annotated[float, typer.Option(help="Dollars for a million reply tokens.")] = 0.0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what open questions would take.")] = False,
    again: Annotated[bool, typer.Option("--again", help="Ask about rejected clips once more.")] = False,
    jobs: Jobs = 1,
    engine: Engine = "local",
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Make closed questions from labels and facts, or open ones by a language model (--endpoint).

    Example: ossicle data generate described.jsonl --out questions.jsonl
    """
    given = locals()
    from ossicle.questions.ask_model import Asking
    from ossicle.questions.endpoint import endpoint_named
    from ossicle.questions.generate import Plan
    from ossicle.questions.whole import closed_file, open_file

    if not endpoint:
        if others := changed(generate_command, given, OF_AN_ENDPOINT):
            raise ConfigError(f"{others} would change nothing without --endpoint; add it, or take them out")
        plan = Plan(tasks=tuple(task or ()), repeat=repeat, seed=seed, paper=paper, wordings=wordings)
        tally = closed_file(clips, out, plan, jobs=jobs, engine=engine)
        _emit(tally.report(), out, f"{tally.taken} clips, {tally.given} questions", json)
        return
    config = endpoint_named(
        endpoint, key_variable=key_variable, at_once=at_once, tries=tries, timeout_s=timeout, max_usd=max_usd,
        max_tokens=max_tokens, max_seconds=max_seconds, usd_per_million_in=price_in, usd_per_million_out=price_out,
    )  # fmt: skip
    asking = Asking(prompt=prompt, pairs=pairs, paper=paper, again=again)
    report = open_file(clips, out, config, asking=asking, dry_run=dry_run, progress=_progress("units"))
    output.emit({**report, "path": None if dry_run else out}, json=json, text=_plain(report))


@app.command("filter")
def filter_command(
    questions: Questions,
    out: Out = Path("filtered.jsonl"),
    rejected: Annotated[Path | None, typer.Option(help="Where what goes is kept; by default beside --out.")] = None,
    eval_set: Annotated[
        list[str] | None,
        typer.Option("--eval-set", help="Clips that must not be taught: a file of clips, or [LAYOUT:]FOLDER."),
    ] = None,
    not_answers: Annotated[str, typer.Option(help="Drop answers that decline: ours, paper, or none.")] = "ours",
    near: Annotated[float, typer.Option(help="Likeness of near duplicates; 1 = only equal ones.")] = 0.85,
    leaked: Annotated[float, typer.Option(help="Share of an answer that may stand in its question.")] = 0.8,
    min_answer_words: Annotated[int, typer.Option(help="Of open questions.")] = 1,
    language: Annotated[str, typer.Option(help="Of the answers: en, de, fr, …; any = all.")] = "en",
    restore: Annotated[bool, typer.Option("--restore", help="Put back what --rejected holds.")] = False,
    joint_subset: Annotated[
        str, typer.Option(help="On clips: LTU-AS's three conditions; below or above 20 %, or any.")
    ] = "",
    per_label: Annotated[int, typer.Option(min=1, help="With --joint-subset: clips of a label.")] = 500,
    json: JsonOption = False,
) -> None:
    """Take out questions that should not be taught, each with its reason; --restore puts them back."""
    from ossicle.config import validate
    from ossicle.questions.filter import FilterConfig
    from ossicle.questions.joint import JointConfig
    from ossicle.questions.whole import filter_file, restore_file, subset_file

    place = rejected or out.with_suffix(".rejected.jsonl")
    if joint_subset:
        wanted = {"reading": joint_subset, "per_label": per_label}
        tally = subset_file(questions, out, validate(JointConfig, wanted, where="--joint-subset"))
    elif restore:
        tally = restore_file(questions, place, out)
    else:
        config = FilterConfig(
            not_answers="" if not_answers == "none" else not_answers, near=near, leaked=leaked,
            min_answer_words=min_answer_words, language="" if language == "any" else language,
        )  # fmt: skip
        tally = filter_file(questions, out, place, config, eval_sets=eval_set or [])
    _emit(tally.report(), out, tally.text(), json)


@app.command("mix")
def mix_command(
    files: Annotated[list[str], typer.Argument(help="FILE, FILE*TIMES or FILE=WEIGHT.")],
    out: Out = Path("mix.jsonl"),
    total: Annotated[int | None, typer.Option(min=1, help="Rows to write; by default what the files hold.")] = None,
    max_samples: Annotated[int | None, typer.Option(min=1, help="At most so many rows of each file.")] = None,
    go_on: Annotated[bool, typer.Option("--go-on", help="Begin where the last mix of these files ended.")] = False,
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Mix files of questions in proportion, the same rows from the same seed.

    Example: ossicle data mix closed.jsonl=2 open.jsonl=1 --total 10000
    """
    from ossicle.data.blend import blend, entry_named

    entries = [entry_named(file, max_samples) for file in files]
    result = blend(entries, out, seed=seed, total=total, go_on=go_on)
    rows = sum(result["taken"].values())
    text = ", ".join(f"{name} {number}" for name, number in result["taken"].items())
    _emit({"in": rows, "out": rows, "skipped": {}, **result}, out, f"{rows} rows: {text}", json)


@app.command("shard")
def shard_command(
    questions: Questions,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of shards.")] = Path("shards"),
    megabytes: Annotated[float, typer.Option(min=0.001, help="Size of a shard.")] = 256,
    read: Annotated[
        bool, typer.Option("--read", help="QUESTIONS is a folder of shards: unpack them into --out.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Write questions and their recordings as WebDataset shards, or unpack them."""
    from ossicle.data.rows import Tally, read_rows, write_rows
    from ossicle.data.shards import read_shards, write_shards

    tally = Tally()
    if read:
        path = out / "questions.jsonl"
        tally.taken = tally.given = write_rows(path, read_shards(questions, out / "audio"))
        _emit(tally.report(), path, tally.text(), json)
        return
    paths = write_shards(read_rows(questions), out, tally, megabytes=megabytes)
    _emit(tally.report(), out, f"{tally.text()}; {len(paths)} shards", json, shards=len(paths))


@app.command("cache")
def cache_command(
    questions: Questions,
    model: Annotated[str, typer.Option("--model", "-m", help="Whose encoders: a model folder, or nano.")] = "nano",
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of caches.")] = Path("features"),
    dtype: Annotated[str, typer.Option(help="What is kept: fp16, bf16, int8 or fp32.")] = "fp16",
    verify: Annotated[
        bool, typer.Option("--verify", help="Read what is kept already; make again what is damaged.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many bytes it takes.")] = False,
    json: JsonOption = False,
) -> None:
    """Run recordings through a model's frozen encoders once, and keep what comes out."""
    from ossicle.data import cache_file
    from ossicle.data.rows import Tally
    from ossicle.inference.engine import load

    tally = Tally()
    audios = cache_file.audios_of(questions, tally)
    inner = load(model, device="cpu").model
    planned = cache_file.plan(inner, audios, dtype)
    done = {} if dry_run else cache_file.fill(
        inner, audios, out, dtype, verify=verify, progress=_progress("recordings")
    )  # fmt: skip
    tally.given = done.get("kept", 0)
    text = f"{planned['recordings']} recordings, {planned['bytes'] / 1e6:.1f} MB in {dtype}"
    text += "".join(f"; {name} loses {100 * share:.3g} %" for name, share in done.get("loss", {}).items())
    _emit({**tally.report(), **planned, **done}, out, text, json)


@app.command("build")
def build_command(
    recipe: Annotated[str, typer.Argument(help="A data recipe that ships (openasqa, folder), or a YAML file.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[a.b=c]…", help="Settings of the recipe.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder; a stopped build goes on there.")] = Path("built"),
    jobs: Jobs = 1,
    engine: Engine = "local",
    json: JsonOption = False,
) -> None:
    """Run a whole recipe: import, describe, ask, filter, mix, shard; with a data card.

    Example: ossicle data build folder parts.sounds.root=recordings --out built
    """
    from ossicle.questions.build import Build, load

    result = Build(load(recipe, overrides or []), out, output.note, jobs=jobs, engine=engine).run()
    output.emit(result, json=json, text=f"{result['out']} questions: {result['path']}\ncard: {result['card']}")


@app.command("explain")
def explain_command(
    row: Annotated[str, typer.Argument(help="Id of a row, or its line number.")],
    questions: Annotated[Path, typer.Option("--in", help="File of questions.")] = Path("questions.jsonl"),
    clips: Annotated[Path | None, typer.Option(help="Its clips, to show their facts too.")] = None,
    json: JsonOption = False,
) -> None:
    """Show how a row was made: wording or prompt, what the model was told, seed, clip, terms."""
    from ossicle.questions.whole import explain

    found = explain(row, questions, clips)
    output.emit(found, json=json, text=_plain(found))


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
