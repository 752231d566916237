"""What training waits for, and what a mixture costs beside the encoders that it selects.

    busy   = 1 − time in which the next batch is made / time of all steps        frozen encoders' outputs are kept
    mowe   = operations (and seconds) of a mixture whose routers are hard, top 1, over those of the base, of the encoder
             that each clip selects, and of the routers alone

The decoder is nano's size, the encoders are nano's kind; all weights are random. Steps are those of a real stage: its
sources, collator, loss, optimiser. Source: our choice.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from ossicle.encoders.base import build_encoder
from ossicle.training.loop import StageRun
from ossicle.training.recipe import Loaded, Recipe
from ossicle.training.run import Run
from ossicle.types import SAMPLE_RATE_HZ

GOALS = {"busy": 0.95, "mowe": 1.1}
DECODER = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 704,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 1024,
}
EAR: dict[str, Any] = {"kind": "cnn"}
WEAK: dict[str, Any] = {"kind": "cnn", "channels": (8, 16, 32, 48), "dim": 64, "depth": 1}


def run(*, steps: int = 12, batch: int = 16, clips: int = 16, seed: int = 0) -> dict[str, Any]:
    """Return the decoder's share of the time, and a mixture's cost.

    Args:
        steps: Optimiser steps; the first ones, which also read files for the first time, count.
        batch: Samples of a step.
        clips: Ten-second clips that the mixture hears.
        seed: Of weights, sounds and order.
    """
    return {"cached": busy(steps=steps, batch=batch, seed=seed), "mowe": mowe(clips=clips, seed=seed), "goals": GOALS}


def busy(*, steps: int, batch: int, seed: int = 0) -> dict[str, float]:
    """Return how a stage over kept features spends its time.

    Args:
        steps: Optimiser steps.
        batch: Samples of a step.
        seed: Of weights and sounds.
    """
    spent: list[tuple[float, float]] = []
    whole, step = [0.0], StageRun.step

    def timed(self: StageRun, number: int) -> Any:
        """Take a step, and note how long it took and how long it waited for its batches."""
        draw, waited = self.objective.batch, [0.0]

        def batch_of(micro: int) -> Any:
            began = time.perf_counter()
            drawn = draw(micro)
            waited[0] += time.perf_counter() - began
            return drawn

        self.objective.batch = batch_of  # type: ignore[method-assign]
        began = time.perf_counter()
        try:
            return step(self, number)
        finally:
            whole[0] = time.perf_counter() - began
            spent.append((whole[0], waited[0]))
            self.objective.batch = draw  # type: ignore[method-assign]

    StageRun.step = timed  # type: ignore[method-assign]
    try:
        with tempfile.TemporaryDirectory() as folder:
            Run(_recipe(steps, batch, seed), Path(folder) / "run").train()
    finally:
        StageRun.step = step  # type: ignore[method-assign]
    total, waited = (sum(column) for column in zip(*spent, strict=True))
    return {
        "busy": 1 - waited / total,
        "step_s": statistics.median(pair[0] for pair in spent),
        "batch_s": statistics.median(pair[1] for pair in spent),
        "steps": len(spent),
    }


def _recipe(steps: int, batch: int, seed: int) -> Loaded:
    stream = {"name": "sound", "encoder": EAR, "connector": {"kind": "mlp"}, "integration": {"kind": "attend"}}
    stage = {
        "name": "cached",
        "train": ["connector", "language_model"],
        "mix": [{"source": "sounds"}],
        "learning_rate": 1e-4,
        "batch_size": batch,
        "steps": steps,
        "precision": "fp32",
        "feature_cache": True,
        "checkpoint_every": 1_000_000,
    }
    recipe = {
        "name": "bench",
        "seed": seed,
        "model": {
            "language_model": {"architecture": DECODER},
            "tokenizer": {"kind": "bpe", "vocab_size": 512},
            "streams": [stream],
        },
        "data": {"sounds": {"kind": "world_sounds", "samples": 4 * batch, "clip_s": 5.0}},
        "stages": [stage],
    }
    return Loaded(recipe=Recipe.model_validate(recipe), folder=Path())


def mowe(*, clips: int, seed: int = 0, rounds: int = 3) -> dict[str, float]:
    """Return what a mixture of three weak encoders costs, each router keeping one of them.

    Args:
        clips: Ten-second clips, heard in one batch.
        seed: Of weights and sounds.
        rounds: Of the timing; the median counts.
    """
    torch.manual_seed(seed)
    spec = {"kind": "mowe", "base": EAR, "pool": [WEAK] * 3, "routers": ["dependent"], "top_k": 1}
    mixture: Any = build_encoder(spec).eval()
    mixture.router.progress.fill_(1.0)  # hard
    audio = 0.1 * torch.randn(clips, CLIP_SAMPLES)
    lengths = torch.full((clips,), CLIP_SAMPLES)
    with torch.no_grad():
        base = mixture.base(audio, lengths)
        chosen = mixture.wanted(base.values, base.valid)  # (C, M)

        def parts() -> None:
            tokens = mixture.base(audio, lengths)
            mixture.routes(tokens.values, tokens.valid)
            for k, member in enumerate(mixture.pool):
                if chosen[:, k].any():
                    weak = member(audio[chosen[:, k]], lengths[chosen[:, k]])
                    mixture.router(weak.values, k)

        def whole() -> None:
            mixture(audio, lengths)

        work = {name: _flops(call) for name, call in (("whole", whole), ("parts", parts))}
        times: dict[str, list[float]] = {"whole": [], "parts": []}
        for _ in range(rounds + 1):
            for name, call in (("whole", whole), ("parts", parts)):
                began = time.perf_counter()
                call()
                times[name].append(time.perf_counter() - began)
    seconds = {name: statistics.median(spent[1:]) for name, spent in times.items()}
    return {
        "flops": work["whole"],
        "flops_of_parts": work["parts"],
        "ratio": work["whole"] / work["parts"],
        "seconds_ratio": seconds["whole"] / seconds["parts"],
        "selected_per_clip": float(chosen.sum()) / clips,
    }


CLIP_SAMPLES = 10 * SAMPLE_RATE_HZ


def _flops(call: Any) -> int:
    with FlopCounterMode(display=False) as counter:
        call()
    return int(counter.get_total_flops())
