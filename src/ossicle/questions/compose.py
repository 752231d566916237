"""Audios to ask about: one sound, a scene, a string of digits, speech over sound, a long quiet clip, or silence.

    number ──draw──► Piece (which sounds, where, how loud; with its facts) ──render──► samples

A piece is drawn without touching much audio, so that questions can be made from its facts alone; it is rendered only
when its encoder outputs are not kept yet. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from ossicle.data.material import DIGITS, Sound
from ossicle.data.timeline import at_speed, by_label, level_db, noise
from ossicle.questions.heard import Event, Heard
from ossicle.types import SAMPLE_RATE_HZ

LONGEST_S = 6.0
VOICES = ("emodb_2s", "librispeech_gender251", "librispeech_other100", "kathleen_arctic300", "phrases")
SPEED_SPREAD = {"fsdd": 0.12, "words": 0.12, "esc10": 0.1, "world": 0.0}
"""How far a sound's speed may vary (log scale); pitch and rate follow it in the facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A stretch of a sound in its place: samples `first` to `first + length`, played at `speed`, times `gain`."""

    sound: Sound
    first: int
    length: int
    speed: float
    gain: float
    level_db: float
    start: int = 0

    @property
    def heard_samples(self) -> int:
        """Samples it takes in the piece."""
        return len(range(round((self.length - 1) / self.speed)))

    def samples(self) -> np.ndarray:
        """Return what is laid into the piece."""
        raw = np.asarray(self.sound.samples[self.first : self.first + self.length]).astype(np.float32) / 32768
        ramp = np.linspace(0, 1, min(160, len(raw) // 2), dtype=np.float32)
        raw[: len(ramp)] *= ramp
        raw[len(raw) - len(ramp) :] *= ramp[::-1]
        return at_speed(raw, self.speed)[: self.heard_samples] * np.float32(self.gain)

    def event(self) -> Event:
        """Return the facts about it."""
        pitch, rate = self.sound.pitch_hz, self.sound.words_per_minute
        return Event(
            sound=self.sound,
            start_s=self.start / SAMPLE_RATE_HZ,
            level_db=self.level_db,
            pitch_hz=None if pitch is None else pitch * self.speed,
            words_per_minute=None if rate is None else rate * self.speed,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """An audio before it is rendered."""

    parts: tuple[Part, ...]
    length: int
    background: Part | None = None
    hiss_db: float | None = None
    room_seed: int | None = None

    @property
    def heard(self) -> Heard:
        """Return the facts about it."""
        return Heard(
            events=tuple(part.event() for part in self.parts),
            duration_s=self.length / SAMPLE_RATE_HZ,
            background=self.background.sound if self.background else None,
        )

    def render(self) -> np.ndarray:
        """Return (S,) float32."""
        audio = np.zeros(self.length, np.float32)
        for part in self.parts:
            samples = part.samples()[: self.length - part.start]
            audio[part.start : part.start + len(samples)] += samples
        rng = np.random.default_rng(self.room_seed or self.length)
        if self.room_seed is not None:
            audio = _reverberate(audio, rng)
        if self.background is not None:
            audio += np.resize(self.background.samples(), self.length)
        if self.hiss_db is not None:
            audio += noise(self.length, rng) * np.float32(10 ** (self.hiss_db / 20))
        return np.clip(audio, -1, 1).astype(np.float32)


def _reverberate(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    from ossicle.world.scenes import Room
    from ossicle.world.sounds.shape import convolve

    seed = int(rng.integers(2**31))
    room = Room(sixty_s=float(rng.uniform(0.2, 0.7)), direct_db=float(rng.uniform(3, 12)), seed=seed)
    return np.asarray(convolve(audio, room.response()), dtype=np.float32)[: len(audio)]


@dataclass(slots=True)
class Composer:
    """Draws pieces from pools of sounds."""

    pools: Mapping[str, Sequence[Sound]]
    _labels: dict[str, list[list[Sound]]] = field(default_factory=dict)
    _digits: dict[str, dict[str, list[Sound]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._labels = {name: by_label(sounds) for name, sounds in self.pools.items()}
        for name in ("fsdd", "words"):
            for sound in self.pools.get(name, ()):
                if sound.words and len(sound.words) == 1 and sound.words[0] in DIGITS:
                    self._digits.setdefault(f"{name} {sound.group}", {}).setdefault(sound.words[0], []).append(sound)
        self._digits = {voice: said for voice, said in self._digits.items() if len(said) >= 4}

    def draw(self, kind: str, rng: np.random.Generator) -> Piece:
        """Return one sound of the pool so named, or a `scene`, `digits`, `mixture`, `long` clip or `silence`."""
        makers: dict[str, Callable[[np.random.Generator], Piece]] = {
            "scene": self._scene,
            "digits": self._digit_string,
            "mixture": self._mixture,
            "long": self._long,
            "silence": self._silence,
        }
        return makers[kind](rng) if kind in makers else self._single(kind, rng)

    def pick(self, pool: str, rng: np.random.Generator) -> Sound:
        """Return a sound of a pool, labels evenly."""
        labels = self._labels[pool]
        sounds = labels[rng.integers(len(labels))]
        return sounds[rng.integers(len(sounds))]

    def part(self, sound: Sound, longest_s: float, level: float, rng: np.random.Generator) -> Part:
        """Return a sound ready to be placed: a loud stretch of at most `longest_s`, at a level in dB of full scale."""
        spread = SPEED_SPREAD.get(sound.pool, 0.03)
        speed = float(np.exp(rng.uniform(-spread, spread))) if rng.random() < 0.7 else 1.0
        length = min(len(sound.samples), round(longest_s * speed * SAMPLE_RATE_HZ))
        if sound.words:
            length = len(sound.samples)
        firsts = rng.integers(0, len(sound.samples) - length + 1, 3)
        raw = np.asarray(sound.samples)
        first = int(max(firsts, key=lambda f: float(np.square(raw[f : f + length : 16], dtype=np.float64).sum())))
        stretch = raw[first : first + length].astype(np.float32) / 32768
        own, peak = level_db(stretch), max(float(np.abs(stretch).max()), 1e-5)
        gain = min(10 ** ((level - own) / 20), 0.95 / peak)
        return Part(
            sound=sound, first=first, length=length, speed=speed, gain=gain, level_db=own + 20 * float(np.log10(gain))
        )

    def _laid(
        self, parts: Sequence[Part], rng: np.random.Generator, gap_s: tuple[float, float], **more: object
    ) -> Piece:
        place, laid = 0, []
        for part in parts:
            place += round(rng.uniform(*gap_s) * SAMPLE_RATE_HZ)
            laid.append(_at(part, place))
            place += part.heard_samples
        length = place + round(rng.uniform(*gap_s) * SAMPLE_RATE_HZ)
        hiss = float(rng.uniform(-78, -50)) if rng.random() < 0.2 else None
        return Piece(parts=tuple(laid), length=max(length, 1600), hiss_db=hiss, **more)  # type: ignore[arg-type]

    def _single(self, pool: str, rng: np.random.Generator) -> Piece:
        sound = self.pick(pool, rng)
        softest = -52 if pool in ("world", "salamander_piano_notes") else -42
        level = float(rng.uniform(softest, -10))
        part = self.part(sound, LONGEST_S if rng.random() < 0.7 else 2.0, level, rng)
        room = int(rng.integers(1, 2**31)) if pool == "world" and rng.random() < 0.3 else None
        edges = (0.0, 0.05) if rng.random() < 0.4 else (0.0, 0.8)
        return self._laid([part], rng, edges, room_seed=room)

    def _sound_parts(self, count: int, rng: np.random.Generator) -> list[Part]:
        kind = rng.random()
        pools = ["esc10"] if kind < 0.5 else ["world"] if kind < 0.8 else ["esc10", "world", "berklee_sounds"]
        level, longest = float(rng.uniform(-34, -15)), (1.0, 2.0) if rng.random() < 0.75 else (0.7, 3.5)
        parts: list[Part] = []
        distinct = rng.random() < 0.9 and sum(len(self._labels[pool]) for pool in pools) >= count
        while len(parts) < count:
            sound = self.pick(pools[rng.integers(len(pools))], rng)
            if not distinct or sound.label not in {part.sound.label for part in parts}:
                parts.append(self.part(sound, float(rng.uniform(*longest)), level + float(rng.uniform(-4, 4)), rng))
        return parts

    def _gaps(self, rng: np.random.Generator) -> tuple[float, float]:
        return (0.12, 0.65) if rng.random() < 0.75 else (0.05, 2.0)

    def _scene(self, rng: np.random.Generator) -> Piece:
        count = int(rng.choice([1, 2, 3, 4], p=[0.12, 0.38, 0.26, 0.24]))
        parts = self._sound_parts(count, rng)
        room = int(rng.integers(1, 2**31)) if rng.random() < 0.15 else None
        return self._laid(parts, rng, self._gaps(rng), room_seed=room)

    def _digit_parts(self, count: int, rng: np.random.Generator) -> list[Part]:
        voices = sorted(self._digits)
        real = [voice for voice in voices if voice.startswith("fsdd")]
        pool = real if real and rng.random() < 0.7 else voices
        said = self._digits[pool[rng.integers(len(pool))]]
        level, words = float(rng.uniform(-34, -12)), sorted(said)
        sounds = [said[words[rng.integers(len(words))]] for _ in range(count)]
        return [self.part(s[rng.integers(len(s))], 2.0, level + float(rng.uniform(-4, 4)), rng) for s in sounds]

    def _digit_string(self, rng: np.random.Generator) -> Piece:
        return self._laid(self._digit_parts(int(rng.integers(1, 5)), rng), rng, self._gaps(rng))

    def _voice_parts(self, rng: np.random.Generator) -> list[Part]:
        kind = rng.random()
        if kind < 0.5:
            return self._digit_parts(int(rng.integers(1, 3)), rng)
        voices = [name for name in VOICES if name in self._labels] or ["words"]  # a set may be held out whole
        pool = "words" if kind < 0.7 else voices[rng.integers(len(voices))]
        return [self.part(self.pick(pool, rng), 3.0, float(rng.uniform(-32, -12)), rng)]

    def _mixture(self, rng: np.random.Generator) -> Piece:
        """Speech and sounds after one another, or one over a sound that goes on behind it."""
        if rng.random() < 0.4:
            parts = [*self._voice_parts(rng)[:1], *self._sound_parts(int(rng.integers(1, 3)), rng)]
            return self._laid([parts[i] for i in rng.permutation(len(parts))], rng, self._gaps(rng))
        front = self._voice_parts(rng) if rng.random() < 0.75 else self._sound_parts(int(rng.integers(1, 3)), rng)
        piece = self._laid(front, rng, self._gaps(rng))
        taken = {part.sound.label for part in front}
        sound = self.pick("esc10" if rng.random() < 0.7 else "world", rng)
        if sound.label in taken:
            return piece
        level = float(np.mean([part.level_db for part in front]) - rng.uniform(5, 18))
        behind = self.part(sound, LONGEST_S, level, rng)
        return Piece(parts=piece.parts, length=piece.length, background=behind)

    def _long(self, rng: np.random.Generator) -> Piece:
        """One or two events somewhere in up to 70 s of near silence."""
        kind = rng.random()
        parts = self._sound_parts(int(rng.integers(1, 3)), rng) if kind < 0.7 else self._voice_parts(rng)
        length = round(rng.uniform(12, 70) * SAMPLE_RATE_HZ)
        free = length - sum(part.heard_samples for part in parts)
        places = np.sort(rng.integers(0, free, len(parts)))
        before = np.cumsum([0, *(part.heard_samples for part in parts[:-1])])
        laid = tuple(_at(part, int(at + b)) for part, at, b in zip(parts, places, before, strict=True))
        hiss = float(rng.uniform(-80, -55)) if rng.random() < 0.6 else None
        return Piece(parts=laid, length=length, hiss_db=hiss)

    def _silence(self, rng: np.random.Generator) -> Piece:
        hiss = float(rng.uniform(-90, -75)) if rng.random() < 0.5 else None
        return Piece(parts=(), length=round(float(np.exp(rng.uniform(-1.5, 3.2))) * SAMPLE_RATE_HZ), hiss_db=hiss)


def _at(part: Part, start: int) -> Part:
    from dataclasses import replace

    return replace(part, start=start)
