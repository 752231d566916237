"""Material: labelled sounds in memory, from which timelines and scenes are composed.

    real clips (manifest folders)  ─┐
    parametric sources (world)     ─┼──► pools of `Sound`: 16-bit samples without silent ends, and what is known of them
    espeak-ng words and phrases    ─┘

What is synthesised is a pure function of its seed and count, and is kept in the cache folder once made; so are decoded
clips, under the place of their set, its manifest, and sizes and times of its recordings.
Source: our choice.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np

from ossicle.data.clip import Clip
from ossicle.data.manifest import digest, read_set
from ossicle.types import SAMPLE_RATE_HZ

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COMMANDS = (
    *("yes", "no", "up", "down", "left", "right", "stop", "go", "on", "off", "start", "next", "back", "help"),
    *(f"turn {state} the {thing}" for state in ("on", "off") for thing in ("light", "radio", "fan")),
    *(f"{verb} the {thing}" for verb in ("open", "close") for thing in ("door", "window")),
    *("play music", "stop the music", "pause the music", "volume up", "volume down", "go left", "go right", "go back"),
)
PHRASES = (
    "the weather will be fine today",
    "we are meeting at the station",
    "please leave the parcel at the door",
    "my sister lives in a small town",
    "there is a train every ten minutes",
    "the report is on your desk now",
    "they walked along the river for hours",
    "could you tell me where the library is",
    "nobody knew how the story would end",
    "it was late and the shops were closed",
)
WORDS = tuple(dict.fromkeys((*DIGITS, *" ".join(COMMANDS).split())))
"""Every word that the word recogniser knows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sound:
    """One labelled sound.

    Attributes:
        samples: (S,) int16 at 16 kHz, without silence at its ends.
        pool: Where it comes from: a set's folder name, `world`, `words` or `phrases`.
        label: What makes the sound, None for speech.
        words: The words spoken; empty = no speech; None = speech whose words are not known.
        gender: `female` or `male`, None = not known or no voice.
        emotion: Acted emotion, or None.
        pitch_hz: F0 of a sound with one steady pitch, or None.
        words_per_minute: Speaking rate, where it is known.
        repeats: How many single knocks, beeps … it holds, for countable sources.
        family: Family of a parametric source, or None.
        group: What must not lie on both sides of a split.
    """

    samples: np.ndarray
    pool: str
    label: str | None = None
    words: tuple[str, ...] | None = ()
    gender: str | None = None
    emotion: str | None = None
    pitch_hz: float | None = None
    words_per_minute: float | None = None
    repeats: int | None = None
    family: str | None = None
    group: str | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE_HZ


def trim(samples: np.ndarray, below_db: float = -50.0, spare_s: float = 0.02) -> np.ndarray:
    """Return the samples without the silent ends: what lies `below_db` under the peak before and after all sound."""
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max(initial=0) * 10 ** (below_db / 20))
    if not len(loud):
        return samples
    spare = round(spare_s * SAMPLE_RATE_HZ)
    return samples[max(0, loud[0] - spare) : loud[-1] + 1 + spare]


def to_int16(samples: np.ndarray) -> np.ndarray:
    """Return samples in -1..1 as 16-bit integers."""
    return np.round(np.clip(samples, -1, 1) * 32767).astype(np.int16)


def recordings(root: Path, name: str) -> list[Sound]:
    """Return the clips of one set as sounds, under its folder name."""
    return [_sound(clip) for clip in read_set(root / name)]


def _sound(clip: Clip) -> Sound:
    spoken = clip.speaker is not None
    words: tuple[str, ...] | None = None if spoken else ()
    if clip.transcript is not None and set(clip.transcript.split()) <= set(WORDS):
        words = tuple(clip.transcript.split())
    return Sound(
        samples=to_int16(trim(clip.read().samples)),
        pool=clip.source,
        label=None if spoken or not clip.labels else clip.labels[0],
        words=words,
        gender=clip.gender,
        emotion=clip.emotion,
        pitch_hz=clip.extra.get("f0_hz"),
        group=clip.group or clip.name,
    )


def parametric(seed: int, count: int) -> list[Sound]:
    """Return `count` sounds of the world's parametric sources, all sources equally often."""
    from ossicle.world.sounds import SOURCES

    rng, names = np.random.default_rng([seed, 1]), list(SOURCES)
    sounds = []
    for index in range(count):
        source = SOURCES[names[index % len(names)]]
        params, length_s = source.sample(rng), source.draw_length_s(rng)
        sounds.append(
            Sound(
                samples=to_int16(source.render(params, length_s)),
                pool="world",
                label=source.name,
                pitch_hz=source.f0_hz(params),
                repeats=source.count(params, length_s),
                family=source.family,
                group=str(index),
            )
        )
    return sounds


def spoken(seed: int, count: int, texts: Sequence[str], pool: str) -> list[Sound]:
    """Return `count` texts spoken by espeak-ng, half of them through a telephone band.

    Raises:
        UnsupportedError: espeak-ng is not installed.
    """
    from ossicle.world.speech import draw_voice, say

    rng = np.random.default_rng([seed, zlib.crc32(pool.encode())])
    genders = {"woman": "female", "man": "male", None: None}
    sounds = []
    for index in range(count):
        text, voice, telephone = texts[index % len(texts)], draw_voice(rng), bool(rng.random() < 0.5)
        speed, pitch = float(rng.uniform(90, 280)), float(rng.uniform(15, 85))
        known = set(text.split()) <= set(WORDS)
        sounds.append(
            Sound(
                samples=to_int16(say(text, voice.name, speed, pitch, telephone=telephone).samples),
                pool=pool,
                words=tuple(text.split()) if known else None,
                gender=genders[voice.gender],
                words_per_minute=speed if len(text.split()) > 3 else None,
                group=voice.name,
            )
        )
    return sounds


def synthesised(pool: str, seed: int, count: int) -> list[Sound]:
    """Return a synthesised pool: `world`, `words` (digits and commands) or `phrases`."""
    if pool == "world":
        return parametric(seed, count)
    texts = PHRASES if pool == "phrases" else [*DIGITS, *DIGITS, *DIGITS, *COMMANDS]
    return spoken(seed, count, texts, pool)


def pools(
    root: Path, names: Iterable[str], *, seed: int, counts: Mapping[str, int], cache_dir: Path | None = None
) -> dict[str, list[Sound]]:
    """Return pools of sounds by name.

    Args:
        root: Folder with the sets.
        names: Names of sets and of synthesised pools.
        seed: Of what is synthesised.
        counts: How many sounds each synthesised pool has; its names say which pools are synthesised.
        cache_dir: Where decoded and synthesised sounds are kept, or None.
    """
    made = {}
    for name in names:
        key = f"{name}-{seed}-{counts[name]}" if name in counts else f"{name}-{digest(root / name)}"
        make = (
            (lambda n=name: synthesised(n, seed, counts[n])) if name in counts else (lambda n=name: recordings(root, n))
        )
        made[name] = kept(cache_dir / key, make) if cache_dir else make()
    return made


def kept(path: Path, make: Callable[[], list[Sound]]) -> list[Sound]:
    """Return the sounds stored under `path` (two files), made and stored first where they are not there yet."""
    facts, samples = path.with_name(path.name + ".json"), path.with_name(path.name + ".npy")
    if not facts.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        sounds = make()
        rows = [{**asdict(replace(sound, samples=None)), "length": len(sound.samples)} for sound in sounds]
        for target, write in ((samples, _write_samples), (facts, _write_facts)):  # facts last: they say it is complete
            partial = target.with_name(f".{target.name}-{os.getpid()}")  # another process may be at it too
            write(partial, sounds, rows)
            partial.rename(target)
    flat, start, sounds = np.load(samples, mmap_mode="r"), 0, []
    for row in json.loads(facts.read_text()):
        length, words = row.pop("length"), row.pop("words")
        row.pop("samples")
        words = None if words is None else tuple(words)
        sounds.append(Sound(samples=flat[start : start + length], words=words, **row))
        start += length
    return sounds


def _write_samples(path: Path, sounds: list[Sound], _rows: list[dict]) -> None:
    with path.open("wb") as file:
        np.save(file, np.concatenate([sound.samples for sound in sounds]))


def _write_facts(path: Path, _sounds: list[Sound], rows: list[dict]) -> None:
    path.write_text(json.dumps(rows))


def is_held_out(sound: Sound, rules: Mapping[str, Sequence[str] | float]) -> bool:
    """Return whether a sound is kept for validation: by the name of its group, or by a share of the groups."""
    rule = rules.get(sound.pool, 0.0)
    if isinstance(rule, int | float):
        return zlib.crc32(f"{sound.pool}/{sound.group}".encode()) % 1000 < 1000 * rule
    return sound.group in rule
