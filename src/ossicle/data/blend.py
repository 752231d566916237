"""Files of questions in proportion, written as one file: weights, caps, upsampling, and a state to go on from.

    a.jsonl × 10, b.jsonl weight 1 ──Mix (seed)──► rows 0 … N−1 ──► OUT;  OUT.state.json: next position, seed, hashes

The stream is the one that training draws from the same entries and seed (`data.mix`). A mix of whole files leaves a
file's places out once it has given its rows, so that each row comes exactly `times` times. Source: our choice.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ossicle.config import Section
from ossicle.data.mix import BLOCK, Mix, MixEntry
from ossicle.data.rows import write_rows, writing
from ossicle.data.sample import Sample
from ossicle.data.source import Source, SourceConfig, SourceContext
from ossicle.errors import ConfigError, DataError


class BlendEntry(Section):
    """One file of a mix.

    Attributes:
        path: File of rows.
        weight: Its share, relative to the others'; None for all = in proportion to sizes and `times`.
        times: How often its rows come, where no weights are given.
        max_samples: Use only so many of its rows.
    """

    path: str
    weight: float | None = None
    times: float = 1.0
    max_samples: int | None = None


class Rows(Source):
    """A file of rows; only where they begin is kept in memory."""

    def __init__(self, path: Path) -> None:
        super().__init__(SourceConfig(kind="rows"), SourceContext())
        self.path, self.starts = path, array("q")
        if not path.is_file():
            raise DataError(f"mix: {path}: no such file of questions")
        digest = hashlib.blake2b(digest_size=12)
        offset = 0
        with path.open("rb") as file:
            for line in file:
                digest.update(line)
                if line.strip():
                    self.starts.append(offset)
                offset += len(line)
        self.digest = digest.hexdigest()

    def __len__(self) -> int:
        """Return how many rows there are."""
        return len(self.starts)

    def row(self, index: int) -> dict[str, Any]:
        """Return one row."""
        with self.path.open("rb") as file:
            file.seek(self.starts[index])
            return json.loads(file.readline())  # type: ignore[no-any-return]

    def sample(self, index: int) -> Sample:
        """Return one row as a sample."""
        from ossicle.data.readers import read_row

        messages, audios = read_row(self.row(index))
        return Sample(messages=tuple(messages), audios=tuple(audios), id=f"{self.path.name}:{index + 1}")


def entry_named(spec: str, max_samples: int | None = None) -> BlendEntry:
    """Return the entry of `FILE`, `FILE*TIMES` or `FILE=WEIGHT`.

    Raises:
        ConfigError: No number where one is expected.

    Example:
        >>> entry_named("a.jsonl*10").times
        10.0
    """
    for sign, key in (("=", "weight"), ("*", "times")):
        path, found, number = spec.rpartition(sign)
        if found:
            try:
                return BlendEntry(path=path, max_samples=max_samples, **{key: float(number)})  # type: ignore[arg-type]
            except ValueError:
                raise ConfigError(f"mix '{spec}': '{number}' is no number; expected FILE{sign}NUMBER") from None
    return BlendEntry(path=spec, max_samples=max_samples)


def blend(
    entries: Sequence[BlendEntry],
    out: Path,
    *,
    seed: int = 0,
    total: int | None = None,
    counts: Sequence[int] | None = None,
    go_on: bool = False,
) -> dict[str, Any]:
    """Write a mix and its state.

    Args:
        entries: What is mixed.
        out: File to write.
        seed: Decides the order.
        total: Rows to write, drawn by chance in the entries' proportions; None = what `counts` says.
        counts: Rows to take of each file, exactly; None = as many as it holds, times its `times`.
        go_on: Begin where the state beside `out` ends; the rows before are replaced.

    Returns:
        Rows taken of each file, and the next position.

    Raises:
        ConfigError: Weights do not fit, or a state of other files or of another seed.
        DataError: A file is not there.
    """
    sources = {f"{number} {entry.path}": Rows(Path(entry.path)) for number, entry in enumerate(entries)}
    sizes = {
        name: min(len(rows), entry.max_samples or len(rows))
        for (name, rows), entry in zip(sources.items(), entries, strict=True)
    }
    weighted = any(entry.weight is not None for entry in entries)
    mixed = Mix(
        sources,
        [
            MixEntry(
                source=name,
                weight=entry.weight if weighted else sizes[name] * entry.times,
                max_samples=entry.max_samples,
            )
            for name, entry in zip(sources, entries, strict=True)
        ],
        seed=seed,
    )
    if total is None:
        wholes = [round(sizes[name] * entry.times) for name, entry in zip(sources, entries, strict=True)]
        counts = counts or ([round(sum(wholes) * quota / BLOCK) for quota in mixed.quotas] if weighted else wholes)
    place = out.with_suffix(".state.json")
    identity = {"seed": seed, "files": [rows.digest for rows in sources.values()], "weights": mixed.quotas}
    start = _start(place, identity) if go_on else 0
    taken = dict.fromkeys(sources, 0)
    places = _Places(mixed, start, total, counts)
    write_rows(out, _drawn(list(sources.items()), places, taken))
    state = {**identity, "next": places.next}
    with writing(place) as file:
        json.dump(state, file, indent=1)
    by_path: Counter[str] = Counter()  # a file may be given twice
    for name, number in taken.items():
        by_path[name.partition(" ")[2]] += number
    return {"taken": dict(by_path), "next": places.next}


class _Places:
    """Which rows a mix takes: so many of the stream's, or its first ones until every source has given its count."""

    def __init__(self, mixed: Mix, start: int, total: int | None, counts: Sequence[int] | None) -> None:
        self.mixed, self.next = mixed, start
        self.end = None if total is None else start + total
        self.left = [count if quota else 0 for count, quota in zip(counts or (), mixed.quotas, strict=False)]

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while self.next < self.end if self.end is not None else any(self.left):
            which, index = self.mixed.place(self.next)
            self.next += 1
            if self.end is None:
                if not self.left[which]:
                    continue
                self.left[which] -= 1
            yield which, index


def _drawn(sources: list[tuple[str, Rows]], places: _Places, taken: dict[str, int]) -> Iterator[dict[str, Any]]:
    for which, index in places:
        name, rows = sources[which]
        taken[name] += 1
        yield rows.row(index)


def _start(place: Path, identity: dict[str, Any]) -> int:
    if not place.is_file():
        return 0
    state = next(read_rows_whole(place))
    if any(state.get(key) != value for key, value in identity.items()):
        raise ConfigError(f"{place}: is the state of other files, weights or seed; remove it, or mix without --go-on")
    return int(state["next"])


def read_rows_whole(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the one object of a JSON file."""
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise DataError(f"{path}: is no JSON") from None
