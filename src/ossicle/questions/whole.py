"""Steps of the engine on files: a file of clips or questions in, a file out, written whole, with counts.

    described.jsonl ──closed──► questions.jsonl        described.jsonl ──open──► questions.jsonl + questions.units/
    questions.jsonl ──filter──► filtered.jsonl + filtered.rejected.jsonl

Source: our choice.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ossicle.data.imports import import_clips
from ossicle.data.rows import Tally, read_clips, read_rows, row_of, write_rows, writing
from ossicle.data.set_levels import read_levels, write_levels
from ossicle.data.store import Store
from ossicle.errors import DataError
from ossicle.questions.ask_model import Asking, ask_all, estimate, rows_of, units_of
from ossicle.questions.endpoint import EndpointConfig
from ossicle.questions.filter import FilterConfig, Filters, Held, apply, restore
from ossicle.questions.generate import Plan, generate, read_set
from ossicle.questions.joint import JointConfig, joint_subset

DEFAULT = Asking()


def closed_file(clips: Path, out: Path, plan: Plan, *, jobs: int = 1, engine: str = "local") -> Tally:
    """Write the closed questions about a file of clips."""
    found, corpus = read_set(clips)
    tally = Tally(taken=len(found))
    tally.given = write_rows(out, generate(found, corpus, plan, jobs=jobs, how=engine))
    return tally


def open_file(
    clips: Path,
    out: Path,
    config: EndpointConfig,
    *,
    asking: Asking = DEFAULT,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Write the open questions about a file of clips, or say what they would take.

    Finished units lie in `OUT.units`, so that a stopped run goes on; what is finished is in `out` after every run.

    Raises:
        UserError: Settings, key, model or disk do not allow it.
    """
    config.check()
    found, corpus = read_set(clips)
    units = list(units_of(found, corpus, config, name=asking.prompt, pairs=asking.pairs, paper=asking.paper))
    skipped = {"nothing to tell": len(found) - len(units)} if len(found) > len(units) else {}
    folder = out.with_suffix(".units")
    if dry_run:
        told = estimate(units, Store(folder, write=False) if folder.is_dir() else None, config)
        return {"in": len(found), "out": 0, "skipped": skipped, "estimate": told}
    config.key()
    with Store(folder) as store:
        outcome = ask_all(units, config, store, again=asking.again, progress=progress)
        rows = write_rows(out, rows_of(units, store, config, paper=asking.paper))
    facts = asdict(outcome) | {"rejected": dict(outcome.rejected)}
    return {"in": len(found), "out": rows, "skipped": {**skipped, **outcome.rejected}, **facts}


def filter_file(
    questions: Path, out: Path, rejected: Path, config: FilterConfig, *, eval_sets: Sequence[str] = ()
) -> Tally:
    """Write the questions that stay, and beside them those that go with their reasons.

    Args:
        questions: File of rows.
        out: Rows that stay.
        rejected: Rows that go.
        config: Which filters run.
        eval_sets: What must not be taught: files of clips, folders, or `layout:folder`.
    """
    held = Held()
    for place in eval_sets:
        for clip in _clips_at(place):
            held.add(clip)
    tally = Tally()
    filters = Filters(config, held)
    with writing(rejected) as gone:
        write_rows(out, apply(read_rows(questions), filters, tally, lambda row: _write(gone, row)))
    if not tally.taken:
        raise DataError(f"{questions}: holds no questions")
    return tally


def _clips_at(place: str) -> Iterable[Any]:
    """Yield the clips of a file, or of a dataset in a generic layout, or in the one named before a colon."""
    adapter, _, rest = place.partition(":")
    if not rest or Path(place).exists():
        adapter, rest = "auto", place
    path = Path(rest)
    if adapter == "auto" and path.suffix == ".jsonl":
        return list(read_clips(path))
    with tempfile.TemporaryDirectory() as folder:
        found = Path(folder) / "clips.jsonl"
        import_clips(path, found, adapter=adapter)
        return list(read_clips(found))


def _write(file: Any, row: dict[str, Any]) -> None:
    file.write(json.dumps(row, ensure_ascii=False) + "\n")


def restore_file(kept: Path, rejected: Path, out: Path) -> Tally:
    """Write the questions as they were before they were filtered."""
    tally = Tally()
    tally.given = write_rows(out, restore(kept, rejected))
    tally.taken = tally.given
    return tally


def subset_file(clips: Path, out: Path, config: JointConfig) -> Tally:
    """Write the clips that meet LTU-AS's three conditions for speech and sound together, with the levels of all."""
    tally = Tally()
    write_rows(out, map(row_of, joint_subset(read_clips(clips), tally, config)))
    if (levels := read_levels(clips)) is not None:
        write_levels(out, levels, tally.given)
    return tally


def explain(row: str, questions: Path, clips: Path | None = None) -> dict[str, Any]:
    """Return how a row was made.

    Args:
        row: Its id, or its line number from 1.
        questions: Where it stands.
        clips: The described clips it was made from; their facts are shown too.

    Raises:
        DataError: No such row.
    """
    for number, found in enumerate(read_rows(questions), 1):
        if found.get("id") == row or str(number) == row:
            asked = {turn["role"]: turn["content"] for turn in found["messages"]}
            result = {
                "id": found.get("id"),
                "line": number,
                "question": asked.get("user"),
                "answer": asked.get("assistant"),
            }
            more = ("task", "audios", "clip", "other", "source", "licence", "group", "recording", "made")
            result |= {key: found[key] for key in more if key in found}
            if clips is not None:
                wanted = found.get("clip")
                clip = next((clip for clip in read_clips(clips) if clip.key == wanted), None)
                result["facts"] = None if clip is None else row_of(clip)
            return result
    raise DataError(f"{questions}: no row '{row}'; expected an id or a line number")
