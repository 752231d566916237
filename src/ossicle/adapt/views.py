"""Copies of recordings, and how a question about one is written down.

    recording ──level, speed (within 6 %), a little noise, silence around it──► another recording of the same thing

Source: our choice.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ossicle.types import SAMPLE_RATE_HZ


def changed(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a copy with another level, speed (within 6 %), a little noise, and some silence around it."""
    import soxr

    rate_hz = round(SAMPLE_RATE_HZ * float(np.exp(rng.uniform(-0.06, 0.06))))
    copy = soxr.resample(samples, rate_hz, SAMPLE_RATE_HZ).astype(np.float32)
    copy *= 10 ** (rng.uniform(-14, 4) / 20)
    power = float(np.sqrt(np.mean(copy**2)) + 1e-8)
    before, after = (np.zeros(int(rng.uniform(0, 0.3) * SAMPLE_RATE_HZ), np.float32) for _ in range(2))
    copy = np.concatenate([before, copy, after])
    copy += rng.standard_normal(len(copy)).astype(np.float32) * power * np.float32(10 ** (-rng.uniform(22, 45) / 20))
    return copy / max(1.0, float(np.abs(copy).max()) / 0.99)


def message(name: str, question: str, answer: str, duration_s: float) -> dict[str, Any]:
    """Return one sample in the messages form."""
    turns = [{"role": "user", "content": f"<audio>{question}"}, {"role": "assistant", "content": answer}]
    return {"messages": turns, "audios": [name], "duration": round(duration_s, 2)}


def write(path: Path, samples: np.ndarray) -> None:
    """Write 16-bit FLAC at 16 kHz.

    Raises:
        OSError: The disk is full.
    """
    import soundfile

    try:
        soundfile.write(path, np.clip(samples, -1, 1), SAMPLE_RATE_HZ, subtype="PCM_16")
    except soundfile.LibsndfileError as error:
        raise OSError(28, f"cannot be written ({error})", str(path)) from None
