"""Two rivals that every table shows: a transcriber followed by a text model, and a text model told the truth's tags.

    cascade    sound ──Whisper──► transcript ─┐
                                              ├─► "… transcript … question" ──text LM──► answer
    tags       sound's own labels ────────────┘      (what a text model could say if hearing were perfect)

A model that does not beat the cascade on speech has learnt nothing that Whisper does not know; the distance to `tags`
is what is lost in hearing. Without a sound both are asked the question alone.
Source: our choice.
"""

from __future__ import annotations

import hashlib
import io
import json
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import soundfile
import torch

from ossicle.errors import CheckpointError, ConfigError, DataError
from ossicle.evaluation.audio_lms import Said
from ossicle.evaluation.remote import TIMEOUT_S, Remote, remote_named
from ossicle.evaluation.task import Sound
from ossicle.inference.engine import choose_device, choose_dtype
from ossicle.types import SAMPLE_RATE_HZ, Waveform

HEARD = 'A recording was transcribed as: "{text}"\n{question}'
TOLD = "A recording holds: {text}\n{question}"
LONGEST_TRANSCRIPT = 200
WINDOW_S = 30

Say = Callable[[Sequence[str], int], list[str]]
"""Prompts, longest answer in tokens → answers."""


class TextModel:
    """A language model without ears, in a folder or on the hub."""

    def __init__(self, name: str, *, device: str = "auto", dtype: str = "auto") -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        place = choose_device(device)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(name, padding_side="left")
            model = AutoModelForCausalLM.from_pretrained(name, dtype=choose_dtype(dtype, place))
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise CheckpointError(f"text model '{name}': cannot load it ({first}); expected a causal LM") from None
        self.model = model.to(place).eval()
        if self.tokenizer.pad_token_id is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        """Return one answer per prompt; the tokenizer's chat template is used where it has one."""
        texts = list(prompts)
        if self.tokenizer.chat_template:
            turns = [[{"role": "user", "content": text}] for text in texts]
            texts = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        inputs = self.tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        inputs = inputs.to(self.model.device)
        out = self.model.generate(
            input_ids=inputs["input_ids"],
            attention_mask=inputs["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=False,
            pad_token_id=self.tokenizer.pad_token_id,
        )
        said = self.tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in said]


class Transcriber:
    """Whisper (or another transcriber of transformers): sounds → words, 30 s at a time."""

    def __init__(self, name: str, *, device: str = "auto", dtype: str = "auto") -> None:
        from transformers import AutoModelForSpeechSeq2Seq, AutoProcessor

        place = choose_device(device)
        try:
            self.processor = AutoProcessor.from_pretrained(name)
            model = AutoModelForSpeechSeq2Seq.from_pretrained(name, dtype=choose_dtype(dtype, place))
        except (OSError, ValueError, KeyError) as error:
            first = str(error).strip().splitlines()[0]
            raise CheckpointError(
                f"transcriber '{name}': cannot load it ({first}); expected a Whisper folder"
            ) from None
        self.model = model.to(place).eval()

    @torch.inference_mode()
    def __call__(self, waves: Sequence[Waveform]) -> list[str]:
        """Return the words of each sound."""
        size = WINDOW_S * SAMPLE_RATE_HZ
        pieces = [(i, w.samples[s : s + size]) for i, w in enumerate(waves) for s in range(0, len(w.samples), size)]
        features = self.processor(
            [piece for _, piece in pieces], sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt"
        ).input_features.to(self.model.device, self.model.dtype)
        longest = min(LONGEST_TRANSCRIPT, getattr(self.model.config, "max_target_positions", 448) // 2)
        ids = self.model.generate(features, max_new_tokens=longest, do_sample=False)
        words: list[list[str]] = [[] for _ in waves]
        for (index, _), text in zip(pieces, self.processor.batch_decode(ids, skip_special_tokens=True), strict=True):
            words[index].append(text.strip())
        return [" ".join(parts) for parts in words]


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteTranscriber:
    """An OpenAI-compatible `/audio/transcriptions` endpoint.

    Attributes:
        remote: Where it is, and which model.
    """

    remote: Remote

    def __call__(self, waves: Sequence[Waveform]) -> list[str]:
        """Return the words of each sound.

        Raises:
            DataError: The endpoint does not answer as expected.
        """
        return [self._one(wave) for wave in waves]

    def _one(self, wave: Waveform) -> str:
        buffer = io.BytesIO()
        soundfile.write(buffer, wave.samples, wave.sample_rate_hz, format="WAV", subtype="PCM_16")
        edge = uuid.uuid4().hex
        head = (
            f'--{edge}\r\nContent-Disposition: form-data; name="model"\r\n\r\n{self.remote.model}\r\n--{edge}\r\n'
            'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
        )
        body = head.encode() + buffer.getvalue() + f"\r\n--{edge}--\r\n".encode()
        headers = {"Content-Type": f"multipart/form-data; boundary={edge}"}
        if self.remote.key:
            headers["Authorization"] = f"Bearer {self.remote.key}"
        url = f"{self.remote.url.rstrip('/')}/audio/transcriptions"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=TIMEOUT_S) as reply:
                return str(json.loads(reply.read())["text"]).strip()
        except (urllib.error.URLError, TimeoutError, KeyError, json.JSONDecodeError) as error:
            raise DataError(f"{url}: {error}; expected an OpenAI-compatible transcription endpoint") from None


class Cascade:
    """Transcribe, then ask a text model; every sound is transcribed once.

    Args:
        transcribe: Sounds → words.
        say: The text model.
    """

    setting = "cascade: transcriber, then text model"

    def __init__(self, transcribe: Callable[[Sequence[Waveform]], list[str]], say: Say) -> None:
        self.transcribe, self.say = transcribe, say
        self.heard: dict[bytes, str] = {}

    def answer(
        self, items: Sequence[tuple[Waveform | None, str]], *, max_new_tokens: int, batch_size: int = 8
    ) -> list[Said]:
        """Return one reply per item, in order."""
        waves = {_mark(wave): wave for wave, _ in items if wave is not None}
        new = [mark for mark in waves if mark not in self.heard]
        for start in range(0, len(new), batch_size):
            part = new[start : start + batch_size]
            self.heard.update(zip(part, self.transcribe([waves[mark] for mark in part]), strict=True))
        prompts = [
            question if wave is None else HEARD.format(text=self.heard[_mark(wave)], question=question)
            for wave, question in items
        ]
        return _in_batches(self.say, prompts, max_new_tokens, batch_size)


class OracleTags:
    """A text model that is told what is in the sound, by the labels of the set.

    Args:
        say: The text model.
    """

    setting = "tags: the set's own labels, then text model"

    def __init__(self, say: Say) -> None:
        self.say = say

    def perceive(self, sound: Sound) -> str:
        """Return what this model gets of a sound: its labels."""
        return sound.tags

    def answer(
        self, items: Sequence[tuple[str | None, str]], *, max_new_tokens: int, batch_size: int = 8
    ) -> list[Said]:
        """Return one reply per item, in order."""
        prompts = [q if not tags else TOLD.format(text=tags, question=q) for tags, q in items]
        return _in_batches(self.say, prompts, max_new_tokens, batch_size)


def _mark(wave: Waveform) -> bytes:
    return hashlib.sha256(wave.samples.tobytes()).digest()


def _in_batches(say: Say, prompts: Sequence[str], max_new_tokens: int, batch_size: int) -> list[Said]:
    starts = range(0, len(prompts), batch_size)
    return [Said(text=text) for s in starts for text in say(prompts[s : s + batch_size], max_new_tokens)]


def text_model(name: str, *, key: str = "", **place: str) -> Say:
    """Return the text model of a folder, a hub name, or `https://host/v1#model`."""
    if name.startswith(("http://", "https://")):
        remote = remote_named(name, key=key)
        return lambda prompts, longest: [remote.say(prompt, longest) for prompt in prompts]
    return TextModel(name, **place)


def transcriber_named(name: str, *, key: str = "", **place: str) -> Callable[[Sequence[Waveform]], list[str]]:
    """Return the transcriber of a folder, a hub name, or `https://host/v1#model`."""
    if name.startswith(("http://", "https://")):
        return RemoteTranscriber(remote=remote_named(name, key=key))
    return Transcriber(name, **place)


def rival(spec: str, *, key: str = "", **place: str) -> tuple[Any, dict[str, Any]]:
    """Return the answerer of `cascade:TRANSCRIBER+TEXT_MODEL` or `tags:TEXT_MODEL`, and what the card says of it.

    Args:
        spec: Each model is a folder, a hub name, or `https://host/v1#model`.
        key: Bearer token for endpoints.
        **place: `device` and `dtype` of local models.

    Raises:
        ConfigError: Neither form.
    """
    kind, _, rest = spec.partition(":")
    first, plus, second = rest.partition("+")
    if kind == "tags" and rest:
        return OracleTags(text_model(rest, key=key, **place)), {"name": "tags", "text_model": rest, "prompt": TOLD}
    if kind != "cascade" or not (first and plus and second):
        raise ConfigError(f"'{spec}': expected cascade:TRANSCRIBER+TEXT_MODEL or tags:TEXT_MODEL")
    ears = transcriber_named(first, key=key, **place)
    facts = {"name": "cascade", "transcriber": first, "text_model": second, "prompt": HEARD}
    return Cascade(ears, text_model(second, key=key, **place)), facts
