"""`ossicle demo [AUDIO]`: see the whole of it in a minute or two."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.clips import read_clips
from ossicle.cli.options import DeviceOption, JsonOption, ModelOption, check_picture

if TYPE_CHECKING:
    from ossicle.demo import Told, Trained

app = typer.Typer()


@app.command()
def command(
    audio: Annotated[list[str] | None, typer.Argument(metavar="[AUDIO]...", help="Recordings of your own.")] = None,
    model: ModelOption = "nano",
    out: Annotated[Path, typer.Option("--out", "-o", help="Picture to write.")] = Path("ossicle-demo.png"),
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="a.b=c of the recipe `demo` that is trained.")
    ] = None,
    json: JsonOption = False,
    device: DeviceOption = "auto",
) -> None:
    """Answers beside truth, a minute of training, one picture."""
    check_picture("--out", out)
    clips = read_clips(audio).waveforms if audio else []

    from ossicle import demo
    from ossicle.errors import MissingExtraError
    from ossicle.inference.engine import load

    engine = load(model, device=device)
    output.note_setting_line(engine.setting)
    say = output.note if json else output.write
    say(f"1 · {engine.name} hears four bundled scenes; ✓ right, ✗ missed\n")
    told = demo.ask_scenes(engine)
    _show(told, say)
    own = [row for wave in clips for row in demo.ask_recording(engine, wave)]
    if own:
        say("    your recording\n")
        _show(own, say)
    say("2 · random weights learn to tell four sounds apart\n")
    trained = demo.train_a_minute(overrides=settings or (), device=device, tell=lambda line: say(f"    {line}"))
    _show_training(trained, say)
    picture = None
    try:
        picture = demo.draw(told, trained, out).resolve()
        say(f"3 · picture: {picture}\n")
    except MissingExtraError as error:
        say(f"3 · no picture: {error}\n")
    result = {"answers": told + own, "training": trained, "picture": picture, "model": engine.name}
    if json:
        output.emit(result, json=True)
    else:
        output.write(_next(audio))


def _show(told: list[Told], say: Any) -> None:
    clip = None
    for row in told:
        if row.clip != clip:
            say(f"    {row.clip}")
        clip = row.clip
        mark = {True: "✓", False: "✗", None: "·"}[row.right]
        truth = f"   (truth: {row.truth})" if row.right is False else ""
        say(f"      {mark} {row.question}  {row.answer}{truth}")
    known = [row.right for row in told if row.right is not None]
    say(f"    {sum(known)} of {len(known)} right\n" if known else "")


def _show_training(trained: Trained, say: Any) -> None:
    say(f'    after {trained.seconds:.0f} s:    "{trained.question}" → "{trained.after}" (truth: {trained.truth})')
    say(f"    loss {trained.first_loss:.2f} → {trained.last_loss:.2f}")
    say(f"    fresh sounds named right: {trained.right_before:.0%} → {trained.right_after:.0%}\n")


def _next(audio: list[str] | None) -> str:
    """Return what to type next, with the command as it was typed."""
    here = sys.argv[0] if Path(sys.argv[0]).name == "ossicle" else "ossicle"
    found = shutil.which("ossicle")
    name = "ossicle" if found and Path(found).resolve() == Path(here).resolve() else here
    clip = audio[0] if audio else "YOUR.wav"
    return "\n".join(
        (
            "Next:",
            f'    {name} ask {clip} "What do you hear?"',
            f"    {name} chat {clip}",
            f"    {name} adapt FOLDER          your recordings, one folder per label, become a model",
            f"    {name} train nano-smoke      a model from nothing, in three minutes",
        )
    )
