"""Words of the command line to recordings: which of them are audio, which is the question.

    AUDIO… [QUESTION]     the last word is audio when it is a file, folder or `-`, has an audio suffix, or is a glob
                          that finds something; else it is the question

Named files must be readable. In a folder or glob, what cannot be read is skipped, counted and reported.
"""

from __future__ import annotations

import glob
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ossicle.errors import AudioError, UserError
from ossicle.types import Waveform

QUESTION = "What do you hear?"


@dataclass(slots=True)
class Clips:
    """The recordings that were named, and those that a folder or glob held but could not be read."""

    waveforms: list[Waveform] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)


def split_question(words: Sequence[str]) -> tuple[list[str], str]:
    """Return the words that name audio, and the question.

    Raises:
        UserError: No word names audio.
    """
    from ossicle.audio.io import is_audio_path

    *first, last = words
    if is_audio_path(last) or _exists(last) or _found(last):
        return list(words), QUESTION
    if not first:
        raise UserError(
            f"'{last}' is no recording, folder or glob that exists; give one: ossicle ask clip.wav \"{last}\""
        )
    if not last.strip():
        raise UserError(
            'the question is empty; leave it out, or ask something: ossicle ask clip.wav "What do you hear?"'
        )
    return first, last


def list_clips(words: Sequence[str]) -> list[Path]:
    """Return the recordings that the words name, none of them read yet; each once.

    Raises:
        UserError: A named file is missing, or stdin is among them.
    """
    if "-" in words:
        raise UserError("'-': stdin has no name to be taken up by; leave --output away, or give a file")
    return list(dict.fromkeys(path for word in words for path in _expand(word)))


def read_clips(words: Sequence[str]) -> Clips:
    """Read every recording that the words name: files, folders (all below), globs, `-` for stdin.

    Raises:
        UserError: A named file is missing or unreadable, or nothing is left.
    """
    from ossicle.audio.io import load_audio

    clips = Clips()
    for word in words:
        if word == "-":
            clips.waveforms.append(_from_stdin())
            continue
        paths = _expand(word)
        for path in paths:
            try:
                clips.waveforms.append(load_audio(path))
            except AudioError as error:
                if len(paths) == 1:
                    raise
                clips.skipped.append({"path": str(path), "reason": str(error)})
    if not clips.waveforms:
        first = clips.skipped[0]["reason"]
        raise AudioError(f"none of {len(clips.skipped)} recordings could be read; the first: {first}")
    return clips


def _expand(word: str) -> list[Path]:
    """Return the paths that one word names, sorted."""
    from ossicle.audio.io import is_audio_path

    path = Path(word).expanduser()
    if path.is_dir():
        below = sorted(p for p in path.rglob("*") if p.is_file() and is_audio_path(p))
        if not below:
            raise AudioError(
                f"folder '{word}' holds no recordings; expected wav, flac, mp3, ogg, m4a, webm or aiff files"
            )
        return below
    found = _found(word)
    if found and not path.exists():
        return found
    if not path.exists():
        raise AudioError(f"no such recording: '{word}'; give a file, a folder, a glob, or - for stdin")
    return [path]


def _found(word: str) -> list[Path]:
    """Return the files that a glob finds; nothing for a word without `*`, `?` or `[`."""
    if not glob.has_magic(word):
        return []
    matches = glob.glob(str(Path(word).expanduser()), recursive=True)  # noqa: PTH207 - the pattern may be absolute
    return sorted(path for path in map(Path, matches) if path.is_file())


def _exists(word: str) -> bool:
    try:
        return word == "-" or (bool(word) and Path(word).expanduser().exists())  # an empty path is this folder
    except OSError:
        return False  # longer than a file name can be: a question


def _from_stdin() -> Waveform:
    from ossicle.audio.io import load_audio

    data = sys.stdin.buffer.read()
    if not data:
        raise AudioError(
            'stdin is empty; expected the bytes of a recording: cat clip.wav | ossicle ask - "What do you hear?"'
        )
    return replace(load_audio(data), name="-")
