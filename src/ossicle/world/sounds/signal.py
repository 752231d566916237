"""Signals that people and machines send: siren, alarm, beeps, buzzer, telephone keys, ringing, reversing beeper.

Source: our choice; the telephone keys are the row and column pairs of ITU-T Q.23.
"""

from __future__ import annotations

import numpy as np

from ossicle.world.sounds.base import Canvas, Parameters, Range, Source
from ossicle.world.sounds.shape import fitting, full, gate, harmonics, modes, phase, train, wave

ROWS_HZ = (697.0, 770.0, 852.0, 941.0)
COLUMNS_HZ = (1209.0, 1336.0, 1477.0)


def _siren(p: Parameters, c: Canvas) -> np.ndarray:
    swing = np.sin(2 * np.pi * (p["sweeps_per_s"] * c.time_s - 0.25))
    swing = np.sign(swing) * np.abs(swing) ** p["shape"]
    frequency = p["low_hz"] * 2.0 ** (p["octaves"] * (0.5 + 0.5 * swing))
    return wave(phase(frequency, c.samples, c.rate_hz), harmonics(5, p["tilt_db"]), frequency.max(), c.rate_hz)


def _alarm(p: Parameters, c: Canvas) -> np.ndarray:
    high = (c.time_s * p["changes_per_s"]).astype(int) % 2 == 1
    frequency = np.where(high, p["low_hz"] * p["ratio"], p["low_hz"])
    return wave(phase(frequency, c.samples, c.rate_hz), harmonics(7, p["tilt_db"]), frequency.max(), c.rate_hz)


def _beep_s(p: Parameters) -> float:
    return p["share"] / p["per_second"]


def _beeps(p: Parameters, c: Canvas) -> np.ndarray:
    size = min(c.samples, round(_beep_s(p) * c.rate_hz))
    beep = wave(phase(p["pitch_hz"], size, c.rate_hz), harmonics(int(p["partials"]), 10.0), p["pitch_hz"], c.rate_hz)
    beep = beep * gate(size, c.rate_hz)
    return train([beep] * _count_beeps(p, c.duration_s), c.samples, c.rate_hz, p["per_second"])


def _count_beeps(p: Parameters, duration_s: float) -> int:
    return fitting(p["per_second"], _beep_s(p), duration_s)


def _buzzer(p: Parameters, c: Canvas) -> np.ndarray:
    order = np.arange(1, 31)
    pulse = np.abs(np.sin(np.pi * order * p["duty"])) / order * 10.0 ** (-p["muffle_db"] * np.log2(order) / 20.0)
    body = wave(phase(p["pitch_hz"], c.samples, c.rate_hz), pulse, p["pitch_hz"], c.rate_hz)
    return np.tanh(full(body) * p["drive"])


def _key_s(p: Parameters) -> float:
    return p["press_s"]


def _count_keys(p: Parameters, duration_s: float) -> int:
    return fitting(1.0 / (p["press_s"] + p["pause_s"]), _key_s(p), duration_s)


def _keys(p: Parameters, c: Canvas) -> np.ndarray:
    size = min(c.samples, round(_key_s(p) * c.rate_hz))
    time = np.arange(size) / c.rate_hz
    louder = 10.0 ** (p["twist_db"] / 20.0)
    presses = []
    for _ in range(_count_keys(p, c.duration_s)):
        row, column = c.rng.choice(ROWS_HZ), c.rng.choice(COLUMNS_HZ)
        pair = np.sin(2 * np.pi * row * time) + louder * np.sin(2 * np.pi * column * time)
        presses.append(pair * gate(size, c.rate_hz))
    return train(presses, c.samples, c.rate_hz, 1.0 / (p["press_s"] + p["pause_s"]))


def _ringing(p: Parameters, c: Canvas) -> np.ndarray:
    size = min(c.samples, round(0.12 * c.rate_hz))
    partials = p["strike_hz"] * np.array([1.0, 1.29 * p["spread"], 2.76, 3.4])
    strike = modes(size, c.rate_hz, partials, np.array([1.0, 0.8, 0.4, 0.3]), np.full(4, 0.25))
    strikes = [strike] * fitting(p["strikes_per_s"], 0.02, c.duration_s)
    on = (c.time_s % (p["ring_s"] + 0.3)) < p["ring_s"]
    return train(strikes, c.samples, c.rate_hz, p["strikes_per_s"]) * (0.02 + 0.98 * on)


def _pitch(p: Parameters) -> float:
    return p["pitch_hz"]


SIGNAL = [
    Source(
        name="siren",
        spoken="a siren",
        family="signal",
        synthesise=_siren,
        length_s=(1.5, 3.0),
        ranges={
            "low_hz": Range(low=400, high=800, unit="Hz", log=True),
            "octaves": Range(low=0.5, high=1.1),
            "sweeps_per_s": Range(low=0.3, high=2.5, unit="1/s", log=True),
            "shape": Range(low=0.6, high=1.2),
            "tilt_db": Range(low=5, high=10, unit="dB per octave"),
        },
    ),
    Source(
        name="alarm",
        spoken="an alarm",
        family="signal",
        synthesise=_alarm,
        length_s=(1.2, 2.5),
        ranges={
            "low_hz": Range(low=600, high=1200, unit="Hz", log=True),
            "ratio": Range(low=1.2, high=1.6),
            "changes_per_s": Range(low=2, high=6, unit="1/s"),
            "tilt_db": Range(low=6, high=10, unit="dB per octave"),
        },
    ),
    Source(
        name="beeps",
        spoken="beeps",
        family="signal",
        synthesise=_beeps,
        pitch=_pitch,
        repeats=_count_beeps,
        ranges={
            "pitch_hz": Range(low=600, high=2000, unit="Hz", log=True),
            "per_second": Range(low=1.5, high=4, unit="1/s"),
            "share": Range(low=0.3, high=0.6),
            "partials": Range(low=1, high=3, whole=True),
        },
    ),
    Source(
        name="buzzer",
        spoken="a buzzer",
        family="signal",
        synthesise=_buzzer,
        pitch=_pitch,
        length_s=(0.5, 1.5),
        ranges={
            "pitch_hz": Range(low=100, high=300, unit="Hz", log=True),
            "duty": Range(low=0.15, high=0.45),
            "muffle_db": Range(low=0, high=3, unit="dB per octave"),
            "drive": Range(low=1, high=4),
        },
    ),
    Source(
        name="telephone keys",
        spoken="telephone keys",
        family="signal",
        synthesise=_keys,
        repeats=_count_keys,
        ranges={
            "press_s": Range(low=0.1, high=0.25, unit="s"),
            "pause_s": Range(low=0.1, high=0.3, unit="s"),
            "twist_db": Range(low=-3, high=3, unit="dB"),
        },
    ),
    Source(
        name="telephone",
        spoken="a ringing telephone",
        family="signal",
        synthesise=_ringing,
        length_s=(1.2, 2.5),
        ranges={
            "strike_hz": Range(low=900, high=1700, unit="Hz", log=True),
            "strikes_per_s": Range(low=16, high=26, unit="1/s"),
            "ring_s": Range(low=0.6, high=1.2, unit="s"),
            "spread": Range(low=0.9, high=1.1),
        },
    ),
]
