"""Decoding together is decoding alone: for every integration and decoder family, whoever joins and leaves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from transformers import DynamicCache

from integration.tiny_models import MARKER, SLOT, clips, stream, text, tiny_model
from ossicle.serve.batch import Batch

SETUPS = {
    "prepend": [stream(kind="prepend")],
    "attend": [stream()],
    "attend-block": [stream(positions="block")],
    "attend-own": [stream(own_projections=True, layers=[1])],
    "cross": [stream(kind="cross")],
    "all": [stream("a", "prepend"), stream("b", "attend", encoder="a"), stream("c", "cross", encoder="a")],
}
FAMILIES = ["llama", "mistral", "mistral-window", "qwen2", "qwen3", "gemma3", "phi3", "olmo2", "smollm3"]


@torch.no_grad()
def begin(model, pieces, lengths, audio):
    """Prefill one row; return it, and its greedy tokens when it is alone."""
    ids, mask = text(model, [pieces], lengths)
    memory, positions = None, torch.arange(ids.shape[1])[None]
    heard = {}
    if len(lengths):
        heard = {"audio_values": audio, "audio_lengths": lengths}
        memory, placement = model.remember(ids, mask, model.connect(model.encode(audio, lengths)))
        memory.keep, positions = True, placement.positions
    settings = {"max_new_tokens": 14, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    settings["suppress_tokens"] = [MARKER, SLOT]
    alone = model.generate(ids, attention_mask=mask, **settings, **heard)
    cache = DynamicCache()
    places = {"position_ids": positions, "past_key_values": cache, "audio_memory": memory}
    out = model(ids, attention_mask=mask, use_cache=True, **places)
    token = int(out.logits[0, -1, :MARKER].argmax())
    row = SimpleNamespace(token=token, position=int(positions[0, -1]) + 1, cache=cache, memory=memory, said=[token])
    return row, alone[0, ids.shape[1] :].tolist()


def together(model, rows):
    """Let a new row join every third step, each leave after its twelfth token; return what they said."""
    batch, waiting = Batch(model), list(rows)
    steps = 0
    while waiting or batch.rows:
        if waiting and steps % 3 == 0:
            batch.join(waiting.pop(0))
        for row, logits in zip(batch.rows, batch.step(), strict=True):
            row.token = int(logits[:MARKER].argmax())
            row.said.append(row.token)
            row.position += 1
        batch.leave([row for row in batch.rows if len(row.said) == 12])
        steps += 1
    return [row.said for row in rows]


def check(model):
    audio, lengths = clips(0.8, 1.5, 0.4)
    asked = [
        begin(model, [3, "a", 9], lengths[:1], audio[:1, :12800]),
        begin(model, [4], lengths[:0], audio[:0]),
        begin(model, [2, "a", 4, "a", 30], lengths[1:], audio[1:]),
        begin(model, [17], lengths[:0], audio[:0]),
    ]
    assert together(model, [row for row, _ in asked]) == [alone[:12] for _, alone in asked]


@pytest.mark.parametrize("setup", SETUPS)
def test_every_integration(setup):
    check(tiny_model(streams=SETUPS[setup]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family):
    check(tiny_model(family, streams=[stream("a", "prepend"), stream("b", "attend")]))
