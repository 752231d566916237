"""When it listened: what an answer loses when a stretch of the recording is muted.

    weight of stretch k  ∝  max(0, log p(answer | clip) − log p(answer | clip with stretch k silent))

Shown as evidence, never as proof: a sound that repeats can be muted without loss. Source: occlusion (Zeiler & Fergus,
arXiv 1311.2901), on time instead of image patches.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ossicle.audio.chunk import ceil_div
from ossicle.inference.engine import Engine
from ossicle.types import Waveform

MOST_STRETCHES = 60
BATCH = 8


@torch.inference_mode()
def occlusion(engine: Engine, wave: Waveform, question: str, answer: str, *, stretch_s: float = 1.0) -> dict[str, Any]:
    """Return how much each stretch of a clip matters to an answer.

    Args:
        engine: The model.
        wave: The clip.
        question: What was asked.
        answer: What was said.
        stretch_s: Length of a stretch in seconds; longer for clips of more than 60 stretches.

    Returns:
        `method`, and `seconds`: for each stretch `start_s`, `end_s`, `drop` (nats) and `weight` (they sum to 1, or are
        all 0 where nothing mattered).
    """
    size = max(round(stretch_s * wave.sample_rate_hz), ceil_div(len(wave.samples), MOST_STRETCHES))
    starts = range(0, len(wave.samples), size)
    clips = [wave, *(_muted(wave, start, size) for start in starts)]
    chances = torch.cat(
        [log_chances(engine, clips[i : i + BATCH], question, answer) for i in range(0, len(clips), BATCH)]
    )
    drops = (chances[0] - chances[1:]).tolist()
    total = sum(max(0.0, drop) for drop in drops)
    return {
        "method": "occlusion",
        "seconds": [
            {
                "start_s": start / wave.sample_rate_hz,
                "end_s": min(start + size, len(wave.samples)) / wave.sample_rate_hz,
                "drop": drop,
                "weight": max(0.0, drop) / total if total else 0.0,
            }
            for start, drop in zip(starts, drops, strict=True)
        ],
    }


def _muted(wave: Waveform, start: int, size: int) -> Waveform:
    samples = np.array(wave.samples)
    samples[start : start + size] = 0
    return replace(wave, samples=samples)


@torch.inference_mode()
def log_chances(engine: Engine, clips: list[Waveform], question: str, answer: str) -> torch.Tensor:
    """Return (C,) the log-probability of an answer to a question about each of some equally long clips."""
    tokenizer, device = engine.processor.tokenizer, engine.model.device
    read = engine.hearing.transcript(clips[0])  # muting takes sound away, not what was read
    inputs = engine.processor.chat([engine.prompt(question, transcript=read) for _ in clips], audio=clips)
    said = torch.tensor([*engine.processor.ids(answer), tokenizer.eos_token_id])
    rows = said.expand(len(clips), -1)
    ids = torch.cat([inputs["input_ids"], rows], 1).to(device)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(rows)], 1).to(device)
    audio = {name: inputs[name].to(device) for name in ("audio_values", "audio_lengths")}
    logits = engine.model(input_ids=ids, attention_mask=mask, **audio).logits[:, -len(said) - 1 : -1]
    return logits.float().log_softmax(-1).gather(-1, rows.to(device)[..., None]).sum((1, 2))
