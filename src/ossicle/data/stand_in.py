"""A few synthetic clips and a manifest about them, where a small run needs data that is not here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from ossicle.types import SAMPLE_RATE_HZ

SOUNDS = ("rain", "siren", "bell", "engine", "bird", "beeps", "bass drum", "plucked string")


def write_manifest(folder: Path, seed: int = 0) -> Path:
    """Write eight clips of one second and a messages manifest about them; return the manifest.

    What is already there stays.
    """
    import soundfile

    from ossicle.world.items import sound

    path = folder / "stand_in.jsonl"
    if path.is_file():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, name in enumerate(SOUNDS):
        item = sound(name, np.random.default_rng([seed, number]), duration_s=1.0)
        clip = f"{name.replace(' ', '_')}.wav"
        soundfile.write(folder / clip, item.samples, SAMPLE_RATE_HZ)
        turns = [
            {"role": "user", "content": "<audio>What do you hear?"},
            {"role": "assistant", "content": item.spoken},
        ]
        rows.append({"messages": turns, "audios": [clip], "duration": item.duration_s, "label": item.label})
    temporary = path.with_suffix(".writing")
    temporary.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    temporary.replace(path)
    return path
