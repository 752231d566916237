"""Transcripts beside the audio: from a Whisper decoder, or from the CTC head that comes with nano.

    clip ──► Whisper (30 s windows) | nano's speech encoder, CTC words ──► text ──clean──► the prompt's Input block

A clip is transcribed once. Without speech there is no text, and the block is left out. Source: LTU-AS (arXiv
2309.14405): transcript and audio tokens side by side; the CTC way is our choice for nano.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ossicle.data.sample import InputMode
from ossicle.data.transcripts import Order, clean
from ossicle.errors import CheckpointError, ConfigError
from ossicle.processor import as_samples
from ossicle.types import SAMPLE_RATE_HZ, Waveform

WINDOW_S = 30
KEPT = 100_000
"""Transcripts kept in memory."""


class Transcriber:
    """Makes transcripts and remembers them. Subclasses implement `read`."""

    def __init__(self, order: Order = "training") -> None:
        self.order = order
        self._kept: OrderedDict[object, str] = OrderedDict()

    def read(self, samples: np.ndarray) -> str:
        """Return what is said in (S,) samples at 16 kHz."""
        raise NotImplementedError

    def __call__(self, wave: Waveform) -> str:
        """Return the cleaned transcript of a clip."""
        samples = as_samples(wave, wave.sample_rate_hz)
        return self.kept(hash(samples.tobytes()), lambda: samples)

    def kept(self, key: object, load: Callable[[], np.ndarray]) -> str:
        """Return the cleaned transcript of the clip that `key` stands for; it is loaded only when it is new."""
        if key not in self._kept:
            self._kept[key] = clean(self.read(load()), self.order)
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        return self._kept[key]


class CtcTranscriber(Transcriber):
    """nano's speech encoder and its words.

    Args:
        folder: Model folder that holds `words.safetensors`; None = nano's.
        order: See `data.transcripts`.
    """

    def __init__(self, folder: Path | None = None, order: Order = "training") -> None:
        super().__init__(order)
        from safetensors import safe_open

        from ossicle.encoders.base import build_encoder

        folder = folder or Path(__file__).parent.parent / "nano"
        path = folder / "words.safetensors"
        if not path.is_file():
            raise CheckpointError(f"'{folder}' holds no words.safetensors, the CTC head that reads words; use nano's")
        with safe_open(path, framework="pt") as head:
            facts = head.metadata()
            self.weight, self.bias = head.get_tensor("ctc.weight").float(), head.get_tensor("ctc.bias").float()
        self.words, self.blank = json.loads(facts["words"]), int(facts["blank"])
        stream = facts["stream"]
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))["streams"]
        self.encoder = build_encoder(next(part["encoder"] for part in settings if part["name"] == stream)).eval()
        prefix = f"streams.{stream}.encoder."
        with safe_open(folder / "model.safetensors", framework="pt") as model:
            names = [name for name in model.keys() if name.startswith(prefix)]  # noqa: SIM118 (not a mapping)
            self.encoder.load_state_dict({name[len(prefix) :]: model.get_tensor(name).float() for name in names})

    @torch.inference_mode()
    def read(self, samples: np.ndarray) -> str:
        """Return the words on the best path, repeats merged."""
        tokens = self.encoder(torch.from_numpy(samples)[None].float(), torch.tensor([len(samples)]))
        path = (tokens.values[0][tokens.valid[0]] @ self.weight.T + self.bias).argmax(-1).tolist()
        changes = [b for i, b in enumerate(path) if b != self.blank and (i == 0 or path[i - 1] != b)]
        after = 1 if self.blank == 0 else 0
        return " ".join(self.words[best - after] for best in changes)


class WhisperTranscriber(Transcriber):
    """A whole Whisper, encoder and decoder, from a folder or a hub id.

    Args:
        name: Folder or hub id.
        order: See `data.transcripts`.

    Raises:
        CheckpointError: It cannot be read.
    """

    def __init__(self, name: str, order: Order = "training") -> None:
        super().__init__(order)
        from transformers import AutoTokenizer, WhisperForConditionalGeneration

        try:
            model: Any = WhisperForConditionalGeneration.from_pretrained(name, use_safetensors=True)
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"Whisper '{name}' cannot be read: {str(error).splitlines()[0]}") from None
        self.model = model.eval()

    @torch.inference_mode()
    def read(self, samples: np.ndarray) -> str:
        """Return the text of all windows, joined as it comes."""
        from ossicle.audio.features import whisper_log_mel

        size = WINDOW_S * SAMPLE_RATE_HZ
        parts = []
        for start in range(0, max(1, len(samples)), size):
            window: Tensor = torch.from_numpy(samples[start : start + size])[None].float()
            mel = whisper_log_mel(window, num_mels=self.model.config.num_mel_bins, num_samples=size)
            ids = self.model.generate(input_features=mel, max_new_tokens=self._room())
            parts.append(str(self.tokenizer.decode(ids[0], skip_special_tokens=True)))
        return "".join(parts)

    def _room(self) -> int:
        return int(self.model.config.max_target_positions) - 8


def open_transcriber(name: str | None, order: Order = "training") -> Transcriber | None:
    """Return what `ctc`, or the folder or hub id of a Whisper, stands for; None for None.

    Raises:
        CheckpointError: A Whisper that cannot be read.
    """
    if not name:
        return None
    return CtcTranscriber(order=order) if name == "ctc" else WhisperTranscriber(name, order)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearing:
    """What of a clip reaches the decoder when it is asked.

    Attributes:
        mode: Audio and transcript, audio alone, or the transcript alone.
        transcriber: Makes transcripts; None = there are none.
        given: A transcript that is known already.
    """

    mode: InputMode = "joint"
    transcriber: Transcriber | None = None
    given: str = ""

    def transcript(self, wave: Waveform | None) -> str:
        """Return the transcript that goes into the prompt about a clip."""
        if wave is None or self.mode == "audio_only":
            return ""
        return self.given or (self.transcriber(wave) if self.transcriber is not None else "")


def check_mode(mode: str, *, readable: bool) -> None:
    """Raise where there is no such mode, or nothing to read in `text_only`.

    Raises:
        ConfigError: In one line.
    """
    if mode not in ("joint", "audio_only", "text_only"):
        raise ConfigError(f"--input-mode {mode}: expected joint, audio_only or text_only")
    if mode == "text_only" and not readable:
        raise ConfigError("--input-mode text_only: there is nothing to read; add --transcribe ctc or a Whisper folder")


def hearing(mode: str, transcribe: str | None = None, given: str = "") -> Hearing:
    """Return how to hear, checked.

    Args:
        mode: `joint`, `audio_only` or `text_only`.
        transcribe: `ctc`, or the folder or hub id of a Whisper; None = no transcripts are made.
        given: A transcript that is known already.

    Raises:
        ConfigError: No such mode, or `text_only` with nothing to read.
    """
    check_mode(mode, readable=bool(transcribe or given))
    transcriber = None if mode == "audio_only" or given else open_transcriber(transcribe)
    return Hearing(mode=mode, transcriber=transcriber, given=given)  # type: ignore[arg-type]
