"""The same function over many items: in this process, on several, or on a Ray cluster. Results come in order.

    items ──batches──► function(batch) -> rows ──► rows, batch after batch

`ray` numbers batches, runs them on Ray Data, and sorts by number: the same rows whichever engine made them.
Source: our choice.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from typing import Any, TypeVar

from ossicle.errors import ConfigError, require

Item = TypeVar("Item")
Row = TypeVar("Row")
ENGINES = ("local", "ray")
BATCHES_AHEAD = 4
"""Batches that wait for each worker, so that a stream of millions is never held whole."""
BATCHES_ON_RAY = 4096
"""Batches that are one Ray dataset, for the same reason."""


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Yield the items in lists of `size`, the last one shorter."""
    stream = iter(items)
    while batch := list(islice(stream, size)):
        yield batch


def run(
    function: Callable[[list[Item]], Sequence[Row]],
    items: Iterable[Item],
    *,
    size: int = 64,
    jobs: int = 1,
    engine: str = "local",
) -> Iterator[Row]:
    """Yield the rows that a function makes of batches of items, in the order of the items.

    Args:
        function: Of a batch; importable, so that other processes can call it.
        items: Anything that can be pickled.
        size: Items in a batch.
        jobs: Processes; 0 = one per core. Ray takes what its cluster has.
        engine: `local` or `ray`.

    Raises:
        ConfigError: No such engine.
        MissingExtraError: Ray is wanted and not installed.
    """
    if engine not in ENGINES:
        raise ConfigError(f"engine '{engine}' is none of {', '.join(ENGINES)}")
    jobs = jobs or os.cpu_count() or 1
    if engine == "ray":
        yield from _on_ray(function, batches(items, size))
    elif jobs == 1:
        for batch in batches(items, size):
            yield from function(batch)
    else:
        yield from _on_processes(function, batches(items, size), jobs)


def _on_processes(function: Callable[[Any], Sequence[Row]], work: Iterator[Any], jobs: int) -> Iterator[Row]:
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        waiting = [pool.submit(function, batch) for batch in islice(work, jobs * BATCHES_AHEAD)]
        while waiting:
            yield from waiting.pop(0).result()
            waiting += [pool.submit(function, batch) for batch in islice(work, 1)]


def _on_ray(function: Callable[[Any], Sequence[Row]], work: Iterator[Any]) -> Iterator[Row]:
    ray_data = require("ray.data", "ray")
    numbered = ({"number": number, "batch": pickle.dumps(batch)} for number, batch in enumerate(work))
    for window in batches(numbered, BATCHES_ON_RAY):
        done = ray_data.from_items(window).map(partial(_packed, function=function)).take_all()
        for row in sorted(done, key=lambda row: row["number"]):
            yield from pickle.loads(row["rows"])


def _packed(row: dict[str, Any], *, function: Callable[[Any], Sequence[Any]]) -> dict[str, Any]:
    """Return a batch's rows as bytes, which Ray's tables hold whatever the rows are."""
    return {"number": row["number"], "rows": pickle.dumps(list(function(pickle.loads(row["batch"]))))}
