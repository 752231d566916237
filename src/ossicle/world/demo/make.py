"""Makes the bundled scenes again: `python -m ossicle.world.demo.make`.

Source: our choice. The recordings are synthetic and free to use.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import soundfile

from ossicle.types import SAMPLE_RATE_HZ
from ossicle.world.demo import FOLDER
from ossicle.world.items import sound, speech
from ossicle.world.scenes import Room, Scene, compose
from ossicle.world.speech import Voice

MAN = Voice(name="en-us+m3", accent="en-us", gender="man")
WOMAN = Voice(name="en-us+f2", accent="en-us", gender="woman")
GAPS_S = (0.3, 0.5)

Pairs = list[tuple[str, str]]


def digits_over_rain() -> tuple[str, Scene, Pairs]:
    """Return a man's two digits over rain."""
    rng = np.random.default_rng(1)
    scene = compose(rng, [speech("four seven", MAN, 140)], gap_s=(0.6, 0.9), background="rain", snr_db=12.0)
    return "A man says four seven while it rains", scene, [
        ("Which digits are spoken?", "four seven"),
        ("Is the speaker a man or a woman?", "a man"),
        ("What sound is behind the speech?", "rain"),
        ("Is there a siren?", "no"),
    ]  # fmt: skip


def beeps_siren_digit() -> tuple[str, Scene, Pairs]:
    """Return three beeps, a siren, a woman's digit."""
    rng = np.random.default_rng(2)
    items = [sound("beeps", rng, count=3), sound("siren", rng, 2.0), speech("nine", WOMAN, 130)]
    return "Three beeps, a siren, then a woman says nine", compose(rng, items, gap_s=GAPS_S), [
        ("Which sound comes first?", "beeps"),
        ("Is there a siren?", "yes"),
        ("Which digit is spoken?", "nine"),
        ("Is the speaker a man or a woman?", "a woman"),
        ("Is there a dog?", "no"),
    ]  # fmt: skip


def bird_helicopter_clock() -> tuple[str, Scene, Pairs]:
    """Return three sounds in order, then a digit."""
    rng = np.random.default_rng(3)
    items = [
        sound("bird", rng, 1.2),
        sound("helicopter", rng, 1.8),
        sound("clock tick", rng, count=4),
        speech("two", MAN, 130),
    ]
    scene = compose(rng, items, gap_s=GAPS_S, room=Room(sixty_s=0.3, direct_db=9.0, seed=3))
    return "A bird, a helicopter, a clock; a man says two", scene, [
        ("Which sound comes first?", "a bird"),
        ("Is there a helicopter?", "yes"),
        ("Is there a chainsaw?", "no"),
        ("Which digit is spoken?", "two"),
        ("Is the speaker a man or a woman?", "a man"),
    ]  # fmt: skip


def digits_then_alarm() -> tuple[str, Scene, Pairs]:
    """Return a woman's three digits, then an alarm."""
    rng = np.random.default_rng(4)
    items = [speech("five zero eight", WOMAN, 130), sound("alarm", rng, 1.5)]
    return "A woman says five zero eight, then an alarm", compose(rng, items, gap_s=GAPS_S), [
        ("Which digits are spoken?", "five zero eight"),
        ("How many digits are spoken?", "three"),
        ("Which sound comes last?", "an alarm"),
        ("Is the speaker a man or a woman?", "a woman"),
    ]  # fmt: skip


SCENES = (digits_over_rain, beeps_siren_digit, bird_helicopter_clock, digits_then_alarm)


def make(folder: Path = FOLDER) -> list[Path]:
    """Write every scene and its truth, and return the recordings' paths.

    Raises:
        UnsupportedError: espeak-ng is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for number, build in enumerate(SCENES, start=1):
        title, scene, pairs = build()
        path = folder / f"{number}_{build.__name__}.ogg"
        stream = io.BytesIO()
        soundfile.write(stream, scene.waveform.samples, SAMPLE_RATE_HZ, format="OGG", subtype="VORBIS")
        told = {
            "title": title,
            "audio": path.name,
            "licence": "synthetic, CC0",
            "questions": [{"question": question, "answer": answer} for question, answer in pairs],
            "truth": _rounded(scene.truth()),
        }
        for target, content in ((path, stream.getvalue()), (path.with_suffix(".json"), _json(told))):
            temporary = target.with_name(target.name + ".part")
            temporary.write_bytes(content)
            temporary.replace(target)
        written.append(path)
    return written


def _json(told: dict[str, object]) -> bytes:
    return (json.dumps(told, indent=1) + "\n").encode()


def _rounded(value: object) -> object:
    """Return the truth with six digits after the point."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value


if __name__ == "__main__":
    make()
