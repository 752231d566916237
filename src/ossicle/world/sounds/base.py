"""What a parametric sound source is: named parameters with ranges, a rule that turns them into samples, and facts.

    Source ──sample(rng)──► {"pitch_hz": 440.0, …, "seed": 17} ──render(duration_s)──► (S,) float32

The same parameters always give the same samples: randomness inside a sound comes from `seed`, which is one of them.
Every rendered sound starts at its first sample (no silence in front), never exceeds 1, and has exactly the asked
length, so that what a scene says about it (when, how loud, how high, how many) is true by construction.

Source: our choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ossicle.errors import DataError, suggest
from ossicle.types import SAMPLE_RATE_HZ
from ossicle.world.sounds.shape import fade

PEAK = 0.8
"""Largest absolute sample of a rendered source."""
LONGEST_S = 3600.0

Parameters = Mapping[str, float]
Rule = Callable[[Parameters, "Canvas"], np.ndarray]
Counter = Callable[[Parameters, float], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """One parameter: its range, its unit, and how it is drawn.

    Attributes:
        low: Smallest value.
        high: Largest value.
        unit: `Hz`, `s`, `1/s`, `dB` or empty for a plain number.
        log: Drawn evenly on a logarithmic scale (pitches, rates) instead of a linear one.
        whole: Whole numbers only.
    """

    low: float
    high: float
    unit: str = ""
    log: bool = False
    whole: bool = False

    def draw(self, rng: np.random.Generator) -> float:
        """Return one value."""
        if self.whole:
            return float(rng.integers(int(self.low), int(self.high) + 1))
        if self.log:
            return math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return float(rng.uniform(self.low, self.high))


class Canvas:
    """The length, rate and randomness of one rendering.

    Attributes:
        samples: Number of samples S.
        rate_hz: Samples per second.
        rng: Randomness of this one sound.
    """

    def __init__(self, samples: int, rate_hz: int, seed: int) -> None:
        self.samples = samples
        self.rate_hz = rate_hz
        self.rng = np.random.default_rng(seed)

    @property
    def time_s(self) -> np.ndarray:
        """(S,) the time of each sample."""
        return np.arange(self.samples) / self.rate_hz

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return self.samples / self.rate_hz

    def noise(self, samples: int | None = None) -> np.ndarray:
        """(S,) white noise with unit variance."""
        return self.rng.standard_normal(self.samples if samples is None else samples, dtype=np.float32)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A family of sounds with named parameters.

    Attributes:
        name: Label, the plain word for it: `siren`.
        spoken: The label in a sentence, with its article: `a siren`.
        family: `tonal`, `signal`, `noise`, `impact`, `machine` or `nature`.
        ranges: Parameter name → `Range`, at least three.
        synthesise: `(parameters, canvas) → (S,)`, any scale.
        pitch: Parameters → true F0 in Hz, for sources with one steady F0.
        repeats: `(parameters, duration in s)` → how many beeps, knocks, steps …, for countable sources.
        length_s: Usual shortest and longest duration.
    """

    name: str
    spoken: str
    family: str
    ranges: Mapping[str, Range]
    synthesise: Rule
    pitch: Callable[[Parameters], float] | None = None
    repeats: Counter | None = None
    length_s: tuple[float, float] = (0.8, 2.0)

    def sample(self, rng: np.random.Generator) -> dict[str, float]:
        """Return parameters drawn from their ranges, and the `seed` of the sound's own randomness."""
        drawn = {name: scope.draw(rng) for name, scope in self.ranges.items()}
        drawn["seed"] = float(rng.integers(2**31))
        return drawn

    def draw_length_s(self, rng: np.random.Generator) -> float:
        """Return a usual duration in seconds."""
        return float(rng.uniform(*self.length_s))

    def complete(self, params: Parameters) -> dict[str, float]:
        """Return all parameters, the middle of its range for each that is not given.

        Raises:
            DataError: A parameter that this source does not have, or a value outside its range.
        """
        full = {name: math.sqrt(r.low * r.high) if r.log else (r.low + r.high) / 2.0 for name, r in self.ranges.items()}
        full = {name: float(round(value)) if self.ranges[name].whole else value for name, value in full.items()}
        full["seed"] = 0.0
        for name, value in params.items():
            if name not in full:
                raise DataError(f"source '{self.name}' has no parameter '{name}'; {suggest(name, list(full))}")
            scope = self.ranges.get(name)
            if scope and not scope.low - 1e-9 <= value <= scope.high + 1e-9:
                expected = f"{scope.low:g} to {scope.high:g} {scope.unit}".rstrip()
                raise DataError(f"source '{self.name}': {name} is {value}, expected {expected}")
            full[name] = float(value)
        return full

    def render(self, params: Parameters, duration_s: float, rate: int = SAMPLE_RATE_HZ) -> np.ndarray:
        """Return the sound.

        Args:
            params: Parameters by name; what is left out takes the middle of its range.
            duration_s: Length in seconds, above 0, at most an hour.
            rate: Samples per second.

        Returns:
            (S,) float32 with largest absolute value 0.8.

        Raises:
            DataError: Unknown parameter, value outside its range, or impossible duration.

        Example:
            >>> from ossicle.world.sounds import SOURCES
            >>> SOURCES["siren"].render({"low_hz": 600}, 1.5).shape
            (24000,)
        """
        samples = round(duration_s * rate) if math.isfinite(duration_s) else 0
        if samples < 1 or duration_s > LONGEST_S:
            raise DataError(
                f"source '{self.name}': duration is {duration_s} s, expected above 0 and at most {LONGEST_S:g}"
            )
        full = self.complete(params)
        sound = np.asarray(self.synthesise(full, Canvas(samples, rate, int(full["seed"]))), dtype=np.float32)
        sound = fade(sound, rate)
        return sound * np.float32(PEAK / max(float(np.abs(sound).max()), 1e-9))

    def f0_hz(self, params: Parameters) -> float | None:
        """Return the true F0 in Hz, or None for a source without one steady pitch."""
        return None if self.pitch is None else self.pitch(self.complete(params))

    def count(self, params: Parameters, duration_s: float) -> int | None:
        """Return how many single beeps, knocks, steps … are heard in the duration, None for a continuous sound."""
        return None if self.repeats is None else self.repeats(self.complete(params), duration_s)
