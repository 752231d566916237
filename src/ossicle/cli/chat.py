"""`ossicle chat AUDIO…`: a conversation about recordings in the terminal, streamed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ossicle.cli import output
from ossicle.cli.clips import read_clips
from ossicle.cli.options import DeviceOption, DtypeOption, ModelOption
from ossicle.errors import UserError

if TYPE_CHECKING:
    from ossicle.inference.engine import Engine

app = typer.Typer()


@app.command()
def command(
    words: Annotated[list[str], typer.Argument(metavar="AUDIO...", help="Files, folders or globs.")],
    model: ModelOption = "nano",
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1, help="Longest answer.")] = 128,
    device: DeviceOption = "auto",
    dtype: DtypeOption = "auto",
) -> None:
    """Talk about recordings in the terminal; an empty line or Ctrl-D ends it."""
    if "-" in words:
        raise UserError("chat: reads its questions from stdin, so no recording can come from there; give a file")
    clips = read_clips(words)
    for row in clips.skipped:
        output.warn(f"skipped: {row['reason']}")

    from ossicle.inference.engine import load

    engine = load(model, device=device, dtype=dtype)
    output.note_setting_line(engine.setting)
    names = ", ".join(f"{wave.name} ({wave.duration_s:.1f} s)" for wave in clips.waveforms)
    output.note(f"ossicle: listening to {names}; an empty line ends it")
    messages: list[dict[str, Any]] = []
    while question := _question():
        tags = "" if messages else "<audio>" * len(clips.waveforms)
        messages.append({"role": "user", "content": tags + question})
        said = _say(engine, messages, clips.waveforms, max_new_tokens)
        messages.append({"role": "assistant", "content": said})


def _question() -> str:
    """Return the next question, empty at the end of the conversation."""
    if sys.stdin.isatty():
        sys.stderr.write("> ")
        sys.stderr.flush()
    return sys.stdin.readline().strip()


def _say(engine: Engine, messages: list[dict[str, Any]], audio: list[Any], max_new_tokens: int) -> str:
    """Stream one answer to stdout and return it."""
    pieces = []
    for piece in engine.stream(messages, audio, max_new_tokens=max_new_tokens):
        output.write(piece, end="")
        pieces.append(piece)
    output.write("")
    return "".join(pieces).strip()
