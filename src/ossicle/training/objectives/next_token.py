"""The language-model loss: each label token is predicted from the audio and the text before it.

    total = − Σ log p(token | audio, text before it)          over label tokens; the loop divides by their global number

Some samples lose their audio, or hear another's, so that a blind answer is the model's prior (`collate.perturb`). With
frozen encoders their tokens may be disturbed, because features of clips seen before are too clean. Source: our choice.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor
from tqdm import tqdm

from ossicle.chat import AUDIO_TAG
from ossicle.data.cache import FeatureCache
from ossicle.data.cache_shard import DTYPES
from ossicle.data.collate import Batch, Collator, perturb
from ossicle.data.sample import Audio, FeatureFile, Sample, identity, waveform
from ossicle.errors import AudioError, ConfigError
from ossicle.inference.transcribe import Transcriber, open_transcriber
from ossicle.processor import as_samples
from ossicle.training import processes
from ossicle.training.freeze import part_of
from ossicle.training.objectives.base import Objective, ObjectiveConfig, StageContext, StepLoss
from ossicle.types import AudioTokens

log = logging.getLogger(__name__)


class NextTokenConfig(ObjectiveConfig):
    """Settings of `next_token`; what disturbs features or shifts time needs frozen encoders.

    Attributes:
        max_skipped: Share of samples whose audio may be unreadable.
        patience_s: Seconds that reading one recording may take before it counts as unreadable.
        feature_dropout: Share of the numbers in encoder tokens set to zero.
        feature_noise: Standard deviation of noise on encoder tokens, relative to theirs.
        frame_dropout: Share of encoder tokens set to zero whole.
        emphasis: Word → factor of the loss of its first token, after a space: where a whole answer hangs on one word,
            as `no` in "rain, then a bell: no", that word would otherwise be one label among many.
        transcribe: What transcribes samples that bring no transcript: `ctc`, or a Whisper folder; None = nothing.
        time_shift_s: A sixth of the batches is heard as if it came later, by up to so many seconds (absolute time).
    """

    kind: str = "next_token"
    max_skipped: float = Field(default=0.01, ge=0, le=1)
    patience_s: float = Field(default=60.0, gt=0)
    feature_dropout: float = Field(default=0.0, ge=0, lt=1)
    feature_noise: float = Field(default=0.0, ge=0)
    frame_dropout: float = Field(default=0.0, ge=0, lt=1)
    time_shift_s: float = Field(default=0.0, ge=0)
    emphasis: dict[str, Annotated[float, Field(gt=0)]] = Field(default={})
    transcribe: str | None = None

    @property
    def disturbs(self) -> bool:
        """Encoder tokens are disturbed."""
        return bool(self.feature_dropout or self.feature_noise or self.frame_dropout or self.time_shift_s)


class NextToken(Objective):
    """Next-token loss over the stage's mix."""

    Config: ClassVar[type[ObjectiveConfig]] = NextTokenConfig
    needs_data: ClassVar[bool] = True

    def __init__(self, config: NextTokenConfig, context: StageContext) -> None:
        super().__init__(config, context)
        stage, model = context.stage, context.model
        trains = [n for n, p in model.named_parameters() if p.requires_grad and part_of(n).endswith(".encoder")]
        if config.disturbs and trains:
            raise ConfigError(
                f"stage '{stage.name}': disturbing features needs frozen encoders, but {trains[0]} trains"
            )
        if trains:
            self._refuse_features(trains[0])
        self._samples = lru_cache(maxsize=2)(self._whole)
        self._transcriber = open_transcriber(config.transcribe)
        self._factors = self._emphasis() if config.emphasis else None
        cache = self._cache() if stage.feature_cache else None
        self.collator = Collator(
            context.processor,
            loss_on=stage.loss_on,
            cache=cache,
            max_skipped=config.max_skipped,
            cutoff_tokens=stage.cutoff_tokens,
            compat=stage.compat,
            patience_s=config.patience_s,
        )
        for source in context.data.sources:  # a file of another encoder is found now, not after hours
            first = next(iter(source.sample(0).audios), None)
            if isinstance(first, FeatureFile):
                self.collator.features(first)

    def _refuse_features(self, trained: str) -> None:
        """Raise where an encoder trains but a source brings its outputs from a file."""
        for name, source in zip(self.context.data.names, self.context.data.sources, strict=True):
            if getattr(source.config, "features", None):
                raise ConfigError(
                    f"stage '{self.context.stage.name}': {trained} trains, but source '{name}' has features of it; "
                    "take data.<name>.features out, or freeze the encoder"
                )

    def _emphasis(self) -> Tensor:
        """Return the factor of every token of the vocabulary."""
        tokenizer = self.context.processor.tokenizer
        factors = torch.ones(len(tokenizer), device=self.context.device)
        for word, factor in self.config.emphasis.items():
            factors[tokenizer(f" {word}", add_special_tokens=False).input_ids[0]] = factor
        return factors

    def batch(self, step: int) -> Batch:
        """Return micro-batch `step`: a slice of its effective batch, which does not depend on the slicing."""
        stage = self.context.stage
        number, slice_ = divmod(step, stage.accumulation)
        samples = self._samples(number)[slice_ * stage.micro : (slice_ + 1) * stage.micro]
        batch = self.collator(samples, device=self.context.device)
        return self._disturbed(batch, step) if self.config.disturbs else batch

    def _whole(self, number: int) -> list[Sample]:
        """Return the samples of effective batch `number`."""
        stage, context = self.context.stage, self.context
        samples = context.data.batch(number, stage.batch_size)
        heard = perturb(samples, stage.audio_dropout, stage.audio_shuffle, context.generator(number))
        if self._transcriber is not None:
            heard = [_with_transcript(sample, self._transcriber) for sample in heard]
        return [sample.in_mode(stage.input_mode) for sample in heard]

    def loss(self, batch: Batch) -> StepLoss:
        """Return the summed cross-entropy over labels; under `compat: ltu` each micro-batch's mean counts once."""
        averages = self.context.stage.compat == "ltu"
        count = max(1, batch.count) if averages else 1
        weights = None if self._factors is None else self._factors[batch.inputs["labels"].clamp_min(0)]
        out = self.context.model(**batch.inputs, label_weights=weights, num_items_in_batch=count, use_cache=False)
        return StepLoss(total=out.loss, count=int(bool(batch.ids)) if averages else batch.count)

    def _cache(self) -> FeatureCache:
        """Return the filled cache of the stage's clips."""
        context, mix = self.context, self.context.data
        endless = [name for name, size in zip(mix.names, mix.sizes, strict=True) if size == 0]
        if endless or context.cache_dir is None:
            why = f"source '{endless[0]}' never repeats a clip" if endless else "there is no folder for it"
            raise ConfigError(f"stage '{context.stage.name}': feature_cache cannot be used: {why}")
        asked = context.stage.feature_dtype
        dtype = DTYPES[("fp32" if context.stage.precision == "fp32" else "fp16") if asked == "auto" else asked]
        folder = context.cache_dir / "features"
        shown = {"desc": f"{context.stage.name}: features", "unit": "clip", "mininterval": 1.0}
        with tqdm(**shown, disable=not processes.is_main()) as bar:
            for done in FeatureCache(folder, context.model, dtype=dtype).fill(self._audios()):  # processes share it
                bar.update(done)
        processes.wait()
        return FeatureCache(folder, context.model, dtype=dtype)

    def _audios(self) -> Iterator[Audio]:
        """Yield the clips that the stage will draw, in the order of the sources."""
        mix, stage = self.context.data, self.context.stage
        last = (stage.num_steps(mix.num_samples) - 1) // mix.pool_batches(stage.batch_size)
        wanted = mix.pool(last, stage.batch_size).stop * stage.batch_size  # a pool holds its positions in another order
        places = sorted({mix.place(position) for position in range(min(wanted, 4 * mix.num_samples))})
        for which, index in places:
            yield from (a for a in mix.sources[which].sample(index).audios if not isinstance(a, FeatureFile))

    def _disturbed(self, batch: Batch, step: int) -> Batch:
        """Return the batch with its encoder tokens disturbed."""
        inputs: dict[str, Any] = dict(batch.inputs)
        if "audio_values" in inputs:
            with torch.no_grad():
                values, lengths = inputs.pop("audio_values"), inputs.pop("audio_lengths")
                inputs["audio_tokens"] = self.context.model.encode(values, lengths, every=True)
        seed = int(self.context.generator(step, stream=1).integers(2**62))
        random = torch.Generator(self.context.device).manual_seed(seed)
        tokens = inputs.get("audio_tokens", {})
        if self.config.time_shift_s:
            share = max(0.0, 1 - 6 * float(torch.rand((), generator=random, device=self.context.device)))
            tokens = {n: replace(t, start_s=t.start_s + share * self.config.time_shift_s) for n, t in tokens.items()}
        return replace(batch, inputs={**inputs, **_tokens({n: self._noisy(t, random) for n, t in tokens.items()})})

    def _noisy(self, tokens: AudioTokens, random: torch.Generator) -> AudioTokens:
        values: Tensor = tokens.values
        settings = self.config
        if settings.feature_noise:
            scale = settings.feature_noise * values[tokens.valid].std()
            values = values + scale * torch.randn(values.shape, generator=random, device=values.device)
        if settings.feature_dropout:
            keep = torch.rand(values.shape, generator=random, device=values.device) >= settings.feature_dropout
            values = values * keep / (1 - settings.feature_dropout)
        if settings.frame_dropout:
            keep = torch.rand(values.shape[:2], generator=random, device=values.device) >= settings.frame_dropout
            values = values * keep[..., None]
        return tokens.with_values(values.masked_fill(~tokens.valid[..., None], 0))


def _tokens(tokens: dict[str, AudioTokens]) -> dict[str, Any]:
    return {"audio_tokens": tokens} if tokens else {}


def _with_transcript(sample: Sample, transcriber: Transcriber) -> Sample:
    """Return a sample whose first question about audio has a transcript."""
    asked = next((place for place, turn in enumerate(sample.messages) if AUDIO_TAG in turn["content"]), None)
    if asked is None or any("transcript" in turn for turn in sample.messages):
        return sample
    sounds = [audio for audio in sample.audios if not isinstance(audio, FeatureFile)]
    try:
        read = [transcriber.kept(identity(a), partial(_samples_of, a)) for a in sounds]
    except AudioError:
        return sample  # the collator leaves it out, and counts it
    said = " ".join(filter(None, read))
    turns = list(sample.messages)
    turns[asked] = {**turns[asked], "transcript": said} if said else turns[asked]
    return replace(sample, messages=tuple(turns))


def _samples_of(audio: Audio) -> np.ndarray:
    return as_samples(waveform(audio), 0)
