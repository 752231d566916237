"""Files of rows, one JSON object per line: written whole or not at all, read line by line, and counted.

    rows ──► NAME.writing ──rename──► NAME          a stopped or failed run leaves no half file behind

Source: our choice.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from ossicle.data.clip import Clip
from ossicle.errors import DataError


@dataclass(slots=True, kw_only=True)
class Tally:
    """What went in, what came out, and why the rest did not.

    Attributes:
        taken: Items that went in.
        given: Items that came out.
        skipped: Reason → items left out.
        examples: Reason → the first of them.
    """

    taken: int = 0
    given: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        """Count one item that is left out."""
        self.skipped[reason] += 1
        self.examples.setdefault(reason, name)

    def report(self) -> dict[str, Any]:
        """Return the counts as the command line prints them."""
        return {"in": self.taken, "out": self.given, "skipped": dict(self.skipped), "examples": dict(self.examples)}

    def text(self) -> str:
        """Return the counts as one line."""
        lost = ", ".join(f"{n} {why} (first: {self.examples[why]})" for why, n in self.skipped.most_common())
        return f"{self.taken} in, {self.given} out" + (f"; left out: {lost}" if lost else "")


@contextmanager
def writing(path: Path) -> Iterator[TextIO]:
    """Give a text file that takes its place when everything has been written, and vanishes otherwise.

    Raises:
        DataError: It cannot be written: no such folder, no permission, a full disk.
    """
    temporary = path.with_name(path.name + ".writing")
    new_folder = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8", errors="backslashreplace") as file:
            yield file
        temporary.replace(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be written ({error.strerror or error}); nothing was changed") from None
    finally:
        temporary.unlink(missing_ok=True)
        if new_folder and path.parent.is_dir() and not any(path.parent.iterdir()):
            path.parent.rmdir()


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> int:
    """Write rows and return how many they were."""
    count = 0
    with writing(path) as file:
        for count, row in enumerate(rows, 1):  # noqa: B007 - the last number is the result
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return count


def read_rows(path: Path, expected: str = "an object") -> Iterator[dict[str, Any]]:
    """Yield the rows of a file; `expected` says in messages what a row is.

    Raises:
        DataError: It is not there, or a line is no JSON object (with its number).
    """
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder; expected a file with one JSON object per line "
            f"(of a folder of recordings, `ossicle data import {path} --out clips.jsonl` makes one)"
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected one JSON object per line")
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not JSON ({error.msg}); expected one object per line") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: is {type(row).__name__}, expected {expected}")
        yield row


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file that are not blank, with their numbers.

    Only a newline ends a line: `str.splitlines` also cuts at U+2028, U+2029 and U+0085, which texts in JSON may hold.

    Raises:
        DataError: A line is not UTF-8 (with its number).
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8-sig").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise DataError(f"{path}:{number}: not UTF-8 text ({error.reason}); expected JSON lines") from None
            if text.strip():
                yield number, text


def read_appended(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that a run appends to, none where there is no file.

    A last line that a killed run tore is cut off, so that the next row does not continue it.
    """
    if not path.is_file():
        return []
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return [json.loads(line) for line in content[:whole].split(b"\n") if line.strip()]


EMPTY: tuple[Any, ...] = (None, (), {}, [])


def row_of(clip: Clip) -> dict[str, Any]:
    """Return a clip as a row; what is unknown is left out.

    Example:
        >>> row_of(Clip(path=Path("a.wav"), source="mine", labels=("rain",)))
        {'path': 'a.wav', 'source': 'mine', 'labels': ['rain']}
    """
    plain = asdict(clip)
    extra = plain.pop("extra")
    row = {key: list(value) if isinstance(value, tuple) else value for key, value in plain.items()}
    row |= {"path": str(clip.path), "start_s": clip.start_s or None}
    return {key: value for key, value in row.items() if value not in EMPTY} | {
        key: value for key, value in extra.items() if key not in row
    }


def read_clips(path: Path) -> Iterator[Clip]:
    """Yield the clips of a file that `write_rows` wrote; relative paths start at its folder.

    Raises:
        DataError: As for `read_rows`, or a row has no `path`.
    """
    from ossicle.data.manifest import clip_of

    for number, row in enumerate(read_rows(path), 1):
        if not isinstance(row.get("path"), str):
            raise DataError(f"{path}: row {number} has no text 'path'; expected clips, as `ossicle data import` writes")
        yield clip_of(row, path.parent, source=path.parent.name)
