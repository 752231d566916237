"""Synthetic speech: espeak-ng in a subprocess, a few milliseconds a phrase.

    text ──► espeak-ng (voice, speed, pitch) ──► 22.05 kHz ──► soxr ──► silence trimmed ──► Waveform

A voice is an English accent and a variant, `en-us+f2`. Its gender is a fact only where the variant's own file states it
and the variant belongs to a plain speaking voice; robots, whispers and croaks are left out. espeak-ng ignores a variant
after an alias (`en-gb+f2` is spoken as `en`) and an unknown one, so accents are named by file and both are checked.

Source: our choice.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache

import numpy as np

from ossicle.errors import DataError, UnsupportedError
from ossicle.types import SAMPLE_RATE_HZ, Waveform

PROGRAM = "espeak-ng"
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
WOMEN = ("f1", "f2", "f3", "f4", "f5", "Alicia", "Andrea", "Annie", "anika", "belinda", "linda", "steph", "steph2")
MEN = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "Andy", "Denis", "Diogo", "Hugo", "Lee", "antonio", "miguel")
TELEPHONE_HZ = (300.0, 3400.0)
TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Voice:
    """One way to speak.

    Attributes:
        name: What espeak-ng calls it: `en-us+f2`.
        accent: `en-us`.
        gender: `woman` or `man`, None where the voice does not say.
    """

    name: str
    accent: str
    gender: str | None = None


def available() -> bool:
    """Return whether espeak-ng can be run here."""
    return shutil.which(PROGRAM) is not None


@cache
def voices() -> tuple[Voice, ...]:
    """Return the usable English voices: every accent times every plain variant that is installed.

    Raises:
        UnsupportedError: espeak-ng is not installed.
    """
    accents = [accent for accent in ACCENTS if accent in _files("en")]
    files = _files("variant")
    found = [Voice(name=accent, accent=accent) for accent in accents]
    for gender, variants in (("woman", WOMEN), ("man", MEN)):
        for variant in variants:
            if variant in files:
                found += [Voice(name=f"{accent}+{variant}", accent=accent, gender=gender) for accent in accents]
    return tuple(found)


def draw_voice(rng: np.random.Generator, gender: str | None = None) -> Voice:
    """Return one of the voices, of the given gender (`woman` or `man`) when asked.

    Raises:
        UnsupportedError: espeak-ng is not installed.
        DataError: No such voice.
    """
    pool = [voice for voice in voices() if gender is None or voice.gender == gender]
    if not pool:
        raise DataError(f"no espeak-ng voice of gender '{gender}'; expected 'woman' or 'man'")
    return pool[int(rng.integers(len(pool)))]


def say(
    text: str,
    voice: str = "en-us",
    speed_wpm: float = 160.0,
    pitch: float = 50.0,
    rate_hz: int = SAMPLE_RATE_HZ,
    telephone: bool = False,
) -> Waveform:
    """Return the text spoken, silence before and after it removed.

    Args:
        text: Plain English.
        voice: A voice of `voices()`, for example `en-us+f2`.
        speed_wpm: Words per minute, 80 to 450.
        pitch: 0 to 99, 50 is the voice's own.
        rate_hz: Samples per second of the result.
        telephone: Keep only the telephone band, 300 to 3400 Hz.

    Returns:
        (S,) mono, largest absolute value 0.8.

    Raises:
        UnsupportedError: espeak-ng is not installed.
        DataError: Empty text, unknown voice, or setting out of range.
    """
    _check(text, voice, speed_wpm, pitch)
    arguments = ["--stdin", "-z", "-v", voice, "-s", str(round(speed_wpm)), "-p", str(round(pitch)), "--stdout"]
    spoken, source_hz = _decode(_run(arguments, text), text)
    if not np.abs(spoken).max() > 1e-4:
        raise DataError(f"espeak-ng spoke nothing for {text!r}; expected English words")
    spoken = _trim(spoken, source_hz)
    if rate_hz != source_hz:
        import soxr

        spoken = soxr.resample(spoken, source_hz, rate_hz)
    if telephone:
        spoken = _band(spoken, rate_hz, *TELEPHONE_HZ)
    peak = max(float(np.abs(spoken).max()), 1e-9)
    return Waveform(
        samples=(spoken * (0.8 / peak)).astype(np.float32), sample_rate_hz=rate_hz, name=f"<{voice}: {text}>"
    )


def _check(text: str, voice: str, speed_wpm: float, pitch: float) -> None:
    if not re.search(r"\w", text):
        raise DataError(f"nothing to say: text is {text!r}, expected at least one word")
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\+[A-Za-z0-9_-]+)?", voice):
        raise DataError(f"voice {voice!r} is not a voice name; expected one like 'en-us' or 'en-us+f2'")
    accent, _, variant = voice.partition("+")
    if accent not in _files("en") or (variant and variant not in _files("variant")):
        raise DataError(f"espeak-ng has no English voice {voice!r}; accents: {', '.join(ACCENTS)}; variants: f1, m3, …")
    if not 80 <= speed_wpm <= 450:
        raise DataError(f"speech speed is {speed_wpm} words per minute, expected 80 to 450")
    if not 0 <= pitch <= 99:
        raise DataError(f"speech pitch is {pitch}, expected 0 to 99")


def _run(arguments: list[str], text: str = "") -> bytes:
    """Run espeak-ng and return what it wrote to stdout."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise UnsupportedError("espeak-ng is not installed, so nothing can be spoken; apt-get install espeak-ng")
    try:
        done = subprocess.run(
            [program, *arguments], input=text.encode(), capture_output=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        raise DataError(f"espeak-ng took more than {TIMEOUT_S:.0f} s; give it a shorter text") from None
    if done.returncode != 0:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
        raise DataError(f"espeak-ng refused {' '.join(arguments)}: {reason}")
    return done.stdout


@cache
def _files(language: str) -> frozenset[str]:
    """Return the file names in espeak-ng's own list of voices: accents in lower case, variants as they are."""
    lines = _run([f"--voices={language}"]).decode(errors="replace").splitlines()[1:]
    names = [match.group(2) for line in lines if (match := re.search(r"\s(gmw|!v)/(\S+)", line))]
    return frozenset(names if language == "variant" else (name.lower() for name in names))


def _decode(raw: bytes, text: str) -> tuple[np.ndarray, int]:
    """Return samples and rate of a wave file that was streamed, so that its length fields are wrong."""
    import soundfile

    start = raw.find(b"data")
    if start < 0 or len(raw) < start + 10:
        raise DataError(f"espeak-ng spoke nothing for {text!r}")
    size = len(raw) - start - 8
    header = raw[:4] + (len(raw) - 8).to_bytes(4, "little") + raw[8 : start + 4] + size.to_bytes(4, "little")
    samples, rate_hz = soundfile.read(io.BytesIO(header + raw[start + 8 :]), dtype="float32")
    return samples, rate_hz


def _trim(samples: np.ndarray, rate_hz: int, below_db: float = -35.0) -> np.ndarray:
    """Return the samples from the first to the last one that reaches `below_db` under the peak, with 2 ms to spare."""
    loud = np.flatnonzero(np.abs(samples) >= np.abs(samples).max() * 10.0 ** (below_db / 20.0))
    spare = round(0.002 * rate_hz)
    return samples[max(0, loud[0] - spare) : loud[-1] + 1 + spare]


def _band(samples: np.ndarray, rate_hz: int, low_hz: float, high_hz: float) -> np.ndarray:
    """Return the samples without what lies outside a band (a steep edge in the frequency domain)."""
    frequency = np.fft.rfftfreq(len(samples), 1.0 / rate_hz)
    gain = 1.0 / np.sqrt(1.0 + (low_hz / np.maximum(frequency, 1.0)) ** 12) / np.sqrt(1.0 + (frequency / high_hz) ** 24)
    return np.fft.irfft(np.fft.rfft(samples) * gain, len(samples))
