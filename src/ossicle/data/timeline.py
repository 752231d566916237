"""A timeline: seconds of several sounds with gaps, some over a quieter background, each placement remembered.

    row   ──gap──[ dog bark ]──gap──[ "seven" ]──gap────[ siren ]──gap──►   S samples
                     + another row, quieter

The waveform is varied when it is placed (speed, gain, noise), its log-mel frames by `augment` (band warp, equaliser,
masks). Source: our choice; the band warp
is VTLP (Jaitly & Hinton 2013), the masks are SpecAugment's (arXiv 1904.08779).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor

from ossicle.data.material import Sound
from ossicle.types import SAMPLE_RATE_HZ

SPEECH_POOLS = ("fsdd", "words")
"""Pools whose speed and bands may be changed widely: nobody asks for the emotion or gender of a spoken digit."""
FRAME_SAMPLES = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A sound at its place in a row: samples `start` to `start + length`, its level, the speed it was read at."""

    sound: Sound
    row: int
    start: int
    length: int
    level_db: float
    speed: float = 1.0


def level_db(samples: np.ndarray) -> float:
    """Return the level of the samples in dB relative to full scale (root mean square), at least -90."""
    return float(10 * np.log10(max(float(np.square(samples, dtype=np.float64).mean()), 1e-9)))


def crop(samples: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """Return a stretch of at most `length` samples, the loudest of three draws (real clips hold much silence)."""
    if len(samples) <= length:
        return samples
    starts = rng.integers(0, len(samples) - length + 1, 3)
    return max(
        (samples[s : s + length] for s in starts), key=lambda x: float(np.square(x[::16], dtype=np.float64).sum())
    )


def at_speed(samples: np.ndarray, speed: float) -> np.ndarray:
    """Return the samples played faster or slower (pitch moves along), by linear interpolation."""
    return np.interp(np.arange(0, len(samples) - 1, speed), np.arange(len(samples)), samples).astype(np.float32)


def voiced(sound: Sound) -> bool:
    """Return whether the sound is somebody speaking."""
    return sound.words != ()


def perform(sound: Sound, length: int, rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """Return a variation of a sound (float32, at most `length` samples) and its speed."""
    if sound.pool in SPEECH_POOLS:
        spread = 0.2
    elif voiced(sound) or sound.pitch_hz:
        spread = 0.05
    else:
        spread = 0.2
    speed = float(np.exp(rng.uniform(-spread, spread)))
    samples = crop(np.asarray(sound.samples), round(length * speed), rng).astype(np.float32) / 32768
    return at_speed(samples, speed)[:length], speed


class TimelineComposer:
    """Draws rows of several sounds.

    Args:
        pools: Sounds by pool.
        mix: Weight of each pool.
        row_s: Length of a row in seconds.
        background: Share of rows under which another row lies, 9 to 25 dB quieter.
    """

    def __init__(
        self, pools: Mapping[str, Sequence[Sound]], mix: Mapping[str, float], row_s: float, background: float
    ) -> None:
        self.pools = {name: by_label(pools[name]) for name in mix}
        self.names = list(mix)
        self.weights = np.array([mix[name] for name in self.names]) / sum(mix.values())
        self.samples = round(row_s * SAMPLE_RATE_HZ)
        self.background = background

    def draw(self, rng: np.random.Generator) -> Sound:
        """Return a sound: pool by weight, label evenly, then any."""
        labels = self.pools[self.names[rng.choice(len(self.names), p=self.weights)]]
        sounds = labels[rng.integers(len(labels))]
        return sounds[rng.integers(len(sounds))]

    def rows(self, num_rows: int, rng: np.random.Generator) -> tuple[np.ndarray, list[Placement], dict[int, int]]:
        """Return (R, S) float32, what lies where, and row → the row that lies under it."""
        audio = np.zeros((num_rows, self.samples), np.float32)
        placements = [placed for row in range(num_rows) for placed in self._fill(audio[row], row, rng)]
        under: dict[int, int] = {}
        clean = audio.copy()
        for row in range(num_rows):
            if num_rows > 1 and rng.random() < self.background:
                other = int((row + rng.integers(1, num_rows)) % num_rows)
                gap = level_db(clean[row]) - level_db(clean[other]) - rng.uniform(9, 25)
                audio[row] += clean[other] * np.float32(10 ** (gap / 20))
                under[row] = other
            if rng.random() < 0.3:
                audio[row] += noise(self.samples, rng) * np.float32(10 ** (rng.uniform(-75, -40) / 20))
        return np.clip(audio, -1, 1), placements, under

    def _fill(self, row: np.ndarray, index: int, rng: np.random.Generator) -> list[Placement]:
        placed, start = [], int(rng.exponential(0.25) * SAMPLE_RATE_HZ)
        while start < self.samples - 4000:
            sound = self.draw(rng)
            longest = min(self.samples - start, int(rng.uniform(1.2, 4.5) * SAMPLE_RATE_HZ))
            if len(sound.samples) > 1.3 * longest and (sound.words or longest < 12000):
                break  # words are never cut, and half a second of rain is nobody's rain
            samples, speed = perform(sound, longest, rng)
            level = rng.uniform(-42, -10)
            gain = min(10 ** ((level - level_db(samples)) / 20), 0.99 / max(float(np.abs(samples).max()), 1e-6))
            row[start : start + len(samples)] += samples * np.float32(gain)
            heard = level_db(samples * gain)
            placed.append(
                Placement(sound=sound, row=index, start=start, length=len(samples), level_db=heard, speed=speed)
            )
            start += len(samples) + int(min(rng.exponential(0.25), 1.5) * SAMPLE_RATE_HZ)
        return placed


def by_label(sounds: Sequence[Sound]) -> list[list[Sound]]:
    """Return the sounds grouped by what they teach, so that each label is drawn equally often."""
    groups: dict[object, list[Sound]] = {}
    for sound in sounds:
        key = sound.label or sound.emotion or (sound.words if sound.words else sound.gender)
        groups.setdefault(key, []).append(sound)
    return [groups[key] for key in sorted(groups, key=str)]


def noise(samples: int, rng: np.random.Generator) -> np.ndarray:
    """Return (S,) noise of unit power whose spectrum falls by a random slope."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum *= np.maximum(np.arange(len(spectrum)), 10.0) ** -rng.uniform(0, 1)
    out = np.fft.irfft(spectrum, samples)
    return (out / out.std()).astype(np.float32)


@cache
def warp_matrix(num_mels: int, percent: int) -> Tensor:
    """Return (F, F): log-mel frames times this have every frequency multiplied by `percent` / 100."""
    from transformers.audio_utils import hertz_to_mel, mel_to_hertz

    edges = np.linspace(0, hertz_to_mel(SAMPLE_RATE_HZ / 2, "slaney"), num_mels + 2)[1:-1]
    source = hertz_to_mel(np.minimum(mel_to_hertz(edges, "slaney") * 100 / percent, SAMPLE_RATE_HZ / 2), "slaney")
    place = np.clip((source - edges[0]) / (edges[1] - edges[0]), 0, num_mels - 1)
    low = np.minimum(place.astype(int), num_mels - 2)
    matrix = np.zeros((num_mels, num_mels), np.float32)
    matrix[low, np.arange(num_mels)] = 1 - (place - low)
    matrix[low + 1, np.arange(num_mels)] = place - low
    return torch.from_numpy(matrix)


def augment(mel: Tensor, placements: Sequence[Placement], rng: np.random.Generator) -> Tensor:
    """Return log-mel (R, T, F), silence 0: each placed sound warped and equalised, masks on each row."""
    mel = mel.clone()
    num_mels = mel.shape[2]
    for placed in placements:
        spread = 15 if placed.sound.pool in SPEECH_POOLS else 5
        frames = mel[placed.row, placed.start // FRAME_SAMPLES : -(-(placed.start + placed.length) // FRAME_SAMPLES)]
        warped = frames @ warp_matrix(num_mels, 100 + int(rng.integers(-spread, spread + 1)))
        bumps = np.interp(np.arange(num_mels), np.linspace(0, num_mels - 1, 6), rng.normal(0, 0.12, 6))
        curve = torch.from_numpy(bumps.astype(np.float32))
        frames.copy_(torch.where(warped > 0.3, warped + curve, warped).clamp_min(0))
    for row in mel:
        if rng.random() < 0.6:
            first, count = rng.integers(0, mel.shape[1] - 40), rng.integers(5, 40)
            row[first : first + count] = 0
        if rng.random() < 0.6:
            low, count = rng.integers(0, num_mels - 12), rng.integers(2, 12)
            row[:, low : low + count] = 0
    return mel
