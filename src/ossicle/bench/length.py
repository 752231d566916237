"""Curves over audio length: one question about 10 s to an hour, audio attended (LAL) or prepended (PLITS).

    slope = least squares of log(seconds or bytes) over log(length), between 5 and 60 minutes          1 = linear

Each length is a fresh process, because a peak cannot be taken back. A variant stops at the first length that fails or
takes longer than a limit; that is its last row. Connector output is given, as in `bench.integrations`. Source: our
choice.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from ossicle.bench import measure
from ossicle.bench.integrations import Setting, Variant

LENGTHS_S = (10, 60, 300, 600, 1200, 2400, 3600)
VARIANTS = ("lal", "plits-mlp")
TOKENS_PER_S = 12.5
GOAL = 1.05
FROM_S = 300
PEAKS = ("prefill_s", "peak_bytes")


def one(name: str, fields: dict[str, Any], rounds: int) -> dict[str, float]:
    """Return one variant's prefill time and peak at one length, in this process."""
    variant = Variant(name, Setting(**fields))
    peak = measure.Peak(variant.device)
    spent = [measure.seconds(variant.infer_step, variant.device) for _ in range(rounds)]
    return {"prefill_s": min(spent), "peak_bytes": peak.bytes()}


def run(
    setting: Setting, lengths_s: Sequence[int] = LENGTHS_S, *, rounds: int = 2, limit_s: float = 60.0
) -> dict[str, Any]:
    """Return a curve for each variant, and the slopes over what it reached.

    Args:
        setting: Shape, device, dtype, threads; its batch is 1, its audio is set by the lengths.
        lengths_s: Seconds of audio, rising.
        rounds: Prefills of each length; the fastest counts.
        limit_s: Longest a process may run; a variant that runs longer has failed there.
    """
    curves: dict[str, list[dict[str, Any]]] = {}
    for name in VARIANTS:
        curves[name] = []
        for seconds in lengths_s:
            fields = asdict(replace(setting, audio_tokens=round(seconds * TOKENS_PER_S), batch=1))
            row = {"seconds": seconds, **_measured((name, fields, rounds), limit_s)}
            curves[name].append(row)
            if "failed" in row:
                break
    slopes = {name: {what: _slope(rows, what) for what in PEAKS} for name, rows in curves.items()}
    return {"curves": curves, "slopes": slopes, "goal": GOAL, "tokens_per_s": TOKENS_PER_S, "setting": asdict(setting)}


def _measured(words: tuple[str, dict[str, Any], int], limit_s: float) -> dict[str, Any]:
    """Return what `one` finds in a process forked from this one, which has imported everything and computed nothing."""
    forks = multiprocessing.get_context("fork")
    ours, theirs = forks.Pipe(duplex=False)
    process = forks.Process(target=_tell, args=(theirs, words))
    process.start()
    theirs.close()
    try:
        if not ours.poll(limit_s):
            return {"failed": f"longer than {limit_s:g} s"}
        found: dict[str, Any] = ours.recv()
        return found
    except EOFError:
        process.join()
        return {"failed": f"ended with {process.exitcode}"}
    finally:
        process.kill()
        process.join()


def _tell(pipe: Any, words: tuple[str, dict[str, Any], int]) -> None:
    try:
        pipe.send(one(*words))
    except (RuntimeError, MemoryError) as error:
        pipe.send({"failed": str(error).splitlines()[0][:200]})


def _slope(rows: list[dict[str, Any]], what: str) -> float | None:
    """Return the log-log slope from five minutes on; None where fewer than two lengths were reached."""
    reached = [
        (row["seconds"], row[what]) for row in rows if what in row and row["seconds"] >= FROM_S and row[what] > 0
    ]
    if len(reached) < 2:
        return None
    x, y = (np.log(column) for column in zip(*reached, strict=True))
    return float(np.polyfit(x, y, 1)[0])
