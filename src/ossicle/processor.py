"""Text and audio to model inputs: every `<audio>` tag becomes its clip's slots and one marker.

    "<audio>What do you hear?"  ──►  [slot]·n [marker] What do you hear ?        n = 0 unless a stream is prepended

`n` comes from the streams' plans, so the model never receives another number of slots than it makes tokens. Audio is
passed as samples; front ends live in the encoders.
"""

from __future__ import annotations

import ossicle.lean  # noqa: F401  # isort: skip  (before transformers, which then imports less)

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from ossicle import streams as stream_plans
from ossicle.audio.io import load_audio
from ossicle.chat import AUDIO_TAG, flatten, pieces, render
from ossicle.errors import DataError
from ossicle.loss import IGNORE
from ossicle.model import AudioLMConfig
from ossicle.types import SAMPLE_RATE_HZ, Waveform

MARKER_TOKEN = "<|audio|>"
SLOT_TOKEN = "<|audio_slot|>"


class AudioProcessor(ProcessorMixin):
    """Tokenizer plus the streams' token arithmetic.

    Args:
        tokenizer: The decoder's tokenizer, with both special tokens in its vocabulary.
        streams: The model's `config.streams`.
        audio_token: Marker of a clip.
        audio_slot_token: Row that audio replaces.
        chat_template: Used instead of the tokenizer's own.
    """

    tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        tokenizer: Any = None,
        streams: list[dict[str, Any]] | None = None,
        audio_token: str = MARKER_TOKEN,
        audio_slot_token: str = SLOT_TOKEN,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(tokenizer, chat_template=chat_template or getattr(tokenizer, "chat_template", None))
        self.streams = streams or []
        self.audio_token, self.audio_slot_token = audio_token, audio_slot_token
        self._plans = stream_plans.plan(self.streams) if self.streams else []
        self.hides_marker = any(getattr(plan.integration, "marker", "seen") == "hidden" for plan in self._plans)
        self.audio_token_id = tokenizer.convert_tokens_to_ids(audio_token)
        self.audio_slot_id = tokenizer.convert_tokens_to_ids(audio_slot_token)

    @staticmethod
    def add_tokens(tokenizer: Any) -> tuple[int, int]:
        """Add the marker and the slot to a tokenizer where they are missing; return their ids."""
        tokenizer.add_special_tokens(
            {"additional_special_tokens": [MARKER_TOKEN, SLOT_TOKEN]}, replace_extra_special_tokens=False
        )
        return tokenizer.convert_tokens_to_ids(MARKER_TOKEN), tokenizer.convert_tokens_to_ids(SLOT_TOKEN)

    def num_slots(self, num_samples: int) -> int:
        """Return how many rows of text a clip of `num_samples` at 16 kHz takes."""
        return sum(plan.num_slots(num_samples) for plan in self._plans)

    def encoders(self) -> dict[str, Any]:
        """Return the settings of every encoder, by the stream that owns it."""
        return {plan.name: plan.encoder for plan in self._plans if plan.owner == plan.name}

    def expand(self, text: str, lengths: Sequence[int]) -> str:
        """Return the text with each `<audio>` tag replaced by its clip's slots and marker.

        Raises:
            DataError: Another number of tags than clips, or the text holds the special tokens itself.
        """
        parts = text.split(AUDIO_TAG)
        if len(parts) - 1 != len(lengths):
            raise DataError(f"the text has {len(parts) - 1} {AUDIO_TAG} tags, but {len(lengths)} clips were given")
        if any(token in text for token in (self.audio_token, self.audio_slot_token)):
            raise DataError(f"the text holds the special token {self.audio_token} itself; write {AUDIO_TAG} for a clip")
        out = parts[0]
        for part, length in zip(parts[1:], lengths, strict=True):
            out += self.audio_slot_token * self.num_slots(length) + self.audio_token + part
        return out

    def __call__(  # type: ignore[override]
        self,
        text: str | list[str] | None = None,
        audio: Any = None,
        *,
        sampling_rate: int = SAMPLE_RATE_HZ,
        return_tensors: Literal["pt"] = "pt",
        padding: bool = True,
        padding_side: Literal["left", "right"] = "left",
    ) -> BatchFeature:
        """Return model inputs for prompts that are already rendered.

        Args:
            text: One or more prompts with one `<audio>` tag per clip.
            audio: Clips in the order of their tags: paths, bytes, arrays at `sampling_rate`, or `Waveform`s.
            sampling_rate: Rate of plain arrays in Hz.
            return_tensors: Only `pt`.
            padding: Only True: rows are padded to the longest.
            padding_side: Left to generate, right to train.

        Returns:
            `input_ids`, `attention_mask`, and with audio `audio_values` (C, S), `audio_lengths` (C,).

        Raises:
            DataError: Tags and clips do not match, or no text.
            AudioError: A clip that cannot be read.
        """
        if text is None or return_tensors != "pt" or not padding:
            raise DataError("the processor needs text=…, return_tensors='pt' and padding=True")
        rows = [text] if isinstance(text, str) else list(text)
        audio_inputs = self.audio_inputs(audio, sampling_rate=sampling_rate)
        left = audio_inputs["audio_lengths"].tolist() if audio_inputs else []
        if sum(row.count(AUDIO_TAG) for row in rows) != len(left):
            tags = sum(row.count(AUDIO_TAG) for row in rows)
            raise DataError(f"the text has {tags} {AUDIO_TAG} tags, but {len(left)} clips were given")
        encoded = []
        for row in rows:
            count = row.count(AUDIO_TAG)
            encoded.append(self.ids(self.expand(row, left[:count])))
            left = left[count:]
        return BatchFeature({**self.pad(encoded, side=padding_side), **audio_inputs})

    def ids(self, text: str) -> list[int]:
        """Return the token ids of rendered text, without further special tokens."""
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def audio_inputs(self, audio: Any, *, sampling_rate: int = SAMPLE_RATE_HZ) -> dict[str, Tensor]:
        """Return `audio_values` (C, S) and `audio_lengths` (C,), or nothing without audio."""
        if audio is None:
            return {}
        items = list(audio) if isinstance(audio, (list, tuple)) else [audio]
        if not items:
            return {}
        waves = [as_samples(item, sampling_rate) for item in items]
        lengths = [len(wave) for wave in waves]
        values = torch.zeros(len(waves), max(lengths))
        for row, wave in enumerate(waves):
            values[row, : len(wave)] = torch.from_numpy(wave)
        return {"audio_values": values, "audio_lengths": torch.tensor(lengths)}

    def pad(self, rows: Sequence[Sequence[int]], *, side: Literal["left", "right"] = "left") -> dict[str, Tensor]:
        """Return `input_ids` and `attention_mask` (B, L) of rows of ids; a hidden marker is masked."""
        width = max(map(len, rows))
        filler = self.tokenizer.pad_token_id if self.tokenizer.pad_token_id is not None else 0
        ids, mask = torch.full((len(rows), width), filler), torch.zeros(len(rows), width, dtype=torch.long)
        for index, row in enumerate(rows):
            place = slice(width - len(row), width) if side == "left" else slice(0, len(row))
            ids[index, place] = torch.tensor(list(row), dtype=torch.long)
            mask[index, place] = 1
        if self.hides_marker:
            mask[ids == self.audio_token_id] = 0
        return {"input_ids": ids, "attention_mask": mask}

    def chat(self, conversations: Sequence[Sequence[dict[str, Any]]], audio: Any = None, **kwargs: Any) -> BatchFeature:
        """Return model inputs to answer conversations.

        Args:
            conversations: One list of messages per row; content is text with `<audio>` tags or typed parts.
            audio: Clips of all rows in order, where the messages do not carry them.
            **kwargs: As for calling the processor.
        """
        texts, carried = [], []
        for messages in conversations:
            plain, audios = flatten(messages)
            texts.append(render(self.tokenizer, plain, prompt=True, chat_template=self.chat_template))
            carried += audios
        given = list(audio) if isinstance(audio, (list, tuple)) else [] if audio is None else [audio]
        if carried and given:
            raise DataError("audio is given both in the messages and as audio=…; give it once")
        return self(text=texts, audio=carried or given or None, **kwargs)

    def prompt_ids(self, messages: Sequence[dict[str, Any]], lengths: Sequence[int]) -> list[int]:
        """Return the token ids of a conversation to answer.

        Args:
            messages: Plain messages with `<audio>` tags.
            lengths: Samples of each clip at 16 kHz.
        """
        return self.ids(
            self.expand(render(self.tokenizer, messages, prompt=True, chat_template=self.chat_template), lengths)
        )

    def training_ids(
        self,
        messages: Sequence[dict[str, Any]],
        lengths: Sequence[int],
        *,
        loss_on: Literal["assistant", "all"] = "assistant",
    ) -> tuple[list[int], list[int]]:
        """Return token ids and labels of one conversation.

        Args:
            messages: Plain messages with `<audio>` tags, answers included.
            lengths: Samples of each clip at 16 kHz.
            loss_on: Which text gives loss; audio slots and markers never do.

        Returns:
            Ids and labels of the same length, -100 = no loss.
        """
        ids: list[int] = []
        labels: list[int] = []
        left = list(lengths)
        for text, gives_loss in _joined(
            pieces(self.tokenizer, messages, loss_on=loss_on, chat_template=self.chat_template)
        ):
            count = text.count(AUDIO_TAG)
            part = self.ids(self.expand(text, left[:count]))
            left = left[count:]
            ids += part
            quiet = (self.audio_token_id, self.audio_slot_id)
            labels += [token if gives_loss and token not in quiet else IGNORE for token in part]
        if left:
            raise DataError(f"{len(lengths)} clips were given, but {len(left)} of them have no {AUDIO_TAG} tag")
        return ids, labels


def _joined(parts: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Return pieces of text with neighbours of one kind joined, so that they are tokenized as one text."""
    out: list[tuple[str, bool]] = []
    for text, gives_loss in parts:
        if out and out[-1][1] == gives_loss:
            text = out.pop()[0] + text
        out.append((text, gives_loss))
    return out


def as_samples(item: Any, sampling_rate: int) -> np.ndarray:
    """Return one clip as (S,) float32 at 16 kHz."""
    if isinstance(item, Waveform) and item.sample_rate_hz == SAMPLE_RATE_HZ:
        return np.ascontiguousarray(item.samples, dtype=np.float32)
    if isinstance(item, Waveform):
        item, sampling_rate = item.samples, item.sample_rate_hz
    if isinstance(item, (np.ndarray, Tensor)):
        item = (item, sampling_rate)
    return load_audio(item).samples


AutoProcessor.register(AudioLMConfig, AudioProcessor)
