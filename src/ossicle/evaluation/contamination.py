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
from ossicle.data.readers import read_row
from ossicle.data.rows import numbered_lines
from ossicle.errors import DataError
from ossicle.evaluation.task import Task

logger = logging.getLogger(__name__)


def file_hashes(folders: Iterable[Path]) -> set[str]:
    """Return the hashes of all recordings under some folders, or named by training manifests.

    A manifest is JSON lines with `sha256`, `path`, or in any style that training reads; paths start from its folder.

    Raises:
        DataError: One of them is neither, a row names no recording, or a manifest only files that are not there.
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
        named = _named(line, f"{manifest}:{number}")
        if isinstance(named, str):
            found.add(named)
            continue
        for name in named:
            path = manifest.parent / name
            if path.is_file():
                found.add(hashlib.sha256(path.read_bytes()).hexdigest())
            else:
                lost.append(name)
    if lost and not found:
        raise DataError(f"{manifest}: none of its {len(lost)} recordings is there, as {lost[0]}; nothing to compare")
    if lost:
        logger.warning("%s: %d recordings are not there and were not compared, as %s", manifest, len(lost), lost[0])
    return found


def _named(line: str, where: str) -> str | list[str]:
    """Return the hash that a line of a manifest brings, or the recordings that it names."""
    try:
        row = json.loads(line)
        if "sha256" in row:
            return str(row["sha256"])
        audios = [row["path"]] if "path" in row else row["audios"] if "audios" in row else read_row(row)[1]
        return [str(audio["path"] if isinstance(audio, dict) else audio) for audio in audios]
    except (DataError, KeyError, TypeError, ValueError):
        expected = "'audios', 'path', 'sha256', or a row that training reads"
        raise DataError(f"{where}: names no recording; expected an object with {expected}") from None


def contamination(tasks: Mapping[str, Task], trained: set[str]) -> dict[str, dict[str, int]]:
    """Return, for each task over recordings, how many of its files were also trained on."""
    counts = {}
    for name, task in tasks.items():
        files = [sound for sound in task.sounds.values() if sound.path is not None]
        if files:
            counts[name] = {"seen": sum(sound.digest in trained for sound in files), "of": len(files)}
    return counts
