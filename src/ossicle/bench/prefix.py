"""What a second question costs a model that prepends, with a cache of identical prefixes; the rival of audio handles.

    first    [ system A | audio rows | question 1 ]      encoder, connector, and all rows through the decoder
    second   [ system B | audio rows | question 2 ]      only what stands before the first difference is kept

Under the same system prompt the audio rows are kept, under another one they are not: the prefix differs before them.
Encoder outputs are kept here, as a fair rival would. Random weights, nano's shape: only time is measured.
"""

from __future__ import annotations

import copy
import statistics
import time
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from ossicle.inference.engine import load
from ossicle.model import AudioLM
from ossicle.processor import AudioProcessor
from ossicle.types import SAMPLE_RATE_HZ

CLIP_S = 30.0
SYSTEMS = {"other": "You answer for a person who cannot hear. Be exact.", "same": "You are brief."}


def second_questions(model: str, *, repeats: int, seed: int) -> dict[str, Any]:
    """Return seconds to the first token of a first question, and of a second under the same and another system prompt.

    Args:
        model: Its shape is taken; all its streams prepend.
        repeats: Clips; medians are returned.
        seed: Of weights and clips.
    """
    own = load(model, device="cpu", dtype="fp32")
    config = copy.deepcopy(own.model.config)
    config.streams = [{**one, "integration": {"kind": "prepend"}} for one in config.streams]
    torch.manual_seed(seed)
    config.focus = None  # the clips are short, and what is prepended is heard whole
    prepends = AudioLM.new(config).eval()
    processor = AudioProcessor(own.processor.tokenizer, streams=config.streams)
    random = np.random.default_rng(seed)
    first, second = [], {name: list[float]() for name in SYSTEMS}
    for _ in range(repeats + 1):
        samples = torch.from_numpy(random.standard_normal(int(CLIP_S * SAMPLE_RATE_HZ)).astype(np.float32) * 0.1)
        began = time.perf_counter()
        heard, held, ids = _first(prepends, processor, samples)
        first.append(time.perf_counter() - began)
        for name, system in SYSTEMS.items():
            began = time.perf_counter()
            _second(prepends, _ids(processor, system, "How many sounds are there?", len(samples)), heard, held, ids)
            second[name].append(time.perf_counter() - began)
    once = statistics.median(first[1:])  # the very first one warms up
    out: dict[str, Any] = {"first_s": once}
    for name, seconds in second.items():
        middle = statistics.median(seconds[1:])
        out[f"second_{name}_s"], out[f"ratio_{name}"] = middle, middle / once
    return out


def _ids(processor: Any, system: str, question: str, samples: int) -> list[int]:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"<audio>{question}"}]
    ids: list[int] = processor.prompt_ids(messages, [samples])
    return ids


@torch.inference_mode()
def _first(model: Any, processor: Any, samples: torch.Tensor) -> tuple[Any, list[tuple[Any, Any]], list[int]]:
    """Answer the first question's first token; return what is kept of it."""
    ids = _ids(processor, SYSTEMS["same"], "What do you hear?", len(samples))
    heard = model.connect(model.encode(samples[None], torch.tensor([len(samples)])))
    cache = _read(model, ids, heard, DynamicCache(), 0)
    return heard, [(layer.keys, layer.values) for layer in cache.layers], ids


@torch.inference_mode()
def _second(model: Any, ids: list[int], heard: Any, held: list[tuple[Any, Any]], before: list[int]) -> None:
    """Read a second prompt from where it first differs."""
    pairs = zip(ids, before, strict=False)
    same = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(ids), len(before)))
    cache = DynamicCache()
    for layer, (key, value) in enumerate(held):
        cache.update(key[:, :, :same], value[:, :, :same], layer)
    _read(model, ids, heard, cache, same)


def _read(model: Any, ids: list[int], heard: Any, cache: Any, start: int) -> Any:
    tokens = torch.tensor([ids])
    memory, placement = model.remember(tokens, torch.ones_like(tokens), heard)
    embeddings = model.embed(tokens, memory)[:, start:]
    model.language_model(
        inputs_embeds=embeddings,
        position_ids=placement.positions[:, start:],
        attention_mask=torch.ones_like(tokens),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits.argmax().item()
    return cache
