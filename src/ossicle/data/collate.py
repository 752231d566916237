"""Samples to one batch for the model: text with its labels, and audio as samples or as kept encoder outputs.

    samples ──hear──► clips (waveforms | features, length in samples) ──► ids, labels, right-padded ──► Batch

A clip that cannot be read takes its sample out of the batch; it is counted by reason, and bounded. A batch of which
nothing is left is one text without audio and without labels: it counts 0, and its process goes through the model with
the others all the same.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ossicle.audio import chunk
from ossicle.chat import spoken
from ossicle.data import ltu_batch
from ossicle.data.cache import FeatureCache, Features
from ossicle.data.patience import within
from ossicle.data.sample import Audio, FeatureFile, Sample, identity, waveform
from ossicle.errors import AudioError, DataError
from ossicle.loss import IGNORE
from ossicle.processor import AudioProcessor, as_samples
from ossicle.types import AudioTokens

log = logging.getLogger(__name__)

SKIPS_BEFORE_FAILING = 20
"""So many unreadable clips are let pass before their share is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What the model gets.

    Attributes:
        inputs: Keyword arguments of `AudioLM.forward`, labels included.
        count: Label tokens.
        ids: Names of the samples; none where no audio could be read.
    """

    inputs: dict[str, Any]
    count: int
    ids: list[str] = field(default_factory=list)


class Collator:
    """Makes batches.

    Args:
        processor: Of the model.
        loss_on: Which text gives loss.
        cache: Kept encoder outputs; None = audio goes in as samples.
        max_skipped: Share of samples that may be unreadable.
        cutoff_tokens: Text beyond so many tokens is cut off; None = never.
        compat: `ltu` = laid out as the official code does.
        patience_s: Seconds that reading one recording may take; what takes longer is left out as unreadable.
    """

    def __init__(
        self,
        processor: AudioProcessor,
        *,
        loss_on: Literal["assistant", "all"] = "assistant",
        cache: FeatureCache | None = None,
        max_skipped: float = 0.01,
        cutoff_tokens: int | None = None,
        compat: Literal["ltu"] | None = None,
        patience_s: float = 60.0,
    ) -> None:
        self.processor, self.patience_s = processor, patience_s
        self.loss_on = loss_on
        self.cutoff_tokens = cutoff_tokens
        self.compat = compat
        self.cache = cache
        self.max_skipped = max_skipped
        self.skips: Counter[str] = Counter()
        self.seen = 0

    def __call__(self, samples: Sequence[Sample], *, device: torch.device | str = "cpu") -> Batch:
        """Return the batch of these samples.

        Raises:
            DataError: Too many samples were skipped, or a sample's tags and audios do not match.
        """
        heard = [(sample, clips) for sample in samples if (clips := self._hear(sample)) is not None]
        rows = [self._row(sample, [_length(clip) for clip in clips]) for sample, clips in heard]
        if not rows:
            ids, _ = self._row(samples[0].without_audio(), [])
            rows = [(ids, [IGNORE] * len(ids))]
        laid = ltu_batch.lay_out(rows, self.processor) if self.compat == "ltu" else self._padded(rows)
        inputs: dict[str, Any] = {name: tensor.to(device) for name, tensor in laid.items()}
        inputs |= self._audio([clip for _, clips in heard for clip in clips], device)
        count = int((laid["labels"][:, 1:] != IGNORE).sum())
        return Batch(inputs=inputs, count=count, ids=[sample.id for sample, _ in heard])

    def _padded(self, rows: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
        padded = self.processor.pad([ids for ids, _ in rows], side="right")
        labels = torch.full_like(padded["input_ids"], IGNORE)
        for index, (_, row) in enumerate(rows):
            labels[index, : len(row)] = torch.tensor(row)
        return {**padded, "labels": labels}

    def _hear(self, sample: Sample) -> list[np.ndarray | Features] | None:
        """Return the sample's clips, or None when one cannot be read."""
        self.seen += 1
        try:
            return [self._clip(audio) for audio in sample.audios]
        except AudioError as error:
            self.skips[str(error).split(":")[-1].strip()] += 1
            lost = sum(self.skips.values())
            log.warning("sample %s left out: %s", sample.id, error)
            if lost > max(SKIPS_BEFORE_FAILING, self.max_skipped * self.seen):
                raise DataError(f"{lost} of {self.seen} samples have unreadable audio, the last: {error}") from None
            return None

    def _clip(self, audio: Audio) -> np.ndarray | Features:
        if isinstance(audio, FeatureFile):
            return self.features(audio)
        if self.cache is not None:
            return self.cache.get(audio)
        return within(self.patience_s, lambda: as_samples(waveform(audio), 0), identity(audio))

    def features(self, file: FeatureFile) -> Features:
        """Return pre-extracted features as the model's one encoder would give them.

        Raises:
            DataError: The model has several encoders, or they are of another size than the file.
            AudioError: The file cannot be read.
        """
        owners = self.processor.encoders()
        if len(owners) != 1:
            raise DataError(f"{file.path}: features are of one encoder, but the model has {', '.join(owners)}")
        (name, encoder), values = next(iter(owners.items())), file.read()
        facts = encoder.facts()
        tokens = encoder.num_tokens(encoder.window_samples)
        want = (facts.num_layers, tokens, facts.dim // facts.num_layers)
        if values.shape != want:
            raise DataError(f"{file.path}: features are {values.shape}, but encoder '{name}' gives {want}")
        flat = torch.from_numpy(values).transpose(0, 1).flatten(1)
        return Features(num_samples=encoder.window_samples, values={name: flat}, rates_hz={name: facts.rate_hz})

    def _row(self, sample: Sample, lengths: Sequence[int]) -> tuple[list[int], list[int]]:
        messages = [spoken(turn, self.processor.chat_template) for turn in sample.messages]
        try:
            row = self.processor.training_ids(messages, lengths, loss_on=self.loss_on)
        except DataError as error:
            raise DataError(f"sample {sample.id}: {error}") from None
        audio = (self.processor.audio_token_id, self.processor.audio_slot_id)
        return ltu_batch.cut(row, audio, self.cutoff_tokens)

    def _audio(self, clips: Sequence[np.ndarray | Features], device: torch.device | str) -> dict[str, Any]:
        """Return the batch's audio as the model takes it."""
        if not clips:
            return {}
        kept = [clip for clip in clips if isinstance(clip, Features)]
        if not kept:
            waves = [clip for clip in clips if isinstance(clip, np.ndarray)]
            return {name: tensor.to(device) for name, tensor in _samples(waves).items()}
        if len(kept) < len(clips):
            raise DataError("features and recordings cannot share a batch; give every source of the mix 'features'")
        tokens = {}
        for name, rate_hz in kept[0].rates_hz.items():
            values, valid = chunk.pad_rows([clip.values[name].float() for clip in kept])
            tokens[name] = AudioTokens(values=values, valid=valid, rate_hz=rate_hz).to(device=device)
        return {"audio_tokens": tokens}


def _samples(waves: Sequence[np.ndarray]) -> dict[str, Tensor]:
    values = torch.zeros(len(waves), max(map(len, waves)))
    for row, wave in enumerate(waves):
        values[row, : len(wave)] = torch.from_numpy(wave)
    return {"audio_values": values, "audio_lengths": torch.tensor([len(wave) for wave in waves])}


def _length(clip: np.ndarray | Features) -> int:
    return clip.num_samples if isinstance(clip, Features) else len(clip)


def perturb(samples: Sequence[Sample], dropout: float, shuffle: float, rng: np.random.Generator) -> list[Sample]:
    """Return the samples, some without their audio, some with another sample's.

    A model that has never been asked without audio does not know what to say then; with a few such samples its blind
    answer is its prior, which is what an honest control measures.

    Args:
        samples: Of one batch.
        dropout: Share that loses its audio.
        shuffle: Share that hears the audio of the next sample in the batch with as many clips.
        rng: Decides.
    """
    from dataclasses import replace

    out = []
    for index, (sample, chance) in enumerate(zip(samples, rng.random(len(samples)), strict=True)):
        others = [*samples[index + 1 :], *samples[:index]]
        other = next((o for o in others if len(o.audios) == len(sample.audios)), sample)
        if chance < dropout:
            out.append(sample.without_audio())
        elif chance < dropout + shuffle:
            out.append(replace(sample, audios=other.audios))
        else:
            out.append(sample)
    return out
