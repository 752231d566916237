"""`ossicle eval MODEL --suite S --root DIR`: a suite over a folder of labelled sets, each score beside its controls."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.cli.options import (
    DeviceOption,
    DtypeOption,
    InputModeOption,
    JsonOption,
    SeedOption,
    TranscribeOption,
    changed,
)
from ossicle.cli.output import emit, note_setting_line
from ossicle.errors import ConfigError

app = typer.Typer()

OF_A_RUN = ("suite", "limit", "seed", "controls", "decoding", "input_mode", "transcribe")
"""Options that an earlier run decides where it is scored or run again."""
OF_A_MODEL = ("decoding", "input_mode", "transcribe", "before")
"""Options that mean nothing where answers come from a file."""

Model = Annotated[str, typer.Argument(help="A folder, nano, hf:NAME, https://host/v1#model, cascade:… or tags:….")]
Suite = Annotated[
    str,
    typer.Option("--suite", help="nano, clips, ltu-as, ltu, choices, pointing, hour, or tasks by name, with commas."),
]
Root = Annotated[
    Path, typer.Option("--root", envvar="OSSICLE_DATA", help="One folder per set, each with a manifest.jsonl.")
]
Tasks = Annotated[list[Path] | None, typer.Option("--task", help="A task file of your own, instead of a suite.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder of answers and card; a stopped run goes on.")]
Limit = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many clips per task.")]
BatchSize = Annotated[int, typer.Option("--batch-size", min=1, help="Questions asked at once.")]
Controls = Annotated[bool, typer.Option(help="Ask blind and shuffled too.")]
Wordings = Annotated[Path | None, typer.Option("--wordings", help="YAML of other questions.")]
Protocol = Annotated[str, typer.Option("--protocol", help="ours, or paper: the papers' scorers beside it.")]
Decoding = Annotated[str, typer.Option("--decoding", help="greedy, ltu (as LTU-AS samples) or beam.")]
Embedder = Annotated[
    str,
    typer.Option("--embedder", help="Reads labels by meaning: hash, a text encoder's folder, https://host/v1#model."),
]
Judge = Annotated[str, typer.Option("--judge", help="https://host/v1#model that judges answers too.")]
Predictions = Annotated[Path | None, typer.Option("--predictions", help="JSONL of id and answer, instead of a model.")]
QuestionsOut = Annotated[Path | None, typer.Option("--questions-out", help="Only write the questions with their ids.")]
TrainedOn = Annotated[
    list[Path] | None, typer.Option("--trained-on", help="Folder or manifest it was taught: is any of it in the suite?")
]
Report = Annotated[bool, typer.Option("--report", help="Write a page with confusions and errors to hear.")]
Usage = Annotated[bool, typer.Option("--usage", help="Which weak encoders a mixture uses, by task and class.")]
Beside = Annotated[
    list[str] | None,
    typer.Option("--beside", help="cascade:TRANSCRIBER+TEXT_MODEL or tags:TEXT_MODEL, asked the same."),
]
Before = Annotated[str, typer.Option("--before", help="The model before training: what has text alone lost?")]
Rescore = Annotated[bool, typer.Option("--rescore", help="Score the answers in --out again, without a model.")]
Verify = Annotated[Path | None, typer.Option("--verify", help="A card to rerun and check.")]


@app.command()
def command(
    model: Model = "nano",
    suite: Suite = "nano",
    root: Root = Path("data"),
    task: Tasks = None,
    out: Out = None,
    limit: Limit = None,
    batch_size: BatchSize = 64,
    controls: Controls = True,
    wordings: Wordings = None,
    protocol: Protocol = "ours",
    embedder: Embedder = "",
    judge: Judge = "",
    predictions: Predictions = None,
    questions_out: QuestionsOut = None,
    trained_on: TrainedOn = None,
    decoding: Decoding = "greedy",
    input_mode: InputModeOption = "joint",
    transcribe: TranscribeOption = "",
    usage: Usage = False,
    report: Report = False,
    beside: Beside = None,
    before: Before = "",
    rescore: Rescore = False,
    verify: Verify = None,
    seed: SeedOption = 0,
    json: JsonOption = False,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> int:
    """Score a model on a suite, beside its controls."""
    if suite in ("pointing", "hour"):
        return _listen(locals())
    from ossicle.evaluation.models import open_judge
    from ossicle.evaluation.run import Setting
    from ossicle.evaluation.task import load_spec, suite_specs

    specs = [load_spec(path) for path in task or ()] or ([] if rescore or verify else suite_specs(suite))
    setting = Setting(
        suite=",".join(spec.task for spec in specs) if task else suite,
        root=root,
        limit=limit,
        seed=seed,
        controls=controls and predictions is None,
        batch_size=batch_size,
        progress=True,
        protocol=protocol,
        embedder=embedder,
        judge=open_judge(judge),
        trained_on=tuple(trained_on or ()),
        decoding=decoding,
        input_mode=input_mode,
        transcribe=transcribe,
        text_only=predictions is None,
    )
    wish = _Wish(model, predictions, rescore, out, usage, report, before, tuple(beside or ()), device, dtype, json)
    setting, old = _checked(replace(setting, wordings=wordings) if wordings else setting, wish, locals())
    if questions_out is not None:
        return _write_questions(setting, specs or _old_specs(setting.suite), questions_out, json)
    return _run(setting, specs or _old_specs(setting.suite), old, wish)


@dataclass(frozen=True, slots=True)
class _Wish:
    """What is asked for beside the setting."""

    model: str
    predictions: Path | None
    rescore: bool
    out: Path | None
    usage: bool
    report: bool
    before: str
    beside: tuple[str, ...]
    device: str
    dtype: str
    json: bool


def _run(setting: Any, specs: list, old: dict[str, Any] | None, wish: _Wish) -> int:
    """Open every model that is needed and score or verify."""
    from ossicle.evaluation.models import open_model, open_rivals

    place = {"device": wish.device, "dtype": wish.dtype}
    setting = replace(setting, rivals=open_rivals(wish.beside, **place))
    answerer: Any = None if wish.rescore else wish.predictions
    identity = {"name": (wish.predictions or Path("answers")).stem, "hash": "", "setting": "answers from a file"}
    if not (wish.rescore or wish.predictions):
        answerer, identity = _hear(open_model(wish.model, **place), setting, usage=wish.usage)
    if wish.before:
        setting = replace(setting, before=(open_model(wish.before, **place)[0], wish.before))
    note_setting_line(identity["setting"])
    if old is not None:
        return _verify(old, setting, answerer, wish.out, identity, specs, wish.json)
    return _score(setting, answerer, wish.out, identity, specs, (wish.report, wish.usage), wish.json)


def _old_specs(suite: str) -> list:
    """Return the tasks of an earlier run; a new one's are looked up before anything else can be refused."""
    from ossicle.evaluation.task import suite_specs

    try:
        return suite_specs(suite)
    except ConfigError as error:
        raise ConfigError(f"{error}; a run of a task of your own: give --task FILE again") from None


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise ConfigError(why)


def _check_given(given: dict[str, Any]) -> None:
    """Refuse what an earlier run, or answers from a file, would silently leave unread."""
    for how in ("rescore", "verify"):
        names = (*OF_A_RUN, *(["predictions"] * (how == "rescore")))
        others = changed(command, given, names) if given[how] else ""
        _refuse(bool(others), f"--{how}: {others} would change nothing, the earlier run decides; take it out")
    if given["predictions"] is not None:
        names = (*OF_A_MODEL, *(() if given["beside"] else ("batch_size", "device", "dtype")))
        others = changed(command, given, names)
        _refuse(bool(others), f"--predictions: {others} would change nothing, no model is asked; take it out")


def _hear(opened: tuple[Any, dict[str, Any]], setting: Any, *, usage: bool) -> tuple[Any, dict[str, Any]]:
    """Return a model and its identity, told what to hear; what it cannot do is refused before any question."""
    from ossicle.inference.drawing import drawing
    from ossicle.inference.engine import Engine

    answerer = opened[0]
    if usage:
        from ossicle.evaluation.usage import check_mixture

        check_mixture(answerer)
    if isinstance(answerer, Engine):
        answerer.hearing = setting.hearing()
        answerer.drawing, answerer.seed = drawing(setting.decoding), setting.seed
    elif setting.input_mode != "joint" or setting.transcribe:
        raise ConfigError("--input-mode and --transcribe are for models that run here, not for a server")
    elif setting.decoding != "greedy":
        raise ConfigError("--decoding is for models that run here; a server draws as it is set up to")
    return opened


def _listen(given: dict[str, Any]) -> int:
    """Play the pointing game, or look for one event in an hour, with what the command was given.

    Raises:
        ConfigError: An option would change nothing.
    """
    from ossicle.cli.output import note
    from ossicle.evaluation import hour, pointing
    from ossicle.inference.engine import load

    suite, seed = given["suite"], given["seed"]
    taken = {"model", "suite", "root", "limit", "seed", "json", "device", "dtype", *(["out"] * (suite == "pointing"))}
    others = changed(command, given, [name for name in given if name not in taken])
    _refuse(bool(others), f"--suite {suite}: {others} would change nothing; take it out")
    engine = load(given["model"], device=given["device"], dtype=given["dtype"])
    note_setting_line(engine.setting)

    def tell(line: str) -> None:
        note(f"ossicle: {line}")

    if suite == "hour":
        told = hour.run(engine, n=given["limit"] or 10, seed=seed, tell=tell)
        emit(told, json=given["json"], text=hour.page(told))
        return 0
    told = pointing.run(engine, given["root"], n=given["limit"] or 100, seed=seed, out=given["out"], tell=tell)
    emit(told, json=given["json"], text=pointing.page(told))
    return 0


def _checked(setting: Any, wish: _Wish, given: dict[str, Any]) -> tuple[Any, dict[str, Any] | None]:
    """Return the setting, checked before a model is loaded with all that was given, and the card to verify."""
    from ossicle.evaluation.answers import read_header
    from ossicle.evaluation.card import read_card
    from ossicle.evaluation.run import rerun_setting

    _check_given(given)
    old = read_card(given["verify"]) if given["verify"] else None
    kept = bool(wish.rescore or wish.predictions)
    _refuse(wish.usage and kept, "--usage: answers from a file have no routers; name a model instead")
    if wish.rescore:
        _refuse(wish.out is None, "--rescore needs --out: the folder of an earlier run, with its answers.jsonl")
        setting = rerun_setting(setting, {"setting": read_header(Path(str(wish.out)) / "answers.jsonl")})
    setting = setting if old is None else rerun_setting(setting, old)
    setting.check()
    return setting, old


def _write_questions(setting: Any, specs: list, path: Path, json: bool) -> int:
    from ossicle.evaluation.predictions import write_questions
    from ossicle.evaluation.run import Outcome, build_tasks

    outcome = Outcome()
    build_tasks(setting, specs, outcome)
    count = write_questions(path, outcome.built.values())
    emit({"path": path, "questions": count}, json=json, text=f"{count} questions: {path}")
    return 0


def _verify(old: dict, setting: Any, answerer: Any, out: Path | None, identity: dict, specs: list, json: bool) -> int:
    from ossicle.evaluation.verify import verify_card

    result = verify_card(old, setting, answerer, out=out, model=identity, specs=specs)
    moved = [
        f"  {name}: {_short(found['was'])} on the card, {_short(found['is'])} now: {found['verdict']}"
        for name, found in result["tasks"].items()
        if found["verdict"] != "bit for bit"
    ]
    other = [what for what, same in result["same"].items() if not same]
    why = f" (not the card's: {', '.join(other)})" if moved and other else ""
    emit(result, json=json, text="\n".join([f"reproduces: {result['reproduces']}{why}", *moved]))
    return 1 if result["reproduces"] == "no" else 0


def _short(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"


def _score(
    setting: Any, answerer: Any, out: Path | None, identity: dict, specs: list, extras: tuple[bool, bool], json: bool
) -> int:
    from ossicle.evaluation.card import page, read_card
    from ossicle.evaluation.run import run_suite

    report, usage = extras
    result = run_suite(setting, answerer, out=out, model=identity, specs=specs, report=report)
    text = page(read_card(Path(result["card"]))) + f"\ncard: {result['card']}"
    if usage:
        from ossicle.evaluation.usage import write_usage

        result["usage"], table = write_usage(Path(result["card"]).parent, answerer, setting, specs)
        text += f"\n\n{table}"
    emit(result, json=json, text=text)
    return 1 if any("error" in row for row in result["tasks"].values()) else 0
