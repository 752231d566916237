"""How fast the world renders, in processor time of one core.

Source: our choice.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from ossicle.world.scenes import random_scene


@dataclass(frozen=True, slots=True, kw_only=True)
class Throughput:
    """Seconds of sound per second of one core.

    Attributes:
        times_real_time: The ratio of the next two.
        audio_s: Seconds of sound rendered.
        processor_s: Processor seconds it took.
        scenes: Number of scenes.
    """

    times_real_time: float
    audio_s: float
    processor_s: float
    scenes: int


def throughput(seed: int = 0, processor_s: float = 0.5) -> Throughput:
    """Return how fast random scenes of parametric sounds render here.

    Args:
        seed: Seed of the scenes.
        processor_s: Processor seconds to spend, about.
    """
    rng = np.random.default_rng(seed)
    random_scene(rng)
    began, audio_s, scenes = time.thread_time(), 0.0, 0
    while time.thread_time() - began < processor_s:
        audio_s += random_scene(rng).duration_s
        scenes += 1
    spent = time.thread_time() - began
    return Throughput(times_real_time=audio_s / spent, audio_s=audio_s, processor_s=spent, scenes=scenes)
