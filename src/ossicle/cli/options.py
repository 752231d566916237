"""Options that several verbs share, so that they read the same everywhere.

Example:
    def ask(clips: list[str], json: JsonOption = False, device: DeviceOption = "auto") -> None: ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

import typer

from ossicle.errors import ConfigError

PICTURES = (".png", ".svg", ".pdf", ".jpg", ".jpeg")
SHORT = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def changed(verb: Callable[..., Any], given: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return those of some options that were not left as they are, as they are written.

    Args:
        verb: The command.
        given: Parameter → value that it was called with.
        names: Parameters to look at.
    """
    usual = {name: parameter.default for name, parameter in signature(verb).parameters.items()}
    no = {name: f"no-{name}" for name, value in usual.items() if value is True}
    return ", ".join(f"--{no.get(n, n).replace('_', '-')}" for n in names if given[n] != usual[n])


def _short(dtype: str) -> str:
    """Return torch's name of a number format as the short one."""
    return SHORT.get(dtype, dtype)


JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
DeviceOption = Annotated[str, typer.Option("--device", help="Where to compute: auto, cpu, cuda, mps.")]
DtypeOption = Annotated[
    str, typer.Option("--dtype", callback=_short, help="Number format of the weights: auto, fp32, bf16, fp16.")
]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
InputModeOption = Annotated[
    str, typer.Option("--input-mode", help="joint, audio_only (no transcript) or text_only (no audio).")
]
TranscribeOption = Annotated[
    str, typer.Option("--transcribe", help="What reads speech into the prompt: ctc, or a Whisper folder or hub id.")
]
ModelOption = Annotated[str, typer.Option("--model", "-m", help="A model folder, or a model that ships: nano.")]


def check_picture(option: str, path: Path, endings: Sequence[str] = PICTURES) -> None:
    """Raise ConfigError, before any work, where a picture cannot be written by that name.

    Example:
        >>> check_picture("--out", Path("demo.png"))
    """
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if path.suffix.lower() not in endings or path.is_dir() or not there.is_dir():
        raise ConfigError(f"{option} {path}: expected a file's name that ends in {' or '.join(endings)}")
