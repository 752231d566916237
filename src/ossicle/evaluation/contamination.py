"""Has the model been trained on what it is tested with? Compare the bytes of recordings.

    sounds of the suite ──sha256──┐
                                  ├──► how many are the same file, by task
    recordings it was taught ─────┘

Only identical files are found: a copy that was cut or encoded again is not. Source: our choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from ossicle.audio.io import SUFFIXES
from ossicle.errors import DataError
from ossicle.evaluation.task import Task


def file_hashes(folders: Iterable[Path]) -> set[str]:
    """Return the hashes of all recordings under some folders.

    Raises:
        DataError: One of them is no folder.
    """
    found = set()
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"--trained-on {folder}: no such folder; expected the recordings that the model was taught")
        for path in folder.rglob("*"):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                found.add(hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def contamination(tasks: Mapping[str, Task], trained: set[str]) -> dict[str, dict[str, int]]:
    """Return, for each task over recordings, how many of its files were also trained on."""
    counts = {}
    for name, task in tasks.items():
        files = [sound for sound in task.sounds.values() if sound.path is not None]
        if files:
            counts[name] = {"seen": sum(sound.digest in trained for sound in files), "of": len(files)}
    return counts
