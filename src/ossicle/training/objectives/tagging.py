"""Audio tagging through an encoder and its TLTR: Whisper-AT's task, whose TLTR is where LTU-AS starts from.

    frozen encoder ──► time mask, mixup ──► connector's mixed layers (N, D) ──mean over time, LayerNorm, linear──► tags

Binary cross-entropy per tag on smoothed labels; samples are drawn so that rare tags come as often as frequent ones;
at the end the trained weights are those of the average over the later steps. A sample's tags are its label, parted by
`;`. `time_mean` says where a TLTR's mean over time is taken: before its layer block, as Whisper-AT does, or after it,
as LTU-AS runs the same network. Source: Gong et al., Whisper-AT (arXiv 2307.03183).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from ossicle.data.collate import Collator
from ossicle.data.sample import Audio, FeatureFile, Sample, waveform
from ossicle.errors import ConfigError, DataError
from ossicle.processor import as_samples
from ossicle.training import processes
from ossicle.training.objectives.base import Objective, ObjectiveConfig, StageContext, StepLoss
from ossicle.types import AudioTokens


class TaggingConfig(ObjectiveConfig):
    """Settings of `tagging`.

    Attributes:
        stream: The stream whose encoder hears and whose connector learns.
        mixup: Share of samples that are mixed with another one of the batch.
        time_mask: At most so many consecutive tokens are set to zero.
        label_smoothing: A tag that is there counts 1 − this / 2, one that is not this / 2.
        balanced: Draw samples by the rarity of their tags; off = as the mix gives them.
        average_from: Share of the steps after which weights are averaged; 1 = never.
        time_mean: Where a TLTR takes the mean over time: `before_layers` (Whisper-AT) or `after_layers` (as LTU-AS runs
            it); other connectors take it at their end.
    """

    kind: str = "tagging"
    stream: str
    mixup: float = Field(default=0.5, ge=0, le=1)
    time_mask: int = Field(default=10, ge=0)
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    balanced: bool = True
    average_from: float = Field(default=0.5, ge=0, le=1)
    time_mean: Literal["before_layers", "after_layers"] = "before_layers"


@dataclass(frozen=True, slots=True, kw_only=True)
class TagBatch:
    """Encoder tokens (C, N, D), targets (C, T), and the names of the samples."""

    tokens: AudioTokens
    targets: Tensor
    ids: list[str]


def tags_of(sample: Sample) -> list[str]:
    """Return the tags of a sample.

    Example:
        >>> tags_of(Sample(messages=(), label="Rain; Speech"))
        ['Rain', 'Speech']
    """
    return [tag.strip() for tag in (sample.label or "").split(";") if tag.strip()]


class Tagging(Objective):
    """Teaches a connector that mixes layers (`fuse`), or any other, to hear tags; the head is the objective's own."""

    Config: ClassVar[type[ObjectiveConfig]] = TaggingConfig
    needs_data: ClassVar[bool] = True

    def __init__(self, config: TaggingConfig, context: StageContext) -> None:
        super().__init__(config, context)
        streams = {name: stream for name, stream in context.model.streams.items() if stream.encoder is not None}
        if config.stream not in streams:
            raise ConfigError(
                f"tagging: no stream '{config.stream}' with its own encoder; there is {', '.join(streams)}"
            )
        if not self.tags:
            raise DataError(f"stage '{context.stage.name}': no sample has a label; tagging needs tags parted by ';'")
        width = self.fuse(self._tokens(torch.zeros(1, 16_000, device=context.device), [16_000])).values.shape[-1]
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, len(self.tags)))
        for name, parameter in self._learning().items():
            self.register_buffer(f"average_{name}", parameter.detach().clone())
        self.register_buffer("averaged", torch.zeros((), dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def stream(self) -> Any:
        """The stream that learns; reached through the context, so that the model is no part of the objective."""
        return self.context.model.streams[self.config.stream]

    @cached_property
    def rows(self) -> list[tuple[int, int, list[str]]]:
        """Every labelled sample: its source, its number there, its tags."""
        found = [
            (place, index, tags_of(source.sample(index)))
            for place, source in enumerate(self.context.data.sources)
            for index in range(len(source))
        ]
        return [row for row in found if row[2]]

    @cached_property
    def tags(self) -> list[str]:
        """All tags, sorted."""
        return sorted({tag for _, _, tags in self.rows for tag in tags})

    @cached_property
    def chances(self) -> np.ndarray:
        """How often each row is drawn."""
        often = Counter(tag for _, _, tags in self.rows for tag in tags)
        rarity = np.array([sum(1 / often[tag] for tag in tags) for *_, tags in self.rows])
        weight = rarity if self.config.balanced else np.ones(len(self.rows))
        return weight / weight.sum()

    def batch(self, step: int) -> TagBatch:
        """Return drawn, masked and mixed samples of one micro-batch."""
        rng = self.context.generator(step)
        drawn = rng.choice(len(self.rows), self.context.stage.micro, p=self.chances)
        samples = [self.context.data.sources[self.rows[row][0]].sample(self.rows[row][1]) for row in drawn]
        tokens = self._heard([sample.audios[0] for sample in samples])
        there = torch.tensor([[tag in self.rows[row][2] for tag in self.tags] for row in drawn], dtype=torch.float32)
        targets = there * (1 - self.config.label_smoothing) + self.config.label_smoothing / 2
        values, targets = self._mixed(self._masked(tokens.values, rng), targets.to(tokens.values.device), rng)
        return TagBatch(tokens=tokens.with_values(values), targets=targets, ids=[sample.id for sample in samples])

    def loss(self, batch: TagBatch) -> StepLoss:
        """Return the cross-entropy of all tags, averaged over tags and summed over clips."""
        if self.training and torch.is_grad_enabled():
            self._average()
        fused = self.fuse(batch.tokens)
        real = fused.valid[..., None].float()
        logits = self.head((fused.values.float() * real).sum(1) / real.sum(1).clamp(min=1))
        losses = nn.functional.binary_cross_entropy_with_logits(logits, batch.targets, reduction="none")
        return StepLoss(total=losses.mean(1).sum(), count=len(losses))

    def fuse(self, tokens: AudioTokens) -> AudioTokens:
        """Return (C, N, D) what the connector makes of the layers: its `fuse` where it has one."""
        connector: Any = self.stream.connector
        if not hasattr(connector, "fuse"):
            return connector(tokens)  # type: ignore[no-any-return]
        values = connector.fuse(tokens, mean_first=self.config.time_mean == "before_layers")
        return tokens.with_values(values, valid=tokens.valid[:, : values.shape[1]])

    def finish(self) -> dict[str, float]:
        """Put the averaged weights in place."""
        if int(self.averaged):
            with torch.no_grad():
                for name, parameter in self._learning().items():
                    parameter.copy_(self.get_buffer(f"average_{name}"))
        return {"tags": float(len(self.tags)), "averaged_steps": float(self.averaged)}

    def _heard(self, audios: list[Audio]) -> AudioTokens:
        """Return the encoder's tokens of clips, or those that files bring."""
        device = self.context.device
        files = [audio for audio in audios if isinstance(audio, FeatureFile)]
        if files and len(files) == len(audios):
            kept = [Collator(self.context.processor).features(file) for file in files]
            values = torch.stack([features.values[self.config.stream] for features in kept]).to(device)
            valid = torch.ones(values.shape[:2], dtype=torch.bool, device=device)
            return AudioTokens(values=values, valid=valid, rate_hz=kept[0].rates_hz[self.config.stream])
        waves = [torch.from_numpy(as_samples(waveform(audio), 0)) for audio in audios]
        padded = nn.utils.rnn.pad_sequence(waves, batch_first=True).to(device)
        return self._tokens(padded, [len(wave) for wave in waves])

    @torch.no_grad()
    def _tokens(self, audio: Tensor, lengths: list[int]) -> AudioTokens:
        encoder: Any = self.stream.encoder
        return encoder(audio, torch.tensor(lengths))  # type: ignore[no-any-return]

    def _masked(self, values: Tensor, rng: np.random.Generator) -> Tensor:
        """Return the tokens with a stretch of each clip set to zero."""
        values = values.clone()
        for row in values:
            width = int(rng.integers(0, min(self.config.time_mask, len(row) - 1) + 1))
            start = int(rng.integers(0, len(row) - width + 1))
            row[start : start + width] = 0
        return values

    def _mixed(self, values: Tensor, targets: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Return some clips mixed with others of the batch, and their targets."""
        count = len(values)
        other = torch.from_numpy(rng.permutation(count)).to(values.device)
        share = np.where(rng.random(count) < self.config.mixup, rng.beta(10, 10, count), 1.0)
        weight = torch.tensor(share, dtype=values.dtype, device=values.device)
        mixed = weight[:, None, None] * values + (1 - weight)[:, None, None] * values[other]
        return mixed, weight[:, None].float() * targets + (1 - weight)[:, None].float() * targets[other]

    def _learning(self) -> dict[str, Tensor]:
        """Return the connector's parameters under names without dots."""
        return {name.replace(".", "_"): parameter for name, parameter in self.stream.connector.named_parameters()}

    @torch.no_grad()
    def _average(self) -> None:
        """Take the present weights into the average, once its time has come."""
        self.steps += 1
        stage, mix = self.context.stage, self.context.data
        steps = stage.num_steps(None if mix.endless else mix.num_samples)
        own = steps * stage.accumulation / processes.world()  # micro-batches that this process sees
        if int(self.steps) <= self.config.average_from * own:
            return
        self.averaged += 1
        for name, parameter in self._learning().items():
            average = self.get_buffer(f"average_{name}")
            average.lerp_(parameter.to(average), 1 / float(self.averaged))
