"""An hour in one request: one event in an hour of noise, and whether the model finds it.

    0 min ├──────────── noise ────────────┤ event, 2–4 s ├───────── noise ─────────┤ 60 min

Asked of the whole recording at once: what is heard, whether the sound is there, whether another is, which is not. The
heaviest stretch of attention (a sixtieth of the recording) should hold the event; chance is one in sixty, a little more
where the event lies across two. The peak of memory is told beside it, for it should grow with the length and no faster.
Source: our choice; finding what was planted is "needle in a haystack" (Kamradt, 2023), for sound.
"""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from ossicle.errors import UnsupportedError
from ossicle.evaluation.metrics import wilson
from ossicle.evaluation.pointing import HEAR, NOISES, STEADY, Point
from ossicle.inference.attention import attention
from ossicle.inference.engine import Engine
from ossicle.types import SAMPLE_RATE_HZ, Waveform

EVENT_S = (2.0, 4.0)
NOISE_DB, EVENT_DB = -38.0, -20.0
TILE_S = 60.0
YES = re.compile(r"\byes\b", re.IGNORECASE)
"""A judgement, also where what is heard is named first."""


def planted(minutes: float, seed: int, index: int = 0) -> Point:
    """Return a long recording with one event."""
    from ossicle.world.items import find, sound
    from ossicle.world.sounds import SOURCES
    from ossicle.world.truth import level_db

    rng = np.random.default_rng([seed, index, 3600])
    name, other = (str(x) for x in rng.choice([name for name in SOURCES if name not in STEADY], 2, replace=False))
    noise = sound(str(rng.choice(NOISES)), rng, TILE_S).samples.astype(np.float32)
    item = sound(name, rng, float(np.clip(find(name).draw_length_s(rng), *EVENT_S)))
    total = round(minutes * 60 * SAMPLE_RATE_HZ)
    samples = np.resize(noise * np.float32(10 ** ((NOISE_DB - level_db(noise)) / 20)), total)
    start = int(rng.integers(0, total - len(item.samples)))
    loud = item.samples * np.float32(10 ** ((EVENT_DB - level_db(item.samples)) / 20))
    samples[start : start + len(loud)] += loud
    return Point(
        wave=Waveform(samples=np.clip(samples, -1, 1), name="<planted>"),
        start_s=start / SAMPLE_RATE_HZ,
        end_s=(start + len(loud)) / SAMPLE_RATE_HZ,
        label=item.spoken,
        absent=find(other).spoken,
    )


def play(engine: Engine, point: Point) -> dict[str, Any]:
    """Return what a model says of one long recording, and whether it looks where the event is."""
    began = time.perf_counter()
    questions = (HEAR, f"Is there {point.label}?", f"Is there {point.absent}?")
    heard, present, absent = (
        answer.text for answer in engine.answer([(point.wave, question) for question in questions], max_new_tokens=32)
    )
    row: dict[str, Any] = {
        "label": point.label,
        "event_s": [point.start_s, point.end_s],
        "hear": heard,
        "present": present,
        "absent": absent,
        "named": point.label.split(" ", 1)[-1].lower() in heard.lower(),
        "said_yes": YES.search(present) is not None,
        "said_yes_absent": YES.search(absent) is not None,
        "seconds": time.perf_counter() - began,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    try:
        rows = attention(engine, point.wave, questions[1], present)["seconds"]
    except UnsupportedError:
        return row
    heaviest = max(rows, key=lambda second: second["weight"])
    return {**row, "looked_there": heaviest["start_s"] < point.end_s and heaviest["end_s"] > point.start_s}


def run(
    engine: Engine,
    *,
    n: int = 10,
    minutes: float = 60.0,
    seed: int = 0,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Play `n` long recordings.

    Args:
        engine: The model.
        n: How many.
        minutes: How long each is.
        seed: Of everything.
        tell: Takes progress.

    Returns:
        Shares with 95 % Wilson intervals of `named`, `said_yes`, `said_yes_absent`, `looked_there`; and the `rows`.
    """
    rows = []
    for index in range(n):
        rows.append(play(engine, planted(minutes, seed, index)))
        tell(f"recording {index + 1}/{n}: {rows[-1]['label']}: {rows[-1]['present']}")
    out: dict[str, Any] = {"suite": "hour", "model": engine.name, "seed": seed, "minutes": minutes, "n": n}
    for kind in ("named", "said_yes", "said_yes_absent", "looked_there"):
        hits = [row[kind] for row in rows if kind in row]
        if hits:
            out[kind] = {"value": float(np.mean(hits)), "ci95": list(wilson(sum(hits), len(hits)))}
    return {**out, "rows": rows}


def page(result: dict[str, Any]) -> str:
    """Return the result as lines."""
    lines = [f"{result['n']} recordings of {result['minutes']:g} minutes, one event in each:"]
    for kind in ("named", "said_yes", "said_yes_absent", "looked_there"):
        if kind in result:
            low, high = result[kind]["ci95"]
            lines.append(f"  {kind}: {result[kind]['value']:.2f} ({low:.2f}–{high:.2f})")
    return "\n".join(lines)
