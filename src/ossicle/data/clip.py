"""A clip: one stretch of one recording and everything its owner says about it.

Adapters turn a dataset's layout into clips; questions, training and evaluation start from clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossicle.types import Waveform

CLIP_NAME = "clip_name"
"""Column with a clip's name inside its set, where the file's own name is also another clip's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """One labelled stretch of audio.

    Attributes:
        path: The sound file.
        source: Name of the set it comes from, for example `esc10`.
        start_s: Where the stretch begins in the file.
        duration_s: Its length in seconds, None = to the end of the file.
        labels: What can be heard, most important first.
        transcript: The words spoken, or None.
        speaker: Who speaks, or None.
        gender: `female` or `male`, or None.
        emotion: Acted or judged emotion, or None.
        language: ISO 639 code of the speech, or None.
        age: Age in years as its owner writes it (`31`, `50-70`), or None.
        sentiment: Judged sentiment as its owner writes it, or None.
        genres: Of music, most important first.
        title: Of music, or None.
        captions: Sentences that describe the stretch.
        events: (label, first second, last second) of each sound, where the owner says so.
        pitch: Note name of a musical sound, or None.
        group: What must not lie on both sides of a split: a speaker, fold or source recording; None = the clip itself.
        split: The split its owner put it in, or None.
        licence: Licence of the recording.
        attribution: Credit that must travel with the recording.
        recording: Name of the longer recording that the stretch was cut from, where another set may hold it too.
        facts: What was measured, name to number; see `data.describe`.
        extra: The owner's other columns.
    """

    path: Path
    source: str
    start_s: float = 0.0
    duration_s: float | None = None
    labels: tuple[str, ...] = ()
    transcript: str | None = None
    speaker: str | None = None
    gender: str | None = None
    emotion: str | None = None
    language: str | None = None
    age: str | None = None
    sentiment: str | None = None
    genres: tuple[str, ...] = ()
    title: str | None = None
    captions: tuple[str, ...] = ()
    events: tuple[tuple[str, float, float], ...] = ()
    pitch: str | None = None
    group: str | None = None
    split: str | None = None
    licence: str | None = None
    attribution: str | None = None
    recording: str | None = None
    facts: dict[str, float] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the clip's name inside its set: file name without suffix, and the start of a later stretch."""
        name = str(self.extra.get(CLIP_NAME) or self.path.stem)
        return f"{name}@{self.start_s:g}" if self.start_s else name

    @property
    def key(self) -> str:
        """Return a name that no other clip of any set has."""
        return f"{self.source}/{self.name}"

    def read(self) -> Waveform:
        """Return the samples of the stretch.

        Raises:
            AudioError: The file cannot be read.
        """
        from ossicle.audio.io import load_audio

        return load_audio(self.path, start_s=self.start_s, duration_s=self.duration_s)
