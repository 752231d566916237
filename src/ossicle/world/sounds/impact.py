"""Struck things: knocks, slam, footsteps, drums, clicks, clock, heartbeat, drops, bubbles.

    sound(t) = Σ_i grain(t − i / rate),   grain = Σ_m a_m e^(−t/τ_m) sin(2π f_m t) + noise burst

How many are heard is exact: a pulse is there only when it fits wholly.

Source: our choice; modal synthesis.
"""

from __future__ import annotations

import numpy as np

from ossicle.world.sounds.base import Canvas, Counter, Parameters, Range, Source
from ossicle.world.sounds.shape import colour, decay, fitting, full, gate, modes, phase, train, wave


def _counter(grain_s: float) -> Counter:
    def rule(p: Parameters, duration_s: float) -> int:
        return fitting(p["per_second"], grain_s, duration_s)

    return rule


def _size(c: Canvas, seconds: float) -> int:
    return min(c.samples, max(8, round(seconds * c.rate_hz)))


def _repeat(p: Parameters, c: Canvas, grain: np.ndarray, grain_s: float) -> np.ndarray:
    """Return (S,) the grain at its rate with slightly different strengths."""
    count = fitting(p["per_second"], grain_s, c.duration_s)
    strengths = c.rng.uniform(0.85, 1.0, count)
    strengths[0] = 1.0
    return train([grain * strength for strength in strengths], c.samples, c.rate_hz, p["per_second"])


def _knock(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.12)
    body = modes(
        size, c.rate_hz, p["body_hz"] * np.array([1.0, 1.7, 2.9]), np.array([1.0, 0.6, 0.3]), np.full(3, p["ring_s"])
    )
    click = c.noise(size) * decay(size, c.rate_hz, 0.008) * p["click"]
    return _repeat(p, c, body + click, 0.12)


def _slam(p: Parameters, c: Canvas) -> np.ndarray:
    thud = colour(c.noise(), c.rate_hz, -2.0, p["body_hz"] * 0.6, p["body_hz"] * 6) * decay(
        c.samples, c.rate_hz, p["ring_s"]
    )
    rattle = colour(c.noise(), c.rate_hz, 0.0, 1500.0) * decay(c.samples, c.rate_hz, 0.15 * p["ring_s"])
    return full(thud) + p["rattle"] * full(rattle)


def _steps(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.16)
    heel = modes(size, c.rate_hz, np.array([p["heel_hz"], 2.3 * p["heel_hz"]]), np.array([1.0, 0.4]), np.full(2, 0.08))
    scuff = colour(c.noise(size), c.rate_hz, -0.5, 800.0, 5000.0) * decay(size, c.rate_hz, 0.12)
    return _repeat(p, c, heel + p["scuff"] * full(scuff), 0.16)


def _kick(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.22)
    frequency = p["low_hz"] * (1.0 + p["drop"] * decay(size, c.rate_hz, 0.15))
    body = np.sin(2 * np.pi * phase(frequency, size, c.rate_hz)) * decay(size, c.rate_hz, p["ring_s"])
    return _repeat(p, c, body + 0.2 * c.noise(size) * decay(size, c.rate_hz, 0.01), 0.22)


def _snare(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.16)
    wires = colour(c.noise(size), c.rate_hz, 0.0, 1500.0) * decay(size, c.rate_hz, p["ring_s"])
    head = modes(size, c.rate_hz, np.array([p["head_hz"], 1.6 * p["head_hz"]]), np.array([1.0, 0.5]), np.full(2, 0.12))
    return _repeat(p, c, head + p["wires"] * full(wires), 0.16)


def _hat(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.08)
    metal = colour(c.noise(size), c.rate_hz, p["slope"], p["low_hz"]) * decay(size, c.rate_hz, p["ring_s"])
    return _repeat(p, c, metal, 0.08)


def _clicks(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.01)
    click = modes(size, c.rate_hz, np.array([p["body_hz"]]), np.ones(1), np.array([p["ring_s"]]))
    return _repeat(p, c, click, 0.01)


def _clock(p: Parameters, c: Canvas) -> np.ndarray:
    size, half = _size(c, 0.05), _size(c, 0.02)
    tick = modes(size, c.rate_hz, p["body_hz"] * np.array([1.0, 1.46]), np.array([1.0, 0.5]), np.full(2, p["ring_s"]))
    tick[half // 2 :] += p["echo"] * tick[: size - half // 2]
    return _repeat(p, c, tick, 0.05)


def _heart(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.42)
    beat = np.zeros(size)
    for start, pitch, strength in ((0.0, p["low_hz"], 1.0), (p["gap_s"], 1.25 * p["low_hz"], p["second"])):
        first = min(size, round(start * c.rate_hz))
        beat[first:] += strength * modes(size - first, c.rate_hz, np.array([pitch]), np.ones(1), np.array([0.14]))
    return _repeat(p, c, beat, 0.42)


def _drops(p: Parameters, c: Canvas) -> np.ndarray:
    size = _size(c, 0.1)
    frequency = p["drop_hz"] * (1.0 + p["rise"] * np.linspace(0.0, 1.0, size))
    return _repeat(p, c, wave(phase(frequency, size, c.rate_hz), np.ones(1)) * decay(size, c.rate_hz, 0.08), 0.1)


def _bubbles(p: Parameters, c: Canvas) -> np.ndarray:
    out = np.zeros(c.samples)
    starts = np.append(0, c.rng.integers(0, c.samples, c.rng.poisson(p["bubbles_per_s"] * c.duration_s)))
    for start in starts:
        size = min(c.samples - int(start), round(c.rng.uniform(0.03, 0.09) * c.rate_hz))
        pitch = p["low_hz"] * 2.0 ** (c.rng.uniform(0.0, p["octaves"])) * (1.0 + 0.5 * np.linspace(0, 1, size))
        out[start : start + size] += wave(phase(pitch, size, c.rate_hz), np.ones(1)) * gate(size, c.rate_hz, 0.01)
    return out


def _rate(low: float, high: float) -> Range:
    return Range(low=low, high=high, unit="1/s")


IMPACT = [
    Source(
        name="knocking",
        spoken="knocking",
        family="impact",
        synthesise=_knock,
        repeats=_counter(0.12),
        ranges={
            "per_second": _rate(2, 4.5),
            "body_hz": Range(low=150, high=450, unit="Hz", log=True),
            "ring_s": Range(low=0.05, high=0.12, unit="s"),
            "click": Range(low=0.1, high=0.5),
        },
    ),
    Source(
        name="door slam",
        spoken="a door slam",
        family="impact",
        synthesise=_slam,
        length_s=(0.5, 1.0),
        ranges={
            "body_hz": Range(low=70, high=160, unit="Hz", log=True),
            "ring_s": Range(low=0.25, high=0.6, unit="s"),
            "rattle": Range(low=0.1, high=0.5),
        },
    ),
    Source(
        name="footsteps",
        spoken="footsteps",
        family="impact",
        synthesise=_steps,
        repeats=_counter(0.16),
        length_s=(1.2, 3.0),
        ranges={
            "per_second": _rate(1.5, 2.8),
            "heel_hz": Range(low=90, high=220, unit="Hz", log=True),
            "scuff": Range(low=0.2, high=0.7),
        },
    ),
    Source(
        name="bass drum",
        spoken="a bass drum",
        family="impact",
        synthesise=_kick,
        repeats=_counter(0.22),
        ranges={
            "per_second": _rate(1.2, 3),
            "low_hz": Range(low=45, high=80, unit="Hz", log=True),
            "drop": Range(low=1, high=4),
            "ring_s": Range(low=0.15, high=0.3, unit="s"),
        },
    ),
    Source(
        name="snare drum",
        spoken="a snare drum",
        family="impact",
        synthesise=_snare,
        repeats=_counter(0.16),
        ranges={
            "per_second": _rate(1.5, 4),
            "head_hz": Range(low=160, high=260, unit="Hz", log=True),
            "ring_s": Range(low=0.08, high=0.2, unit="s"),
            "wires": Range(low=0.6, high=1.4),
        },
    ),
    Source(
        name="hi-hat",
        spoken="a hi-hat",
        family="impact",
        synthesise=_hat,
        repeats=_counter(0.08),
        ranges={
            "per_second": _rate(3, 7),
            "low_hz": Range(low=4000, high=6000, unit="Hz", log=True),
            "ring_s": Range(low=0.03, high=0.1, unit="s"),
            "slope": Range(low=-0.5, high=0.5),
        },
    ),
    Source(
        name="clicks",
        spoken="clicks",
        family="impact",
        synthesise=_clicks,
        repeats=_counter(0.01),
        ranges={
            "per_second": _rate(5, 15),
            "body_hz": Range(low=1500, high=5000, unit="Hz", log=True),
            "ring_s": Range(low=0.004, high=0.01, unit="s"),
        },
    ),
    Source(
        name="clock tick",
        spoken="a clock tick",
        family="impact",
        synthesise=_clock,
        repeats=_counter(0.05),
        length_s=(1.5, 3.5),
        ranges={
            "per_second": _rate(1.5, 4),
            "body_hz": Range(low=1800, high=3800, unit="Hz", log=True),
            "ring_s": Range(low=0.01, high=0.03, unit="s"),
            "echo": Range(low=0.1, high=0.5),
        },
    ),
    Source(
        name="heartbeat",
        spoken="a heartbeat",
        family="impact",
        synthesise=_heart,
        repeats=_counter(0.42),
        length_s=(1.5, 3.5),
        ranges={
            "per_second": _rate(0.9, 1.8),
            "low_hz": Range(low=40, high=75, unit="Hz", log=True),
            "gap_s": Range(low=0.18, high=0.26, unit="s"),
            "second": Range(low=0.5, high=0.9),
        },
    ),
    Source(
        name="water drops",
        spoken="water drops",
        family="impact",
        synthesise=_drops,
        repeats=_counter(0.1),
        length_s=(1.0, 3.0),
        ranges={
            "per_second": _rate(1, 3),
            "drop_hz": Range(low=600, high=1800, unit="Hz", log=True),
            "rise": Range(low=0.2, high=0.8),
        },
    ),
    Source(
        name="bubbles",
        spoken="bubbles",
        family="impact",
        synthesise=_bubbles,
        ranges={
            "bubbles_per_s": Range(low=8, high=25, unit="1/s", log=True),
            "low_hz": Range(low=300, high=600, unit="Hz", log=True),
            "octaves": Range(low=0.5, high=1.5),
        },
    ),
]
