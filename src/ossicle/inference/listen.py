"""When it listened: what an answer loses when a stretch of the recording is muted, beside where its rows looked.

    weight of stretch k  ∝  max(0, log p(answer | clip) − log p(answer | clip with stretch k silent))

Shown as evidence, never as proof: a sound that repeats can be muted without loss. Source: occlusion (Zeiler & Fergus,
arXiv 1311.2901), on time instead of image patches; attention is `inference.attention`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ossicle.errors import UnsupportedError
from ossicle.inference.attention import asked, attention
from ossicle.inference.engine import BATCH_SECONDS, Engine
from ossicle.inference.stretches import Stretch, several, stretches
from ossicle.types import AudioTokens, Waveform

BATCH = 8
"""Rows that are encoded together; fewer where clips are long."""
SHOWN = "occlusion"
"""What is shown first; both are shown. It works for every model, and needs no reading of weights."""


def listened(
    engine: Engine, clips: Waveform | Sequence[Waveform], question: str, answer: str, *, stretch_s: float = 1.0
) -> dict[str, Any]:
    """Return both kinds of evidence for when a model listened.

    Args:
        engine: The model.
        clips: The clip, or the clips of one question in order.
        question: What was asked.
        answer: What was said.
        stretch_s: Length of a stretch in seconds; longer where clips have more than 60 together.

    Returns:
        `method` and `seconds` of what is shown first, and `attention` and `occlusion` by themselves; for a model that
        does not allow attention, it is `{"method": "attention", "unavailable": why}`.
    """
    muted = Muted(engine, clips, stretch_s=stretch_s)
    found = {"occlusion": muted.weigh(question, answer)}
    try:
        encoded = muted.whole()
        found["attention"] = attention(engine, clips, question, answer, stretch_s=stretch_s, encoded=encoded)
    except UnsupportedError as error:
        found["attention"] = {"method": "attention", "unavailable": str(error)}
    shown = found[SHOWN] if "seconds" in found[SHOWN] else found["occlusion"]
    return {"method": shown["method"], "seconds": shown["seconds"], **found}


def occlusion(
    engine: Engine, clips: Waveform | Sequence[Waveform], question: str, answer: str, *, stretch_s: float = 1.0
) -> dict[str, Any]:
    """Return how much each stretch of clips matters to an answer.

    Args:
        engine: The model.
        clips: As in `listened`; so are the others.
        question: What was asked.
        answer: What was said.
        stretch_s: Length of a stretch in seconds.

    Returns:
        `method`, and `seconds`: for each stretch `clip`, `start_s`, `end_s`, `weight` (they sum to 1, or are all 0
        where nothing mattered) and `drop` (nats).
    """
    return Muted(engine, clips, stretch_s=stretch_s).weigh(question, answer)


class Muted:
    """Clips, as they are and with each stretch silent, encoded once for any number of questions.

    Args:
        engine: The model.
        clips: The clip, or the clips of one question in order.
        stretch_s: Length of a stretch in seconds.
    """

    def __init__(self, engine: Engine, clips: Waveform | Sequence[Waveform], *, stretch_s: float = 1.0) -> None:
        self.engine, self.waves = engine, several(clips)
        self.stretches = stretches(self.waves, stretch_s)
        self._encoded = list(self._encode())

    @torch.inference_mode()
    def _encode(self) -> Iterator[dict[str, AudioTokens]]:
        """Yield the tokens of the clips of a batch of rows, each muted only when its batch is made."""
        muted = [None, *self.stretches]
        row_s = len(self.waves) * max(wave.duration_s for wave in self.waves)
        size = max(1, min(BATCH, int(BATCH_SECONDS / row_s)))
        for first in range(0, len(muted), size):
            yield self._together(muted[first : first + size])

    def _together(self, muted: Sequence[Stretch | None]) -> dict[str, AudioTokens]:
        """Return the tokens of the clips of some rows; a clip that several rows share is encoded once."""
        clips = [wave for stretch in muted for wave in _muted(self.waves, stretch)]
        distinct = list({id(wave): wave for wave in clips}.values())
        place = {id(wave): index for index, wave in enumerate(distinct)}
        which = torch.tensor([place[id(wave)] for wave in clips], device=self.engine.model.device)
        return {name: each.take(which) for name, each in self.engine.encode(distinct).items()}

    def whole(self) -> dict[str, AudioTokens]:
        """Return the tokens of the clips as they are."""
        which = torch.arange(len(self.waves))
        return {name: each.take(which) for name, each in self._encoded[0].items()}

    @torch.inference_mode()
    def log_chances(self, question: str, answer: str) -> Tensor:
        """Return (1 + stretches,) log-probabilities of an answer: about the clips, then with each stretch muted."""
        ids, said = asked(self.engine, self.waves, question, answer)
        model, chances = self.engine.model, []
        for tokens in self._encoded:
            rows = ids.expand(len(next(iter(tokens.values())).values) // len(self.waves), -1)
            mask = torch.ones_like(rows)
            connected = model.connect(tokens, model.prompts(rows[:, :-said], mask[:, :-said]))  # as when it answered
            memory, placement = model.remember(rows, mask, connected)
            out = model(rows, attention_mask=mask, position_ids=placement.positions, audio_memory=memory)
            logits = out.logits[:, -said - 1 : -1].float()
            chances.append(logits.log_softmax(-1).gather(-1, rows[:, -said:, None]).sum((1, 2)))
        return torch.cat(chances).cpu()

    def weigh(self, question: str, answer: str) -> dict[str, Any]:
        """Return what `occlusion` returns."""
        chances = self.log_chances(question, answer)
        drops = (chances[0] - chances[1:]).tolist()
        total = sum(max(0.0, drop) for drop in drops)
        seconds = [
            stretch.told(max(0.0, drop) / total if total else 0.0, drop=drop)
            for stretch, drop in zip(self.stretches, drops, strict=True)
        ]
        return {"method": "occlusion", "seconds": seconds}


def _muted(waves: Sequence[Waveform], stretch: Stretch | None) -> list[Waveform]:
    """Return the clips with one stretch of one of them silent; None = as they are."""
    if stretch is None:
        return list(waves)
    samples = np.array(waves[stretch.clip].samples)
    samples[stretch.start : stretch.end] = 0
    return [replace(wave, samples=samples) if clip == stretch.clip else wave for clip, wave in enumerate(waves)]
