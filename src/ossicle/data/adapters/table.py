"""Datasets described by a table: which file, which columns, where the recordings lie.

    tables:                                   the first table has one row per clip; the others are joined to it
      - {file: meta/esc50.csv}
    audio: audio/{filename}                   filled from the row; `*` takes the first match, any suffix
    columns:                                  field of a clip: text filled from the row, or a mapping that says more
      labels: {from: "{category}", replace: {"_": " "}}
      gender: {from: "{sex}", map: {F: female, M: male}}

Without tables each sound file under `files:` is a row, whose `pattern` (a regular expression) names its parts.

Source: our choice.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ossicle.config import Section, load
from ossicle.data.clip import Clip
from ossicle.data.manifest import clip_of
from ossicle.data.rows import Tally
from ossicle.errors import ConfigError, DataError, suggest

FOLDER = Path(__file__).parent
CAPTIONS = re.compile(r"captions?(_\d+)?$")


class Table(Section):
    """One file of a layout.

    Attributes:
        file: Its path under the root; with `*`, all files that match.
        delimiter: Between columns of a text table.
        header: Names of the columns, where the file has none.
        comment: Lines that begin with this are left out.
        key: Column of this table that is joined.
        to: Column of the first table that it is joined to.
    """

    file: str
    delimiter: str = ","
    header: list[str] = Field(default=[])
    comment: str = ""
    key: str = ""
    to: str = ""


class Column(Section):
    """How a field of a clip is made from a row.

    Attributes:
        template: Text with `{columns}`; written `from`.
        split: Cut the text into a list here.
        replace: Pieces of text and what stands for them.
        map: Whole texts and what stands for them; others are unknown.
        lookup: Table whose `key` the texts are, and the column that stands for them: `class_labels.csv:display_name`.
    """

    template: str = Field(alias="from")
    split: str = ""
    replace: dict[str, str] = Field(default={})
    map: dict[str, str] = Field(default={})
    lookup: str = ""


class Layout(Section):
    """One dataset.

    Attributes:
        name: Of the adapter, and the `source` of its clips.
        about: What the set holds, one line.
        page: Where its owner describes files and columns.
        layout: Whether they were read there.
        licence: Terms of the recordings.
        attribution: Credit that must travel with them.
        reader: `table`, or a name of `adapters.NAMES`.
        tables: Files with columns; none = one clip per sound file.
        files: Which files are clips when there are no tables.
        pattern: Regular expression over such a file's path under the root; its named groups are columns.
        audio: Where a row's recording lies.
        keep: Column → value that a row must have.
        columns: Field of a clip → how it is made.
        language: Of the speech, when it is the same in all.
        options: Settings of a reader in code.
    """

    name: str
    about: str = ""
    page: str = ""
    layout: Literal["verified", "unverified"] = "unverified"
    licence: str | None = None
    attribution: str | None = None
    reader: str = "table"
    tables: list[Table] = Field(default=[])
    files: str = "**/*"
    pattern: str = ""
    audio: str = ""
    keep: dict[str, str] = Field(default={})
    columns: dict[str, str | Column] = Field(default={})
    language: str | None = None
    options: dict[str, str] = Field(default={})


def shipped() -> list[str]:
    """Return the names of the datasets that have a layout."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: str) -> Layout:
    """Return a layout by shipped name, by file, or the empty layout of a generic one.

    Raises:
        ConfigError: No such layout.
    """
    from ossicle.data.adapters import NAMES

    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if path.is_file():
        return load(Layout, path)
    if name in NAMES:
        return Layout(name=name, reader=name)
    raise ConfigError(f"no adapter '{name}'; {suggest(name, [*shipped(), *NAMES])}; or give a YAML file of your own")


def read(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield the clips of a dataset under `root`; rows that do not fit are counted.

    Raises:
        DataError: The folder or a table is not there, or a column is missing.
    """
    from ossicle import registry

    if not root.exists():
        raise DataError(
            f"{root}: no such file or folder; expected the dataset '{layout.name}' as its owner publishes it"
        )
    reader = read_table if layout.reader == "table" else registry.lookup("data.adapters", layout.reader)
    for clip in reader(root, layout, tally):
        tally.given += 1
        yield clip


def read_table(root: Path, layout: Layout, tally: Tally) -> Iterator[Clip]:
    """Yield the clips that tables, or names of files, describe."""
    lookups = _lookups(root, layout)
    places = _Places(root, layout)
    for row in _rows(root, layout, tally):
        if any(str(row.get(column)) != value for column, value in layout.keep.items()):
            continue
        tally.taken += 1
        path = places.find(row)
        if path is None:
            tally.skip("no recording", _fill(layout.audio, row, layout))
            continue
        yield make_clip(root, layout, row, path, lookups)


def make_clip(
    root: Path, layout: Layout, row: dict[str, str], path: Path, lookups: dict[str, dict[str, str]] | None = None
) -> Clip:
    """Return the clip of one row of a layout."""
    values: dict[str, Any] = {"path": str(path), "language": layout.language, "attribution": layout.attribution}
    if layout.licence:
        values["licence"] = layout.licence
    captions = []
    for field, spec in layout.columns.items():
        value = _value(spec if isinstance(spec, Column) else Column(**{"from": spec}), row, layout, lookups or {})
        if value in (None, "", []):
            continue
        if CAPTIONS.match(field):
            captions += value if isinstance(value, list) else [value]
        else:
            values[field] = float(value) if field.endswith("_s") and not isinstance(value, list) else value
    if captions:
        values["captions"] = captions
    if "end_s" in values:
        values["duration_s"] = round(values.pop("end_s") - values.get("start_s", 0.0), 6)
        values["is_span"] = True
    return clip_of(values, root, source=layout.name)


class _Places:
    """Where recordings lie: looked up once per folder when the pattern has a `*`."""

    def __init__(self, root: Path, layout: Layout) -> None:
        self.root, self.layout = root, layout
        self.names = cache(self._names)

    def find(self, row: dict[str, str]) -> Path | None:
        if not self.layout.audio:
            return self.root / row["path"]
        path = self.root / _fill(self.layout.audio, row, self.layout)
        if path.suffix == ".*":
            return self.names(path.parent).get(path.stem)
        return path if path.name in self.names(path.parent, whole=True) else None

    def _names(self, folder: Path, whole: bool = False) -> dict[str, Path]:
        if not folder.is_dir():
            return {}
        return {path.name if whole else path.stem: path for path in sorted(folder.iterdir()) if path.is_file()}


def _rows(root: Path, layout: Layout, tally: Tally) -> Iterator[dict[str, str]]:
    if not layout.tables:
        yield from _named_files(root, layout, tally)
        return
    first, *others = layout.tables
    joined = [(table, {row[table.key]: row for row in table_rows(root, table)}) for table in others if table.to]
    for row in table_rows(root, first):
        for table, rows in joined:
            none = dict.fromkeys(next(iter(rows.values()), {}), "")  # a row without a partner has its columns, empty
            row = {**none, **rows.get(row.get(table.to, ""), {}), **row}
        yield row


def _named_files(root: Path, layout: Layout, tally: Tally) -> Iterator[dict[str, str]]:
    from ossicle.audio.io import is_audio_path

    for path in sorted(root.glob(layout.files)):
        if not is_audio_path(path.name):
            continue
        name = path.relative_to(root).as_posix()
        match = re.search(layout.pattern, name)
        if match is None:
            tally.taken += 1
            tally.skip("name does not fit the layout", name)
            continue
        yield {**{key: value or "" for key, value in match.groupdict().items()}, "path": name, "stem": path.stem}


def table_rows(root: Path, table: Table) -> Iterator[dict[str, str]]:
    """Yield the rows of the files of a table: CSV, TSV, JSON lines or a JSON list.

    Raises:
        DataError: No such file.
    """
    paths = sorted(root.glob(table.file)) if root.is_dir() else [root]
    if not paths:
        raise DataError(f"{root}: no '{table.file}'; expected the dataset as its owner publishes it")
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".jsonl":
            found: Any = (json.loads(line) for line in text.split("\n") if line.strip())
        elif path.suffix == ".json":
            found = json.loads(text)
            found = found if isinstance(found, list) else next(iter(v for v in found.values() if isinstance(v, list)))
        else:
            lines = [
                line for line in text.splitlines() if line and not (table.comment and line.startswith(table.comment))
            ]
            blank = len(table.delimiter) > 0 and table.delimiter != "\t"
            found = csv.DictReader(
                lines, table.header or None, delimiter=table.delimiter, skipinitialspace=blank, strict=False
            )
        for row in found:
            plain = {str(key).strip().lstrip("\ufeff"): value for key, value in row.items() if key is not None}
            yield {key: v.strip() if isinstance(v, str) else v for key, v in plain.items()} | {"table": path.stem}


def _lookups(root: Path, layout: Layout) -> dict[str, dict[str, str]]:
    """Return `file:column` → key → value for the columns that are looked up."""
    wanted = {spec.lookup for spec in layout.columns.values() if isinstance(spec, Column) and spec.lookup}
    found = {}
    for lookup in wanted:
        file, _, column = lookup.rpartition(":")
        table = next((table for table in layout.tables if table.file == file), None)
        if table is None:
            raise ConfigError(f"{layout.name}: lookup '{lookup}' names no table of the layout")
        found[lookup] = {row[table.key]: row[column] for row in table_rows(root, table)}
    return found


def _fill(template: str, row: dict[str, str], layout: Layout) -> str:
    try:
        return template.format_map({key: value for key, value in row.items()}) if "{" in template else template
    except KeyError as error:
        raise DataError(
            f"{layout.name}: no column {error}; found: {', '.join(sorted(map(str, row)))}; "
            "another version of the set? Give a layout of your own: --adapter MINE.yaml"
        ) from None


def _value(column: Column, row: dict[str, str], layout: Layout, lookups: dict[str, dict[str, str]]) -> Any:
    text = _fill(column.template, row, layout).strip()
    parts = [part.strip() for part in text.split(column.split)] if column.split else [text]
    if column.lookup:
        parts = [lookups[column.lookup].get(part, part) for part in parts]
    if column.map:
        parts = [column.map[part] for part in parts if part in column.map]
    for old, new in column.replace.items():
        parts = [part.replace(old, new) for part in parts]
    kept = [part for part in parts if part]
    return kept if column.split else (kept[0] if kept else None)
