"""A dataset into a file of clips, and a file of clips into one with facts: each written whole.

    ROOT ──adapter──► clips.jsonl ──describe──► described.jsonl + described.levels.json      (work: described.work/)

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from ossicle.data.adapters.generic import guess
from ossicle.data.adapters.table import Layout, find, read
from ossicle.data.clip import CLIP_NAME, Clip
from ossicle.data.describe import describe
from ossicle.data.hear import Hearer
from ossicle.data.rows import Tally, read_clips, row_of, write_rows
from ossicle.data.set_levels import DEFAULT, LevelsConfig, SetLevels, fit_levels, write_levels
from ossicle.data.store import Store
from ossicle.errors import DataError


def import_clips(
    root: Path, out: Path, *, adapter: str = "auto", source: str = "", licence: str = ""
) -> tuple[Layout, Tally]:
    """Write the clips of a dataset; nothing is written when there is none.

    Args:
        root: The dataset as its owner publishes it.
        out: File of clips.
        adapter: Name of a layout, a YAML file, or `auto` for class folders, tables, manifests and shards.
        source: Name of the set.
        licence: Where the set says nothing.

    Returns:
        The layout that was used, and the counts.

    Raises:
        DataError: Nothing there, columns missing, or no clip at all.
    """
    layout = find(guess(root) if adapter == "auto" else adapter)
    tally = Tally()
    write_rows(out, _checked(_rows(root, layout, tally, source, licence), root, tally))
    return layout, tally


def _rows(root: Path, layout: Layout, tally: Tally, source: str, licence: str) -> Iterator[dict[str, Any]]:
    seen: dict[str, int] = {}
    for clip in read(root.resolve(), layout, tally):
        named = replace(clip, source=source or clip.source, licence=clip.licence or licence or None)
        number = seen[named.key] = seen.get(named.key, 0) + 1
        if number > 1:  # two folders may hold files of one name: keys must differ
            named = replace(named, extra={**named.extra, CLIP_NAME: _place(named.path, root)})
        yield row_of(replace(named, path=named.path.resolve()))


def _place(path: Path, root: Path) -> str:
    """Return where a file lies under the root, without its suffix."""
    whole = path.resolve().with_suffix("")
    return (whole.relative_to(root.resolve()) if whole.is_relative_to(root.resolve()) else whole).as_posix()


def _checked(rows: Iterator[dict[str, Any]], root: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    yield from rows
    if not tally.given:
        lost = f": {tally.text()}" if tally.taken else ""
        raise DataError(f"{root}: no clip found{lost}; see `ossicle list datasets` for the layouts that are known")


def describe_file(
    clips: Path,
    out: Path,
    *,
    jobs: int = 1,
    engine: str = "local",
    hear: Hearer | None = None,
    levels: LevelsConfig = DEFAULT,
    progress: Callable[[int], None] | None = None,
) -> tuple[Tally, SetLevels, float]:
    """Write clips with their facts and the set's levels beside them; a stopped run goes on where it was.

    Args:
        clips: File of clips.
        out: File with their facts.
        jobs: Processes, 0 = one per core.
        engine: `local` or `ray`.
        hear: Models that give words and labels where the owner gives none.
        levels: Which facts get words, and where they are cut.
        progress: Told how many clips are done.

    Returns:
        Counts, the set's levels, seconds of audio.
    """
    tally = Tally()
    kept: list[Clip] = []
    with Store(out.with_suffix(".work")) as store:
        found = describe(
            read_clips(clips),
            tally,
            store=store,
            jobs=jobs,
            how=engine,
            hear=hear,
            progress=progress,
        )
        write_rows(out, _kept(found, kept, clips, tally))
    fitted = fit_levels(kept, levels)
    write_levels(out, fitted, len(kept))
    return tally, fitted, sum(clip.facts["duration_s"] for clip in kept)


def _kept(found: Iterator[Clip], kept: list[Clip], clips: Path, tally: Tally) -> Iterator[dict[str, Any]]:
    """Yield the rows of clips and keep these; that there is none is found while nothing has been written yet."""
    for clip in found:
        kept.append(clip)
        yield row_of(clip)
    if not kept:
        raise DataError(f"{clips}: no clip can be measured: {tally.text()}")
