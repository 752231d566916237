"""A few synthetic clips, where a small run needs data that is not here: a manifest, or a folder of sets.

What is made has the form of what is missing and is read by the same reader; nothing can be learned from it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ossicle.types import SAMPLE_RATE_HZ

SOUND_SETS = {"esc10", "berklee_sounds", "salamander_piano_notes"}
"""Sets of sounds with labels; all others are taken for speech."""
WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
EMOTIONS = ("neutral", "happiness", "anger", "sadness")
SOUNDS = ("rain", "siren", "bell", "engine", "bird", "beeps", "bass drum", "plucked string", "horn", "bee")


def write_manifest(folder: Path, seed: int = 0) -> Path:
    """Write ten short clips and a messages manifest about them; return the manifest.

    What is already there stays.
    """
    path = folder / "stand_in.jsonl"
    if path.is_file():
        return path
    rows = []
    for name, clip, duration_s in _clips(folder, seed):
        turns = [
            {"role": "user", "content": "<audio>What do you hear?"},
            {"role": "assistant", "content": name},
        ]
        rows.append({"messages": turns, "audios": [clip], "duration": duration_s, "label": name})
    return _write(path, rows)


def write_sets(root: Path, names: Iterable[str], seed: int = 0) -> Path:
    """Write folders of ten clips each, laid out like the sets of those names; return their root."""
    for number, name in enumerate(names):
        manifest = root / name / "manifest.jsonl"
        if manifest.is_file():
            continue
        rows = []
        for index, (sound, clip, duration_s) in enumerate(_clips(root / name, seed + number)):
            row = {"path": clip, "duration_s": duration_s, "split": "dev", "source_id": clip}
            spoken = {
                "speaker": f"s{index // 5}",
                "gender": ("female", "male")[index // 5],
                "emotion": EMOTIONS[index % 4],
                "transcript": WORDS[index],
            }
            rows.append({**row, **({"label": sound, "pitch": "A4", "f0_hz": 440.0} if name in SOUND_SETS else spoken)})
        _write(manifest, rows)
    return root


def _clips(folder: Path, seed: int) -> list[tuple[str, str, float]]:
    """Write one clip of each sound; return what it is, its file and its length."""
    import soundfile

    from ossicle.world.items import sound

    folder.mkdir(parents=True, exist_ok=True)
    made = []
    for number, name in enumerate(SOUNDS):
        item = sound(name, np.random.default_rng([seed, number]), duration_s=0.7)
        clip = f"{name.replace(' ', '_')}.wav"
        soundfile.write(folder / clip, item.samples, SAMPLE_RATE_HZ)
        made.append((item.label, clip, round(item.duration_s, 3)))
    return made


def _write(path: Path, rows: list[dict[str, object]]) -> Path:
    """Write JSON lines, whole or not at all."""
    temporary = path.with_suffix(".writing")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)
    return path
