"""Every error a caller can meet, as a tree.

    OssicleError                    base; the command line prints it as one line
    └── UserError                   the caller can mend it: exit code 2
        ├── AudioError              a recording that cannot be read, or is not audio
        ├── ConfigError             a recipe, override or component setting that does not fit
        ├── DataError               a manifest, folder, sample or label that does not fit
        ├── CheckpointError         a model folder or weight file that does not fit
        ├── UnsupportedError        a real thing that ossicle does not support, naming what is missing
        └── MissingExtraError       an optional dependency; names its install command

A message says what, where, what was expected, and how to fix it. Anything that is not an `OssicleError` is our own
fault: exit code 1.
"""

from __future__ import annotations

import difflib
import importlib
from types import ModuleType


class OssicleError(Exception):
    """Base of all errors raised on purpose."""


class UserError(OssicleError):
    """Something the caller can mend."""


class AudioError(UserError):
    """A recording that cannot be read, or is not audio."""


class ConfigError(UserError):
    """A recipe, override or component setting that does not fit."""


class DataError(UserError):
    """A manifest, folder, sample or label that does not fit."""


class CheckpointError(UserError):
    """A model folder or weight file that does not fit."""


class UnsupportedError(UserError):
    """Something real that ossicle does not support; the message names what is missing."""


class MissingExtraError(UserError):
    """An optional dependency that is not installed."""


def suggest(word: str, known: list[str]) -> str:
    """Return `did you mean 'x'?` for a near miss, else the list of what is known.

    Example:
        >>> suggest("whispr", ["whisper", "ast"])
        "did you mean 'whisper'?"
    """
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}"


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say how to install it.

    Args:
        module: Import name, for example `peft`.
        extra: The extra of ossicle that brings it, for example `train`.

    Raises:
        MissingExtraError: The module is not installed.

    Example:
        >>> require("json", "train").loads("1")
        1
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(
            f"'{module}' is not installed; it comes with the extra [{extra}]: pip install 'ossicle[{extra}]'"
        ) from None
