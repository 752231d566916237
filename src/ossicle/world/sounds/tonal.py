"""Pitched sounds: tones, chirps, hum, whistle, horn, strings, bell, flute, organ.

    sound(t) = Σ_k a_k sin(2π k φ(t)) · envelope(t),   φ' = F0(t)

Where F0 is steady it is the truth of the sound; vibrato is symmetric around it.

Source: our choice; the string is a decaying harmonic series plucked at one point (ideal string, Fourier solution).
"""

from __future__ import annotations

import numpy as np

from ossicle.world.sounds.base import Canvas, Parameters, Range, Rule, Source
from ossicle.world.sounds.shape import colour, decay, full, gate, harmonics, modes, phase, wave


def _tone(p: Parameters, c: Canvas) -> np.ndarray:
    body = wave(
        phase(p["pitch_hz"], c.samples, c.rate_hz),
        harmonics(int(p["partials"]), p["tilt_db"]),
        p["pitch_hz"],
        c.rate_hz,
    )
    return body * (1.0 - p["tremolo"] * (0.5 - 0.5 * np.cos(2 * np.pi * p["tremolo_per_s"] * c.time_s)))


def _chirp(direction: int) -> Rule:
    def rule(p: Parameters, c: Canvas) -> np.ndarray:
        position = np.linspace(0.0, 1.0, c.samples) ** p["bend"]
        octaves = p["octaves"] * (position if direction > 0 else 1.0 - position)
        frequency = p["low_hz"] * 2.0**octaves
        return wave(
            phase(frequency, c.samples, c.rate_hz), harmonics(int(p["partials"]), 9.0), frequency.max(), c.rate_hz
        )

    return rule


def _hum(p: Parameters, c: Canvas) -> np.ndarray:
    body = wave(
        phase(p["pitch_hz"], c.samples, c.rate_hz),
        harmonics(int(p["partials"]), p["tilt_db"]),
        p["pitch_hz"],
        c.rate_hz,
    )
    hiss = colour(c.noise(), c.rate_hz, high_hz=3000.0)
    return full(body) + p["hiss"] * full(hiss)


def _vibrato(p: Parameters, c: Canvas) -> np.ndarray:
    return p["pitch_hz"] * 2.0 ** (p["vibrato"] / 12.0 * np.sin(2 * np.pi * p["vibrato_per_s"] * c.time_s))


def _whistle(p: Parameters, c: Canvas) -> np.ndarray:
    frequency = _vibrato(p, c)
    body = wave(phase(frequency, c.samples, c.rate_hz), np.array([1.0, 0.05]), frequency.max(), c.rate_hz)
    air = colour(c.noise(), c.rate_hz, low_hz=p["pitch_hz"], high_hz=2.0 * p["pitch_hz"])
    return (body + p["breath"] * full(air)) * gate(c.samples, c.rate_hz, 0.02)


def _flute(p: Parameters, c: Canvas) -> np.ndarray:
    frequency = _vibrato(p, c)
    body = wave(phase(frequency, c.samples, c.rate_hz), np.array([1.0, 0.35, 0.18, 0.06]), frequency.max(), c.rate_hz)
    air = colour(c.noise(), c.rate_hz, low_hz=800.0, high_hz=5000.0)
    return (body + p["breath"] * full(air)) * gate(c.samples, c.rate_hz, 0.03)


def _horn(p: Parameters, c: Canvas) -> np.ndarray:
    cycles = phase(p["pitch_hz"], c.samples, c.rate_hz)
    soft = wave(cycles, harmonics(4, 9.0), p["pitch_hz"], c.rate_hz)
    bright = wave(cycles, harmonics(24, p["tilt_db"]), p["pitch_hz"], c.rate_hz)
    open_ = 1.0 - decay(c.samples, c.rate_hz, 4.0 * p["attack_s"])
    return (soft + p["brightness"] * bright * open_) * (0.3 + 0.7 * open_) * gate(c.samples, c.rate_hz, 0.01)


def _string(p: Parameters, c: Canvas) -> np.ndarray:
    order = np.arange(1, min(24, int(0.45 * c.rate_hz / p["pitch_hz"])) + 1)
    amplitude = np.abs(np.sin(np.pi * order * p["pluck_at"])) / order**1.5 + 0.02 / order
    sixty = p["ring_s"] / (1.0 + p["damping"] * (order - 1))
    return modes(c.samples, c.rate_hz, p["pitch_hz"] * order, amplitude, sixty)


def _bell(p: Parameters, c: Canvas) -> np.ndarray:
    ratios = np.array([0.5, 1.0, 1.183, 1.506, 2.0, 2.514, 2.662, 3.011, 4.166]) ** p["spread"]
    amplitude = np.array([0.3, 1.0, 0.7, 0.5, 0.7, 0.3, 0.25, 0.3, 0.2]) * p["brightness"] ** np.arange(9)
    return modes(c.samples, c.rate_hz, p["strike_hz"] * ratios, amplitude, p["ring_s"] / ratios**0.7)


def _organ(p: Parameters, c: Canvas) -> np.ndarray:
    third = 2.0 ** ((4.0 if p["major"] >= 0.5 else 3.0) / 12.0)
    out = np.zeros(c.samples)
    for ratio in (1.0, third, 2.0 ** (7.0 / 12.0)):
        pitch = p["root_hz"] * ratio
        out += wave(phase(pitch, c.samples, c.rate_hz), harmonics(8, p["tilt_db"]), pitch, c.rate_hz)
    return out * gate(c.samples, c.rate_hz, 0.02)


def _pitch(p: Parameters) -> float:
    return p["pitch_hz"]


_VIBRATO = {
    "vibrato": Range(low=0.0, high=0.35, unit="semitones"),
    "vibrato_per_s": Range(low=4.0, high=7.0, unit="1/s"),
}
_CHIRP = {
    "low_hz": Range(low=200, high=700, unit="Hz", log=True),
    "octaves": Range(low=1.2, high=2.4),
    "bend": Range(low=0.7, high=1.4),
    "partials": Range(low=1, high=4, whole=True),
}

TONAL = [
    Source(
        name="tone",
        spoken="a tone",
        family="tonal",
        synthesise=_tone,
        pitch=_pitch,
        ranges={
            "pitch_hz": Range(low=110, high=1600, unit="Hz", log=True),
            "partials": Range(low=1, high=6, whole=True),
            "tilt_db": Range(low=6, high=14, unit="dB per octave"),
            "tremolo": Range(low=0, high=0.3),
            "tremolo_per_s": Range(low=2, high=6, unit="1/s"),
        },
    ),
    Source(
        name="rising chirp",
        spoken="a rising chirp",
        family="tonal",
        synthesise=_chirp(1),
        ranges=_CHIRP,
        length_s=(0.5, 1.5),
    ),
    Source(
        name="falling chirp",
        spoken="a falling chirp",
        family="tonal",
        synthesise=_chirp(-1),
        ranges=_CHIRP,
        length_s=(0.5, 1.5),
    ),
    Source(
        name="hum",
        spoken="a hum",
        family="tonal",
        synthesise=_hum,
        pitch=_pitch,
        length_s=(1.0, 3.0),
        ranges={
            "pitch_hz": Range(low=50, high=130, unit="Hz", log=True),
            "partials": Range(low=8, high=24, whole=True),
            "tilt_db": Range(low=5, high=9, unit="dB per octave"),
            "hiss": Range(low=0, high=0.1),
        },
    ),
    Source(
        name="whistle",
        spoken="a whistle",
        family="tonal",
        synthesise=_whistle,
        pitch=_pitch,
        length_s=(0.5, 1.5),
        ranges={
            "pitch_hz": Range(low=900, high=2400, unit="Hz", log=True),
            "breath": Range(low=0.02, high=0.15),
            **_VIBRATO,
        },
    ),
    Source(
        name="flute",
        spoken="a flute",
        family="tonal",
        synthesise=_flute,
        pitch=_pitch,
        ranges={
            "pitch_hz": Range(low=260, high=1050, unit="Hz", log=True),
            "breath": Range(low=0.02, high=0.12),
            **_VIBRATO,
        },
    ),
    Source(
        name="horn",
        spoken="a horn",
        family="tonal",
        synthesise=_horn,
        pitch=_pitch,
        length_s=(0.5, 1.5),
        ranges={
            "pitch_hz": Range(low=150, high=450, unit="Hz", log=True),
            "brightness": Range(low=0.5, high=1.5),
            "tilt_db": Range(low=2, high=5, unit="dB per octave"),
            "attack_s": Range(low=0.02, high=0.08, unit="s"),
        },
    ),
    Source(
        name="plucked string",
        spoken="a plucked string",
        family="tonal",
        synthesise=_string,
        pitch=_pitch,
        ranges={
            "pitch_hz": Range(low=82, high=660, unit="Hz", log=True),
            "pluck_at": Range(low=0.12, high=0.35),
            "ring_s": Range(low=1.0, high=3.0, unit="s"),
            "damping": Range(low=0.05, high=0.3),
        },
    ),
    Source(
        name="bell",
        spoken="a bell",
        family="tonal",
        synthesise=_bell,
        length_s=(1.0, 2.5),
        ranges={
            "strike_hz": Range(low=400, high=1300, unit="Hz", log=True),
            "ring_s": Range(low=1.5, high=4.0, unit="s"),
            "spread": Range(low=0.95, high=1.05),
            "brightness": Range(low=0.8, high=1.0),
        },
    ),
    Source(
        name="organ",
        spoken="an organ chord",
        family="tonal",
        synthesise=_organ,
        ranges={
            "root_hz": Range(low=130, high=400, unit="Hz", log=True),
            "major": Range(low=0, high=1, whole=True),
            "tilt_db": Range(low=4, high=10, unit="dB per octave"),
        },
    ),
]
