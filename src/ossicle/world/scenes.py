"""Scenes: items on a timeline, with the exact truth about them.

    0 s ├──gap──┤ item 1 ├──gap──┤ item 2 ├──gap──┤ duration          waveform = Σ level · (item ∗ room) + background

Truth by construction: an event starts and ends where its dry sound was placed; its level is the RMS in dB of full scale
over that span, room included, background and other events not; the background lies `snr_db` under the events. Events
never run past the end: what does not fit is refused.

Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from operator import add

import numpy as np

from ossicle.errors import DataError
from ossicle.types import SAMPLE_RATE_HZ, Waveform
from ossicle.world.items import Item, find, sound
from ossicle.world.sounds import SOURCES
from ossicle.world.sounds.shape import convolve
from ossicle.world.truth import Event, Room, Scene, level_db

CEILING = 0.99

__all__ = ["Event", "Room", "Scene", "compose", "level_db", "random_scene"]


def compose(
    rng: np.random.Generator,
    items: Sequence[Item],
    duration_s: float | None = None,
    gain_db: tuple[float, float] = (-26.0, -18.0),
    gap_s: tuple[float, float] = (0.15, 0.6),
    background: Item | str | None = None,
    snr_db: float = 12.0,
    room: Room | None = None,
) -> Scene:
    """Return the items one after the other on a timeline.

    Args:
        rng: Draws levels, gaps, and the parameters of a background given by name.
        items: In the order they are to be heard.
        duration_s: Length of the scene. When given, what is left over is spread over the gaps at random; when not,
            gaps are drawn from `gap_s` and the scene is as long as it needs to be.
        gain_db: Range of an event's level, RMS in dB of full scale.
        gap_s: Shortest and longest silence around events; a negative shortest one lets events overlap.
        background: A sound behind everything: an item, or the name of a parametric source.
        snr_db: Level of the events over the background.
        room: Reverberation of the events.

    Raises:
        DataError: The events do not fit, or there is neither an item nor a duration.
    """
    starts, total = _timeline(rng, [len(item.samples) for item in items], duration_s, gap_s)
    dry_response = None if room is None else room.response()
    mix = np.zeros(total)
    events = []
    for item, start in zip(items, starts, strict=True):
        stem = np.zeros(total - start)
        stem[: len(item.samples)] = item.samples
        heard = stem if dry_response is None else convolve(stem, dry_response)
        wanted = float(rng.uniform(*gain_db))
        mix[start:] += heard * 10.0 ** ((wanted - level_db(heard[: len(item.samples)])) / 20.0)
        events.append(_event(item, start, wanted))
    behind, background_event = _behind(rng, background, mix, events, snr_db, gain_db)
    mix += behind
    mix, turned_db = _ceiling(mix)
    return Scene(
        waveform=Waveform(samples=mix.astype(np.float32), name="<scene>"),
        events=tuple(sorted((_turn(e, turned_db) for e in events), key=lambda event: event.start_s)),
        background=_turn(background_event, turned_db) if background_event else None,
        snr_db=snr_db if background_event and events else None,
        room=room,
    )


def _timeline(
    rng: np.random.Generator, lengths: list[int], duration_s: float | None, gap_s: tuple[float, float]
) -> tuple[list[int], int]:
    """Return where each event starts, and the length of the scene, in samples."""
    shortest, longest = (round(gap * SAMPLE_RATE_HZ) for gap in gap_s)
    if shortest > longest:
        raise DataError(f"scene: gap_s is {gap_s}, expected the shortest gap first")
    between = [max(shortest, -min(pair) // 2) for pair in pairwise(lengths)]
    if duration_s is None:
        if not lengths:
            raise DataError("scene: neither items nor a duration; give one of them")
        drawn = [int(gap) for gap in rng.integers(shortest, longest + 1, len(lengths) + 1)]
        gaps = [max(0, drawn[0]), *map(max, drawn[1:-1], between), max(0, drawn[-1])]
    else:
        left = round(duration_s * SAMPLE_RATE_HZ) - sum(lengths) - sum(between)
        if left < 0 or duration_s <= 0:
            need_s = (sum(lengths) + sum(between)) / SAMPLE_RATE_HZ
            raise DataError(
                f"scene: {len(lengths)} events need {need_s:.2f} s with gaps, but duration_s is {duration_s}; "
                "use fewer or shorter events, shorter gaps, or a longer scene"
            )
        spread = [int(share * left) for share in rng.dirichlet(np.ones(len(lengths) + 1))]
        gaps = [spread[0], *map(add, spread[1:], [*between, 0])]
    ends = np.cumsum(np.add(gaps[:-1], lengths)) if lengths else np.zeros(0, dtype=int)
    total = int(ends[-1]) + gaps[-1] if duration_s is None else round(duration_s * SAMPLE_RATE_HZ)
    return [int(end) - length for end, length in zip(ends, lengths, strict=True)], total


def _event(item: Item, start: int, wanted_db: float) -> Event:
    return Event(
        kind=item.kind,
        label=item.label,
        spoken=item.spoken,
        start_s=start / SAMPLE_RATE_HZ,
        end_s=(start + len(item.samples)) / SAMPLE_RATE_HZ,
        level_db=wanted_db,
        source=item.source,
        f0_hz=item.f0_hz,
        text=item.text,
        gender=item.gender,
        count=item.count,
        parameters=dict(item.parameters),
    )


def _behind(
    rng: np.random.Generator,
    background: Item | str | None,
    mix: np.ndarray,
    events: list[Event],
    snr_db: float,
    gain_db: tuple[float, float],
) -> tuple[np.ndarray, Event | None]:
    """Return (S,) the background at its level, and the truth about it."""
    if background is None:
        return np.zeros(len(mix)), None
    if isinstance(background, str):
        item = sound(background, rng, len(mix) / SAMPLE_RATE_HZ)
        item = replace(item, samples=find(background).render(item.parameters, len(mix) / SAMPLE_RATE_HZ))
    else:
        item = background
    repeated = np.resize(item.samples, len(mix)).astype(np.float64)
    item = replace(item, samples=repeated)
    active = np.zeros(len(mix), dtype=bool)
    for event in events:
        active[round(event.start_s * SAMPLE_RATE_HZ) : round(event.end_s * SAMPLE_RATE_HZ)] = True
    wanted = level_db(mix[active]) - snr_db if events else float(np.mean(gain_db))
    return repeated * 10.0 ** ((wanted - level_db(repeated)) / 20.0), _event(item, 0, wanted)


def _ceiling(mix: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the mix turned down so that nothing clips, and by how many dB."""
    peak = float(np.abs(mix).max()) if len(mix) else 0.0
    if peak <= CEILING:
        return mix, 0.0
    return mix * (CEILING / peak), float(20.0 * np.log10(CEILING / peak))


def _turn(event: Event, by_db: float) -> Event:
    return replace(event, level_db=event.level_db + by_db)


def random_scene(
    rng: np.random.Generator,
    num_events: int | None = None,
    duration_s: float | None = None,
    labels: Sequence[str] = (),
    distinct: bool = True,
) -> Scene:
    """Return a scene of parametric sounds.

    Args:
        rng: Draws everything; the same generator state gives the same scene.
        num_events: How many events; 1 to 4 when not given.
        duration_s: Length of the scene; as long as needed when not given. Events are shortened to fit.
        labels: Sources to draw from; all when empty.
        distinct: No source twice.

    Raises:
        DataError: Unknown source, or more distinct events than sources.
    """
    pool = list(labels) or list(SOURCES)
    num = int(rng.integers(1, 5)) if num_events is None else num_events
    if distinct and num > len(pool):
        raise DataError(f"scene: {num} distinct events from {len(pool)} sources; expected at most as many as sources")
    names = [str(name) for name in rng.choice(pool, num, replace=not distinct)]
    longest_s = float("inf") if duration_s is None else (0.95 * duration_s - 0.15 * num) / max(num, 1)
    items = [sound(name, rng, min(find(name).draw_length_s(rng), longest_s)) for name in names]
    room = None
    if rng.random() < 0.3:
        seed = int(rng.integers(2**31))
        room = Room(sixty_s=float(rng.uniform(0.2, 0.8)), direct_db=float(rng.uniform(3, 12)), seed=seed)
    steady = [name for name in ("pink noise", "brown noise", "white noise") if name not in names]
    behind = str(rng.choice(steady)) if steady and rng.random() < 0.3 else None
    return compose(rng, items, duration_s, background=behind, snr_db=float(rng.uniform(10, 25)), room=room)
