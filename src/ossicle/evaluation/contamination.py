"""Has the model been trained on what it is tested with? Compare the bytes of recordings.

    sounds of the suite ──sha256──┐
                                  ├──► how many are the same file, by task
    recordings it was taught ─────┘        (a folder, or a training manifest)

Only identical files are found: a copy that was cut or encoded again is not. Source: our choice.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from ossicle.audio.io import SUFFIXES
from ossicle.data.rows import numbered_lines
from ossicle.errors import DataError
from ossicle.evaluation.task import Task

logger = logging.getLogger(__name__)


def file_hashes(folders: Iterable[Path]) -> set[str]:
    """Return the hashes of all recordings under some folders, or named by training manifests.

    A manifest is JSON lines with `audios` (messages), `path`, or `sha256`; paths are relative to its folder.

    Raises:
        DataError: One of them is neither, or a manifest names only files that are not there.
    """
    found: set[str] = set()
    for folder in folders:
        if folder.is_file():
            found |= _manifest_hashes(folder)
            continue
        if not folder.is_dir():
            raise DataError(
                f"--trained-on {folder}: no such folder or manifest; expected what the model was taught with"
            )
        for path in folder.rglob("*"):
            if path.suffix.lower() in SUFFIXES and path.is_file():
                found.add(hashlib.sha256(path.read_bytes()).hexdigest())
    return found


def _manifest_hashes(manifest: Path) -> set[str]:
    found, lost = set(), []
    for number, line in numbered_lines(manifest):
        try:
            row = json.loads(line)
            named = [*row.get("audios", []), *([row["path"]] if "path" in row else [])]
        except (json.JSONDecodeError, AttributeError, TypeError):
            raise DataError(f"{manifest}:{number}: expected an object with 'audios', 'path' or 'sha256'") from None
        if "sha256" in row:
            found.add(str(row["sha256"]))
            continue
        for name in named:
            path = manifest.parent / str(name)
            if path.is_file():
                found.add(hashlib.sha256(path.read_bytes()).hexdigest())
            else:
                lost.append(str(name))
    if lost and not found:
        raise DataError(f"{manifest}: none of its {len(lost)} recordings is there, as {lost[0]}; nothing to compare")
    if lost:
        logger.warning("%s: %d recordings are not there and were not compared, as %s", manifest, len(lost), lost[0])
    return found


def contamination(tasks: Mapping[str, Task], trained: set[str]) -> dict[str, dict[str, int]]:
    """Return, for each task over recordings, how many of its files were also trained on."""
    counts = {}
    for name, task in tasks.items():
        files = [sound for sound in task.sounds.values() if sound.path is not None]
        if files:
            counts[name] = {"seen": sum(sound.digest in trained for sound in files), "of": len(files)}
    return counts
