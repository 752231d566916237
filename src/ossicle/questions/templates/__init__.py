"""Wordings as data: the files of this folder, read once, their slots filled in every way.

    "Name the {sound}s in the {clip}."  ×  {sound: 2 words, clip: 5 words}  ──►  10 questions, one index to draw

A version stands in every row that was made with it. Source: our choice; the wordings are ours.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from pathlib import Path

import yaml

from ossicle.errors import ConfigError

FOLDER = Path(__file__).parent
LATER = ("x", "y", "options")
"""Slots that are filled from the facts of a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Templates:
    """The wordings of one file.

    Attributes:
        version: What the file calls itself, with a hash of its content.
        tasks: Task → every question that can be asked, with `{x}` and `{options}` still open.
        descriptions: Label → how it sounds.
    """

    version: str
    tasks: dict[str, tuple[str, ...]]
    descriptions: dict[str, tuple[str, ...]]


@lru_cache(maxsize=8)
def closed(path: Path | None = None) -> Templates:
    """Return the wordings of closed questions.

    Args:
        path: A file of the same form; None = the one that ships.

    Raises:
        ConfigError: It is not there, has no tasks, or names a slot that it does not have.
    """
    file = path or FOLDER / "closed.yaml"
    if not file.is_file():
        raise ConfigError(f"{file}: no such file of wordings")
    content = file.read_bytes()
    book = yaml.safe_load(content)
    if not isinstance(book, dict) or not isinstance(book.get("tasks"), dict):
        raise ConfigError(f"{file}: expected 'version', 'slots' and 'tasks', each task with a list of questions")
    slots = book.get("slots", {})
    tasks = {
        name: tuple(dict.fromkeys(q for w in some for q in fill(w, slots, file)))
        for name, some in book["tasks"].items()
    }
    described = yaml.safe_load((FOLDER / "descriptions.yaml").read_bytes())["labels"]
    digest = hashlib.blake2b(content, digest_size=4).hexdigest()
    return Templates(
        version=f"{book.get('version', file.stem)}/{digest}",
        tasks=tasks,
        descriptions={label: tuple(words) for label, words in described.items()},
    )


def fill(wording: str, slots: dict[str, list[str]], file: Path) -> list[str]:
    """Return a wording with its slots filled in every way.

    Example:
        >>> fill("A {clip}?", {"clip": ["sound", "noise"]}, Path("x"))
        ['A sound?', 'A noise?']
    """
    names = [name for name in re.findall(r"\{(\w+)\}", wording) if name not in LATER]
    missing = [name for name in names if name not in slots]
    if missing:
        raise ConfigError(f"{file}: '{wording}' has the slot {{{missing[0]}}}, which is not among its slots")
    filled = []
    for words in product(*(slots[name] for name in names)):
        text = wording
        for name, word in zip(names, words, strict=True):
            text = text.replace(f"{{{name}}}", word, 1)
        filled.append(text)
    return filled
