"""Questions about one parametric sound: "Which of these is it: rain, a siren, a bell or a drill?"

    number ──► source, parameters, length, level, place in the clip ──► clip ──► four options, one answer

Every sample is a pure function of the recipe's seed, the settings and its number; other numbers are other sounds, so a
range that was not trained on is a fresh test. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import ClassVar

import numpy as np
from pydantic import Field

from ossicle.data.sample import MadeAudio, Sample, question
from ossicle.data.source import Source, SourceConfig, SourceContext
from ossicle.errors import ConfigError, suggest
from ossicle.types import SAMPLE_RATE_HZ, Waveform

EASY = ("rain", "siren", "bell", "engine", "bird", "beeps", "bass drum", "plucked string")
WORDINGS = (
    "Which of these do you hear: {}?",
    "Is this {}?",
    "What makes this sound: {}?",
    "Which sound is it: {}?",
)
MEMORY_BYTES = 256 << 20


class WorldSoundsConfig(SourceConfig):
    """Settings of `world_sounds`.

    Attributes:
        sounds: Names of parametric sources.
        options: How many of them a question names.
        samples: How many samples there are; None = endless.
        first: Number of the first one: another range gives fresh sounds.
        clip_s: Length of a clip in seconds.
        noise_db: Level of white noise under the sound, relative to it; None = none.
    """

    kind: str = "world_sounds"
    sounds: list[str] = Field(default_factory=lambda: list(EASY), min_length=2)
    options: int = Field(default=4, ge=2)
    samples: int | None = Field(default=None, ge=1)
    first: int = Field(default=0, ge=0)
    clip_s: float = Field(default=2.0, gt=0.2, le=30)
    noise_db: float | None = None


class WorldSoundsSource(Source):
    """Samples about single parametric sounds."""

    Config: ClassVar[type[SourceConfig]] = WorldSoundsConfig

    def __init__(self, config: WorldSoundsConfig, context: SourceContext) -> None:
        from ossicle.world.sounds import SOURCES

        super().__init__(config, context)
        strange = [name for name in config.sounds if name not in SOURCES]
        if strange:
            raise ConfigError(f"world_sounds: unknown sound '{strange[0]}'; {suggest(strange[0], list(SOURCES))}")
        if config.options > len(config.sounds):
            raise ConfigError(f"world_sounds: {config.options} options of {len(config.sounds)} sounds")
        self.endless = config.samples is None  # type: ignore[misc]
        self._kept: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        """Return how many samples there are."""
        return int(self.config.samples or 0)

    def sample(self, index: int) -> Sample:
        """Return one sound and the question about it."""
        from ossicle.world.sounds import SOURCES

        rng = self._generator(index)
        names = [str(name) for name in rng.permutation(self.config.sounds)[: self.config.options]]
        right = names[int(rng.integers(len(names)))]
        spoken = [SOURCES[name].spoken for name in names]
        listed = ", ".join(spoken[:-1]) + " or " + spoken[-1]
        text = WORDINGS[int(rng.integers(len(WORDINGS)))].format(listed)
        name = f"world_sounds|{self.context.seed}|{self.config.clip_s}|{self.config.noise_db}|{right}|"
        number = self.config.first + index
        audio = MadeAudio(make=partial(self._render, right, index), name=f"{name}{number}")
        answer = SOURCES[right].spoken
        return question(text, answer, [audio], id=f"world_sounds:{number}", label=right)

    def duration_s(self, index: int) -> float:
        """Return the length of a clip: all are the same."""
        return float(self.config.clip_s)

    def texts(self) -> Iterator[str]:
        """Yield questions and answers, a few hundred of them."""
        for index in range(min(300, len(self) or 300)):
            yield from (turn["content"] for turn in self.sample(index).messages)

    def _generator(self, index: int, *, stream: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.context.seed, 7001, stream, self.config.first + index])

    def _render(self, name: str, index: int) -> Waveform:
        if index not in self._kept:
            samples = self._make(name, self._generator(index, stream=1))
            if len(self._kept) * samples.nbytes > MEMORY_BYTES:
                self._kept.clear()
            self._kept[index] = samples
        return Waveform(samples=self._kept[index], name=f"world_sounds:{self.config.first + index}")

    def _make(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """Return the clip: the sound somewhere in it, at some level, over noise if asked."""
        from ossicle.world.items import sound

        length = round(self.config.clip_s * SAMPLE_RATE_HZ)
        item = sound(name, rng, duration_s=self.config.clip_s * rng.uniform(0.6, 1.0)).samples[:length]
        clip = np.zeros(length, dtype=np.float32)
        start = int(rng.integers(length - len(item) + 1))
        clip[start : start + len(item)] = item * 10 ** (rng.uniform(-18, 0) / 20)
        if self.config.noise_db is not None:
            level = np.sqrt(np.mean(clip**2)) * 10 ** (self.config.noise_db / 20)
            clip += rng.normal(0, level, length).astype(np.float32)
        return clip
