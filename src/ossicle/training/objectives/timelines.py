"""Encoder pre-training on timelines: rows of several sounds of all kinds, each judged from its own frames.

    row (5 s) ──► log-mel, augmented ──► encoder ──► frames (R, N, D) ──► heads (frame_heads)

Mixing all tasks in every row gives twice the labels a second, keeps BatchNorm's statistics the same in training and
use, and makes features local, which scenes need. When the stage ends the encoder takes the running average (EMA) of
its last weights. Source: our choice, measured against one task per batch.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from ossicle.data.material import Sound, is_held_out, pools
from ossicle.data.timeline import Placement, TimelineComposer, augment
from ossicle.training.objectives.base import Objective, ObjectiveConfig, StageContext, StepLoss
from ossicle.training.objectives.frame_heads import FrameHeads, Head, classes_of, facts_of, tag_of

logger = logging.getLogger(__name__)


class TimelinesConfig(ObjectiveConfig):
    """Settings of `timelines`.

    Attributes:
        part: The encoder that learns, for example `streams.sound.encoder`.
        root: Folder with the sets named in `mix`; `${VARIABLES}` are filled in.
        mix: Weight of each pool: set folders, and the synthesised `world`, `words`, `phrases`.
        heads: What is asked of the frames.
        synthesised: How many sounds each synthesised pool has.
        sounds_seed: Seed of what is synthesised; stages with the same one share it.
        held_out: Groups (or a share of the groups) of a pool that are kept for validation.
        row_s: Length of a row in seconds.
        background: Share of rows over another, quieter row.
        ema: Weight of the past in the running average of the encoder; 0 = off.
    """

    kind: str = "timelines"
    part: str
    root: str
    mix: dict[str, float]
    heads: list[Head]
    synthesised: dict[str, int] = Field(default={"world": 4000, "words": 4500, "phrases": 600})
    sounds_seed: int = 7
    held_out: dict[str, list[str] | float] = Field(default={})
    row_s: float = Field(default=5.0, gt=1)
    background: float = Field(default=0.4, ge=0, le=1)
    ema: float = Field(default=0.995, ge=0, lt=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineBatch:
    """Augmented log-mel rows (R, T, F), what lies where, and which row lies under which."""

    mel: Tensor
    counts: Tensor
    placements: list[Placement]
    under: dict[int, int]


class Timelines(Objective):
    """Teaches one encoder on timelines; the heads are its own and stay behind, except in the checkpoint."""

    Config: ClassVar[type[ObjectiveConfig]] = TimelinesConfig

    def __init__(self, config: TimelinesConfig, context: StageContext) -> None:
        super().__init__(config, context)
        names = sorted(config.mix)
        found = pools(
            Path(Template(config.root).safe_substitute(os.environ)).expanduser(),
            names,
            seed=config.sounds_seed,
            counts={name: config.synthesised[name] for name in names if name in config.synthesised},
            cache_dir=context.cache_dir / "sounds" if context.cache_dir else None,
        )
        everything = [sound for name in names for sound in found[name]]
        self.held_out = [sound for sound in everything if is_held_out(sound, config.held_out)]
        taught = {name: [s for s in found[name] if not is_held_out(s, config.held_out)] for name in names}
        self.timelines = TimelineComposer(taught, config.mix, config.row_s, config.background)
        tags = sorted({tag_of(sound) for sound in everything})
        self.heads = FrameHeads(self.encoder.facts.dim, classes_of(everything, config.heads), tags, config.heads)
        for name, value in self._averaged().items():
            self.register_buffer(f"average_{name}", value.detach().clone())
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    @property
    def encoder(self) -> Any:
        """Return the encoder that learns."""
        return self.context.model.get_submodule(self.config.part)

    def batch(self, step: int) -> TimelineBatch:
        """Return rows drawn and augmented for one micro-batch."""
        rng = self.context.generator(step)
        audio, placements, under = self.timelines.rows(self.context.stage.micro, rng)
        lengths = torch.full((len(audio),), audio.shape[1])
        with torch.no_grad():
            mel, counts = self.encoder.log_mel(torch.from_numpy(audio), lengths)
        device = self.context.device
        return TimelineBatch(
            mel=augment(mel, placements, rng).to(device), counts=counts.to(device), placements=placements, under=under
        )

    def ids(self, batch: TimelineBatch) -> list[str]:
        """Return pool and group of every placed sound."""
        return [f"{placed.sound.pool}/{placed.sound.group}" for placed in batch.placements]

    def loss(self, batch: TimelineBatch) -> StepLoss:
        """Return the loss of all heads, summed over the placed sounds."""
        if self.training and torch.is_grad_enabled():
            self._average()
        frames = self.encoder.encode_mel(batch.mel, batch.counts).float()
        losses = self.heads.losses(frames, batch.placements, batch.under)
        applies = Counter(name for p in batch.placements for name in facts_of(p.sound))
        count = len(batch.placements)
        logs = {name: float(value.detach()) / max(1, applies.get(name, count)) for name, value in losses.items()}
        return StepLoss(total=torch.stack(list(losses.values())).sum(), count=count, logs=logs)

    def finish(self) -> dict[str, float]:
        """Put the averaged weights into the encoder and return its accuracy on what was held out."""
        if self.config.ema and int(self.steps):
            with torch.no_grad():
                for name, value in self._averaged().items():
                    value.copy_(self.get_buffer(f"average_{name}"))
        return self.accuracy()

    @torch.no_grad()
    def accuracy(self, sounds: list[Sound] | None = None, batch_size: int = 24) -> dict[str, float]:
        """Return head → accuracy on single, whole, unchanged sounds; the held-out ones by default."""
        chosen = sorted(self.held_out if sounds is None else sounds, key=lambda sound: len(sound.samples))
        was_training = self.encoder.training
        self.encoder.eval()
        right: dict[str, list[bool]] = {}
        for start in range(0, len(chosen), batch_size):
            for name, pairs in self._answers(chosen[start : start + batch_size]).items():
                right.setdefault(name, []).extend(truth == answer for truth, answer in pairs)
        self.encoder.train(was_training)
        return {f"{name} (n={len(hits)})": sum(hits) / len(hits) for name, hits in sorted(right.items())}

    def _answers(self, sounds: list[Sound]) -> dict[str, list[tuple[str, str]]]:
        longest = self.encoder.config.window_samples
        rows = [torch.from_numpy(s.samples[:longest].astype("float32") / 32768) for s in sounds]
        lengths = torch.tensor([len(row) for row in rows])
        audio = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True).to(self.context.device)
        frames = self.encoder.encode_windows(audio, lengths.to(audio.device)).float()
        placements = [
            Placement(sound=sound, row=i, start=0, length=int(lengths[i]), level_db=0.0)
            for i, sound in enumerate(sounds)
        ]
        return self.heads.answers(frames, placements)

    def _averaged(self) -> dict[str, Tensor]:
        """Return what is averaged: every floating-point tensor of the encoder, under a name without dots."""
        state = self.encoder.state_dict()
        return {name.replace(".", "_"): value for name, value in state.items() if value.is_floating_point()}

    @torch.no_grad()
    def _average(self) -> None:
        self.steps += 1
        past = min(self.config.ema, 1 - 1 / (1 + float(self.steps) / 10))  # a short memory while everything still moves
        for name, value in self._averaged().items():
            self.get_buffer(f"average_{name}").lerp_(value, 1 - past)
