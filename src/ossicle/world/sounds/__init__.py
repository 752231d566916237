"""Parametric sound sources by name: `SOURCES["siren"]`.

>>> import numpy as np
>>> from ossicle.world.sounds import SOURCES
>>> siren = SOURCES["siren"]
>>> samples = siren.render(siren.sample(np.random.default_rng(0)), duration_s=2.0)
>>> samples.shape, siren.spoken
((32000,), 'a siren')
"""

from __future__ import annotations

from ossicle.world.sounds.base import Canvas, Range, Source
from ossicle.world.sounds.impact import IMPACT
from ossicle.world.sounds.machine import MACHINE
from ossicle.world.sounds.noise import NOISE
from ossicle.world.sounds.signal import SIGNAL
from ossicle.world.sounds.tonal import TONAL

SOURCES: dict[str, Source] = {source.name: source for source in [*TONAL, *SIGNAL, *NOISE, *IMPACT, *MACHINE]}

__all__ = ["SOURCES", "Canvas", "Range", "Source"]
