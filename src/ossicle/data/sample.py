"""One sample: a conversation about zero or more audios.

    {"messages": [{"role": "user", "content": "<audio>What is this?"}, {"role": "assistant", "content": "Rain."}],
     "audios": ["rain.wav"]}

One `<audio>` tag per audio, in order. Source: the messages form of ms-swift, which other tools read too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from ossicle.chat import AUDIO_TAG
from ossicle.errors import AudioError, DataError
from ossicle.types import SAMPLE_RATE_HZ, Waveform


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioRef:
    """A recording on disk, or a span of one; decoded when it is needed.

    Attributes:
        path: The file.
        start_s: Where the span begins.
        end_s: Where it ends; None = the end of the file.
    """

    path: Path
    start_s: float = 0.0
    end_s: float | None = None

    def load(self) -> Waveform:
        """Decode to 16 kHz mono.

        Raises:
            AudioError: Not there, or not decodable.
        """
        from ossicle.audio.io import load_audio

        duration_s = None if self.end_s is None else self.end_s - self.start_s
        return load_audio(self.path, start_s=self.start_s, duration_s=duration_s)

    def identity(self) -> str:
        """Return what changes when the audio does, without decoding it.

        Raises:
            AudioError: The file is not there.
        """
        try:
            facts = self.path.stat()
        except OSError as error:
            raise AudioError(f"{self.path}: cannot be read ({error.strerror})") from None
        return f"{self.path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{self.start_s}|{self.end_s}"


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeAudio:
    """Audio that a generator makes when it is needed.

    Attributes:
        make: Returns the waveform, the same one every time.
        name: What changes when the audio does: generator, settings, number.
    """

    make: Callable[[], Waveform]
    name: str

    def load(self) -> Waveform:
        """Make it."""
        return self.make()

    def identity(self) -> str:
        """Return `name`."""
        return self.name


InputMode = Literal["joint", "audio_only", "text_only"]
"""What the decoder gets: audio and transcript, audio alone, or the transcript alone (LTU-AS's three input modes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureFile:
    """Encoder outputs of a recording on disk, as LTU-AS keeps them: (layers, tokens, width) under `arr_0` of an npz.

    Attributes:
        path: The file.
    """

    path: Path

    def load(self) -> Waveform:
        """Refuse: there is no sound in it.

        Raises:
            AudioError: Always.
        """
        raise AudioError(
            f"{self.path}: holds features, not sound; only next_token and tagging on a frozen encoder take it"
        )

    def read(self) -> np.ndarray:
        """Return (layers, tokens, width) float32.

        Raises:
            AudioError: Not there, not an npz, no `arr_0`, or not three dimensions of real numbers.
        """
        import zipfile

        try:
            with np.load(self.path, allow_pickle=False) as content:
                values = content["arr_0"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise AudioError(f"{self.path}: no features can be read: expected an npz with 'arr_0' ({error})") from None
        if values.ndim != 3 or values.dtype.kind != "f" or not np.isfinite(values).all():
            raise AudioError(f"{self.path}: {values.dtype} {values.shape}, expected finite (layers, tokens, width)")
        return np.asarray(values, dtype=np.float32)

    def identity(self) -> str:
        """Return what changes when the features do."""
        return AudioRef(path=self.path).identity()


Audio = AudioRef | MadeAudio | FeatureFile | Waveform
"""On disk, to be made, encoded before, or in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A conversation and its audios.

    Attributes:
        messages: Mappings with `role` (system, user, assistant) and `content` (text with `<audio>` tags).
        audios: One for each tag, in order: on disk, to be made, or in memory.
        id: Name for messages to people: `file:line`, or generator and number.
        label: The plain class behind the answer, where there is one.
    """

    messages: tuple[dict[str, str], ...]
    audios: tuple[Audio, ...] = ()
    id: str = ""
    label: str | None = None

    def without_audio(self) -> Sample:
        """Return the same conversation with tags and audios taken out."""
        silent = tuple({**turn, "content": turn["content"].replace(AUDIO_TAG, "").lstrip()} for turn in self.messages)
        return replace(self, messages=silent, audios=())

    def in_mode(self, mode: InputMode) -> Sample:
        """Return the same conversation without its transcripts (`audio_only`) or without its audio (`text_only`)."""
        if mode == "audio_only":
            turns = ({key: value for key, value in turn.items() if key != "transcript"} for turn in self.messages)
            return replace(self, messages=tuple(turns))
        return self.without_audio() if mode == "text_only" else self


def question(text: str, answer: str, audios: Sequence[Audio], **more: str | None) -> Sample:
    """Return the usual sample: every audio, then one question, then its answer.

    Example:
        >>> question("What is this?", "Rain.", []).messages[1]["content"]
        'Rain.'
    """
    turns = (
        {"role": "user", "content": AUDIO_TAG * len(audios) + text},
        {"role": "assistant", "content": answer},
    )
    return Sample(messages=turns, audios=tuple(audios), **more)  # type: ignore[arg-type]


def check(sample: Sample) -> Sample:
    """Return the sample if its tags and roles fit.

    Raises:
        DataError: Another number of tags than audios, no assistant turn, or an unknown role.
    """
    tags = sum(turn["content"].count(AUDIO_TAG) for turn in sample.messages)
    if tags != len(sample.audios):
        raise DataError(f"{tags} {AUDIO_TAG} tags for {len(sample.audios)} audios")
    strange = {turn["role"] for turn in sample.messages} - {"system", "user", "assistant"}
    if strange:
        raise DataError(f"role '{sorted(strange)[0]}', expected system, user or assistant")
    if not any(turn["role"] == "assistant" for turn in sample.messages):
        raise DataError("no assistant turn to learn from")
    return sample


def waveform(audio: Audio) -> Waveform:
    """Return the audio in memory."""
    return audio if isinstance(audio, Waveform) else audio.load()


def identity(audio: Audio) -> str:
    """Return a hash that changes when the audio does."""
    if not isinstance(audio, Waveform):
        return hashlib.blake2b(audio.identity().encode(errors="surrogateescape"), digest_size=16).hexdigest()
    rate = "" if audio.sample_rate_hz == SAMPLE_RATE_HZ else f"@{audio.sample_rate_hz}"
    return hashlib.blake2b(audio.samples.tobytes(), digest_size=16).hexdigest() + rate
