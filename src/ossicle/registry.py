"""Names to classes, looked up lazily: `kind: whisper` in a recipe finds `encoders/whisper.py` only when it is used.

Each room (`encoders`, `connectors`, `integration`, `mixtures`, …) keeps one table `NAMES` in its `__init__`: name →
`"module:Class"`, written from the root where it lies in another room (a mixture is an encoder). To add a part: one new
file, one line there, one test. Other packages add names through the entry point group `ossicle.<room>`.
"""

from __future__ import annotations

import importlib
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from ossicle.errors import ConfigError, suggest


@cache
def names(room: str) -> dict[str, str]:
    """Return the table of one room: name to `"package.module:Class"`.

    Example:
        >>> "cnn" in names("encoders")
        True
    """
    package = f"ossicle.{room}"
    table = {
        name: target if target.startswith("ossicle.") else f"{package}.{target}"
        for name, target in importlib.import_module(package).NAMES.items()
    }
    table.update({entry.name: entry.value for entry in entry_points(group=package)})
    return table


def lookup(room: str, name: str) -> Any:
    """Return the class behind a name.

    Raises:
        ConfigError: No part of that name in the room.
    """
    table = names(room)
    if name not in table:
        raise ConfigError(f"unknown kind '{name}' in {room}; {suggest(name, list(table))}")
    module, _, attribute = table[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def parse(room: str, spec: dict[str, Any]) -> Any:
    """Return the checked `Config` of a part from its mapping `{kind: …, …}`.

    Raises:
        ConfigError: `kind` is missing or unknown, or a field does not fit.
    """
    from ossicle.config import validate

    if "kind" not in spec:
        raise ConfigError(f"a part of {room} has no 'kind'; known: {', '.join(sorted(names(room)))}")
    return validate(lookup(room, spec["kind"]).Config, spec, where=f"{room}.{spec['kind']}")
