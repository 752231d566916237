"""Noises: white, pink and brown, a hiss, wind, rain, sea waves, a crackling fire, clapping.

Source: our choice; a colour is power falling as f^0, f^-1, f^-2.
"""

from __future__ import annotations

import numpy as np

from ossicle.world.sounds.base import Canvas, Parameters, Range, Rule, Source
from ossicle.world.sounds.shape import colour, convolve, decay, even, resonate, smooth


def _noise(slope: float) -> Rule:
    def rule(p: Parameters, c: Canvas) -> np.ndarray:
        body = colour(c.noise(), c.rate_hz, slope, p["low_hz"], p["high_hz"])
        return body * (1.0 + p["wobble"] * smooth(c.rng, c.samples, c.rate_hz, 2.0))

    return rule


def _hiss(p: Parameters, c: Canvas) -> np.ndarray:
    body = colour(c.noise(), c.rate_hz, p["slope"], p["low_hz"])
    return body * (1.0 + p["wobble"] * smooth(c.rng, c.samples, c.rate_hz, 6.0))


def _wind(p: Parameters, c: Canvas) -> np.ndarray:
    gust = smooth(c.rng, c.samples, c.rate_hz, p["gusts_per_s"])
    body = colour(c.noise(), c.rate_hz, -1.5, 40.0, 1200.0)
    howl = resonate(c.noise(), c.rate_hz, p["howl_hz"], 0.15 * p["howl_hz"])
    body = even(body) + p["howl"] * even(howl) * (0.5 + 0.5 * gust)
    return body * 10.0 ** (p["depth_db"] / 20.0 * gust)


def _scattered(c: Canvas, per_second: float, spread: float) -> np.ndarray:
    """Return (S,) impulses at random times with random heights, one of them at the very start."""
    times = c.rng.integers(0, c.samples, c.rng.poisson(per_second * c.duration_s))
    heights = np.minimum(np.exp(spread * c.rng.standard_normal(len(times))), 3.0)
    heights *= c.rng.choice([-1.0, 1.0], len(times))
    out = np.bincount(times, heights, minlength=c.samples).astype(float)
    out[0] += 1.5
    return out


def _rain(p: Parameters, c: Canvas) -> np.ndarray:
    steady = colour(c.noise(), c.rate_hz, -0.5, 500.0, p["brightness_hz"])
    size = round(0.03 * c.rate_hz)
    drop = decay(size, c.rate_hz, 0.02) * np.sin(2 * np.pi * p["drop_hz"] * np.arange(size) / c.rate_hz)
    drops = convolve(_scattered(c, p["drops_per_s"], 0.7), drop)
    return even(steady) + 1.2 * p["drops"] * even(drops)


def _waves(p: Parameters, c: Canvas) -> np.ndarray:
    swell = 0.5 - 0.5 * np.cos(2 * np.pi * (c.time_s / p["period_s"] + p["starts_at"]))
    deep = colour(c.noise(), c.rate_hz, -1.5, 60.0, 700.0)
    foam = colour(c.noise(), c.rate_hz, -0.5, 700.0, p["foam_hz"])
    return even(deep) * (0.3 + 0.5 * swell) + even(foam) * (0.1 + 0.9 * swell**2)


def _fire(p: Parameters, c: Canvas) -> np.ndarray:
    size = round(0.02 * c.rate_hz)
    crackle = decay(size, c.rate_hz, p["crackle_s"]) * c.noise(size)
    crackles = convolve(_scattered(c, p["crackles_per_s"], 1.0), crackle)
    rumble = colour(c.noise(), c.rate_hz, -2.0, 50.0, 500.0)
    return even(crackles) + p["rumble"] * even(rumble)


def _clapping(p: Parameters, c: Canvas) -> np.ndarray:
    size = round(0.06 * c.rate_hz)
    clap = resonate(c.noise(size) * decay(size, c.rate_hz, p["clap_s"]), c.rate_hz, p["body_hz"], p["body_hz"])
    return convolve(np.abs(_scattered(c, p["claps_per_s"], 0.5)), clap)


_CUTS = {
    "low_hz": Range(low=20, high=120, unit="Hz", log=True),
    "high_hz": Range(low=5000, high=8000, unit="Hz", log=True),
    "wobble": Range(low=0, high=0.25),
}

NOISE = [
    Source(name="white noise", spoken="white noise", family="noise", synthesise=_noise(0.0), ranges=_CUTS),
    Source(name="pink noise", spoken="pink noise", family="noise", synthesise=_noise(-1.0), ranges=_CUTS),
    Source(name="brown noise", spoken="brown noise", family="noise", synthesise=_noise(-2.0), ranges=_CUTS),
    Source(
        name="hiss",
        spoken="a hiss",
        family="noise",
        synthesise=_hiss,
        length_s=(0.5, 2.0),
        ranges={
            "low_hz": Range(low=2500, high=4500, unit="Hz", log=True),
            "slope": Range(low=-0.5, high=0.5),
            "wobble": Range(low=0, high=0.5),
        },
    ),
    Source(
        name="wind",
        spoken="wind",
        family="noise",
        synthesise=_wind,
        length_s=(2.0, 4.0),
        ranges={
            "gusts_per_s": Range(low=0.5, high=1.5, unit="1/s"),
            "depth_db": Range(low=4, high=10, unit="dB"),
            "howl_hz": Range(low=300, high=800, unit="Hz", log=True),
            "howl": Range(low=0.2, high=0.9),
        },
    ),
    Source(
        name="rain",
        spoken="rain",
        family="noise",
        synthesise=_rain,
        length_s=(2.0, 4.0),
        ranges={
            "drops_per_s": Range(low=60, high=400, unit="1/s", log=True),
            "drop_hz": Range(low=1500, high=4500, unit="Hz", log=True),
            "drops": Range(low=0.3, high=1.0),
            "brightness_hz": Range(low=3000, high=7500, unit="Hz"),
        },
    ),
    Source(
        name="sea waves",
        spoken="sea waves",
        family="noise",
        synthesise=_waves,
        length_s=(3.0, 5.0),
        ranges={
            "period_s": Range(low=3, high=6, unit="s"),
            "starts_at": Range(low=0, high=0.9, unit="of a period"),
            "foam_hz": Range(low=3000, high=7000, unit="Hz"),
        },
    ),
    Source(
        name="crackling fire",
        spoken="a crackling fire",
        family="noise",
        synthesise=_fire,
        length_s=(2.0, 4.0),
        ranges={
            "crackles_per_s": Range(low=8, high=30, unit="1/s", log=True),
            "crackle_s": Range(low=0.004, high=0.015, unit="s"),
            "rumble": Range(low=0.2, high=0.6),
        },
    ),
    Source(
        name="clapping",
        spoken="clapping",
        family="noise",
        synthesise=_clapping,
        length_s=(1.5, 3.0),
        ranges={
            "claps_per_s": Range(low=15, high=60, unit="1/s", log=True),
            "clap_s": Range(low=0.03, high=0.06, unit="s"),
            "body_hz": Range(low=900, high=2000, unit="Hz", log=True),
        },
    ),
]
