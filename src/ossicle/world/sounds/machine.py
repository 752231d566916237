"""Machines and animals: engine, drill, helicopter, train of clanks, bird, cricket, bee, frog.

Source: our choice; an engine is its firing frequency with uneven cylinders and a load of noise.
"""

from __future__ import annotations

import numpy as np

from ossicle.world.sounds.base import Canvas, Parameters, Range, Source
from ossicle.world.sounds.shape import colour, decay, even, fitting, full, gate, harmonics, phase, smooth, train, wave


def _engine(p: Parameters, c: Canvas) -> np.ndarray:
    drift = 1.0 + 0.004 * smooth(c.rng, c.samples, c.rate_hz, 3.0)
    cycles = phase(p["pitch_hz"] * drift, c.samples, c.rate_hz)
    body = wave(cycles, harmonics(int(p["partials"]), p["tilt_db"]), p["pitch_hz"], c.rate_hz)
    exhaust = colour(c.noise(), c.rate_hz, -1.0, 80.0, 2500.0) * (0.6 + 0.4 * np.cos(2 * np.pi * cycles))
    return full(body) + p["roughness"] * full(exhaust)


def _drill(p: Parameters, c: Canvas) -> np.ndarray:
    drift = 1.0 + 0.006 * smooth(c.rng, c.samples, c.rate_hz, 5.0)
    body = wave(
        phase(p["pitch_hz"] * drift, c.samples, c.rate_hz), harmonics(30, p["tilt_db"]), 1.01 * p["pitch_hz"], c.rate_hz
    )
    grit = colour(c.noise(), c.rate_hz, 0.0, 1200.0, 6000.0)
    return np.tanh(p["drive"] * full(body)) + p["grit"] * full(grit)


def _helicopter(p: Parameters, c: Canvas) -> np.ndarray:
    beat = (c.time_s * p["blades_per_s"]) % 1.0
    chop = np.exp(-beat * p["sharpness"]) + np.exp(-(1.0 - beat) * 2.0 * p["sharpness"])
    body = colour(c.noise(), c.rate_hz, -2.0, 40.0, 900.0)
    turbine = wave(phase(p["turbine_hz"], c.samples, c.rate_hz), np.array([1.0, 0.3]), p["turbine_hz"], c.rate_hz)
    return even(body) * (0.15 + chop) + 0.12 * turbine


def _bird(p: Parameters, c: Canvas) -> np.ndarray:
    size = min(c.samples, round(0.7 / p["notes_per_s"] * c.rate_hz))
    shape = np.linspace(0.0, 1.0, size)
    notes = []
    for _ in range(fitting(p["notes_per_s"], 0.7 / p["notes_per_s"], c.duration_s)):
        glide = p["glide"] * c.rng.uniform(0.6, 1.0) * c.rng.choice([-1.0, 1.0])
        warble = 0.12 * np.sin(2 * np.pi * p["warble_per_s"] * shape * size / c.rate_hz)
        frequency = p["centre_hz"] * 2.0 ** (glide * (shape - 0.5) + warble)
        note = wave(phase(frequency, size, c.rate_hz), np.array([1.0, 0.08]), frequency.max(), c.rate_hz)
        notes.append(note * gate(size, c.rate_hz, 0.012))
    return train(notes, c.samples, c.rate_hz, p["notes_per_s"])


def _cricket(p: Parameters, c: Canvas) -> np.ndarray:
    position = (c.time_s * p["chirps_per_s"]) % 1.0
    in_chirp = np.clip(np.minimum(position + 0.02, p["share"] - position) / 0.02, 0.0, 1.0)
    pulse = 0.5 + 0.5 * np.cos(2 * np.pi * p["pulses_per_s"] * c.time_s)
    return np.sin(2 * np.pi * p["carrier_hz"] * c.time_s) * pulse**2 * in_chirp


def _bee(p: Parameters, c: Canvas) -> np.ndarray:
    drift = 1.0 + 0.015 * smooth(c.rng, c.samples, c.rate_hz, p["wander_per_s"])
    body = wave(
        phase(p["pitch_hz"] * drift, c.samples, c.rate_hz), harmonics(16, p["tilt_db"]), 1.02 * p["pitch_hz"], c.rate_hz
    )
    return body * (1.0 + 0.3 * smooth(c.rng, c.samples, c.rate_hz, p["wander_per_s"]))


def _croak_s(p: Parameters) -> float:
    return 0.6 / p["per_second"]


def _count_croaks(p: Parameters, duration_s: float) -> int:
    return fitting(p["per_second"], _croak_s(p), duration_s)


def _frog(p: Parameters, c: Canvas) -> np.ndarray:
    size = min(c.samples, round(_croak_s(p) * c.rate_hz))
    pulses = np.zeros(size)
    pulses[:: max(1, round(c.rate_hz / p["pulses_per_s"]))] = 1.0
    ring = max(8, round(0.02 * c.rate_hz))
    throat = decay(ring, c.rate_hz, 0.02) * np.sin(2 * np.pi * p["throat_hz"] * np.arange(ring) / c.rate_hz)
    croak = np.convolve(pulses, throat)[:size] * gate(size, c.rate_hz, 0.01)
    return train([croak] * _count_croaks(p, c.duration_s), c.samples, c.rate_hz, p["per_second"])


def _pitch(p: Parameters) -> float:
    return p["pitch_hz"]


MACHINE = [
    Source(
        name="engine",
        spoken="an engine",
        family="machine",
        synthesise=_engine,
        pitch=_pitch,
        length_s=(1.5, 3.0),
        ranges={
            "pitch_hz": Range(low=35, high=110, unit="Hz", log=True),
            "partials": Range(low=10, high=30, whole=True),
            "tilt_db": Range(low=3, high=6, unit="dB per octave"),
            "roughness": Range(low=0.1, high=0.35),
        },
    ),
    Source(
        name="drill",
        spoken="a drill",
        family="machine",
        synthesise=_drill,
        pitch=_pitch,
        length_s=(1.0, 2.5),
        ranges={
            "pitch_hz": Range(low=130, high=280, unit="Hz", log=True),
            "tilt_db": Range(low=3, high=6, unit="dB per octave"),
            "drive": Range(low=1, high=3),
            "grit": Range(low=0.05, high=0.25),
        },
    ),
    Source(
        name="helicopter",
        spoken="a helicopter",
        family="machine",
        synthesise=_helicopter,
        length_s=(2.0, 4.0),
        ranges={
            "blades_per_s": Range(low=9, high=18, unit="1/s"),
            "sharpness": Range(low=4, high=12),
            "turbine_hz": Range(low=400, high=900, unit="Hz", log=True),
        },
    ),
    Source(
        name="bird",
        spoken="a bird",
        family="nature",
        synthesise=_bird,
        ranges={
            "centre_hz": Range(low=2200, high=4500, unit="Hz", log=True),
            "notes_per_s": Range(low=3, high=9, unit="1/s"),
            "glide": Range(low=0.3, high=0.9, unit="octaves"),
            "warble_per_s": Range(low=10, high=30, unit="1/s"),
        },
    ),
    Source(
        name="cricket",
        spoken="a cricket",
        family="nature",
        synthesise=_cricket,
        length_s=(1.0, 3.0),
        ranges={
            "carrier_hz": Range(low=3800, high=5500, unit="Hz", log=True),
            "pulses_per_s": Range(low=25, high=45, unit="1/s"),
            "chirps_per_s": Range(low=1.5, high=4, unit="1/s"),
            "share": Range(low=0.35, high=0.65),
        },
    ),
    Source(
        name="bee",
        spoken="a bee",
        family="nature",
        synthesise=_bee,
        pitch=_pitch,
        ranges={
            "pitch_hz": Range(low=170, high=350, unit="Hz", log=True),
            "tilt_db": Range(low=3, high=7, unit="dB per octave"),
            "wander_per_s": Range(low=2, high=6, unit="1/s"),
        },
    ),
    Source(
        name="frog",
        spoken="a frog",
        family="nature",
        synthesise=_frog,
        repeats=_count_croaks,
        length_s=(0.8, 2.0),
        ranges={
            "per_second": Range(low=1.2, high=2.5, unit="1/s"),
            "pulses_per_s": Range(low=30, high=60, unit="1/s"),
            "throat_hz": Range(low=500, high=1200, unit="Hz", log=True),
        },
    ),
]
