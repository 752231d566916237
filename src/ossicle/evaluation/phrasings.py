"""The wordings in which the evaluation asks, and a fair way of dealing them out.

Every kind has at least ten wordings, users' own rather than a grammar's. Training and question generation never read
them; a test reads the sources and says so. Wordings go round robin, so that each is used equally often under `--limit`.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import yaml

from ossicle.errors import ConfigError, DataError, suggest

FILE = Path(__file__).with_name("phrasings.yaml")


@cache
def phrasings(path: Path = FILE) -> dict[str, list[str]]:
    """Return kind of question → wordings.

    Args:
        path: Another file of the same form replaces the one that comes with ossicle.

    Raises:
        DataError: The file cannot be read, or is not a mapping of lists.
    """
    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise DataError(f"{path}: cannot read the wordings: {error}; expected YAML, kind: [question, …]") from None
    if not isinstance(table, dict) or not all(isinstance(v, list) and v for v in table.values()):
        raise DataError(f"{path}: expected a mapping of kind to a list of questions")
    return table


def ask(kind: str, index: int, *, path: Path = FILE, **slots: str) -> str:
    """Return the wording for the index-th item of a kind.

    Raises:
        ConfigError: No wordings of that kind.
    """
    table = phrasings(path)
    if kind not in table:
        raise ConfigError(f"no wordings for '{kind}'; {suggest(kind, list(table))}")
    return table[kind][index % len(table[kind])].format(**slots)


def with_article(thing: str) -> str:
    """Return a label as it stands in a sentence: "a dog bark", "an engine", "rain".

    Example:
        >>> with_article("engine"), with_article("rain")
        ('an engine', 'rain')
    """
    if thing in UNCOUNTED or thing.endswith(("ing", "waves")) or thing.startswith(("a ", "an ", "the ")):
        return thing
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


UNCOUNTED = {
    "rain",
    "wind",
    "thunder",
    "music",
    "speech",
    "noise",
    "white noise",
    "pink noise",
    "brown noise",
    "silence",
    "water",
    "glass",
}
