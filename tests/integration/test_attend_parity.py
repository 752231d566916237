"""The fast LAL path equals the naive reference in every decoder family, under padding, grouped queries and options."""

from __future__ import annotations

import copy

import pytest
import torch

from integration.naive_lal import naive_logits
from integration.tiny_models import clips, stream, text, tiny_model
from ossicle.tiny import TINY_DECODERS

ROWS = [[3, "a", 9], [2, "a", 4, "a", 6], [7]]
OPTIONS = [
    {},
    {"positions": "block"},
    {"positions": "zero"},
    {"norm": False},
    {"visibility": "all"},
    {"layers": {"skip_first": 1}},
    {"layers": [0]},
]


def naive_of(model, ids, mask, memory, placement, row):
    real = mask[row].bool()
    segment = memory.segments[0]
    audible = segment.visible_from[row] < 2**30
    return naive_logits(
        copy.deepcopy(model.language_model),
        model.embed(ids, memory)[row, real],
        placement.positions[row, real],
        states=segment.states[row, audible],
        at=segment.positions[row, audible],
        visible_from=segment.visible_from[row, audible],
        layers=segment.layers,
        norm=segment.norm,
    )


def check(model):
    audio, lengths = clips(0.7, 0.4, 1.1)
    ids, mask = text(model, ROWS, lengths)
    with torch.no_grad():
        fast = model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths).logits
        memory, placement = model.remember(ids, mask, model.connect(model.encode(audio, lengths)))
        for row in range(len(ROWS)):
            slow = naive_of(model, ids, mask, memory, placement, row)
            torch.testing.assert_close(fast[row, mask[row].bool()], slow, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("decoder", TINY_DECODERS)
def test_family_equals_naive(decoder):
    check(tiny_model(decoder))


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_option_equals_naive(options):
    check(tiny_model(streams=[stream(**options)]))


@pytest.mark.parametrize("decoder", ["qwen3", "gemma3", "smollm3"])
def test_block_positions_in_other_rotary_schemes(decoder):
    check(tiny_model(decoder, [stream(positions="block")]))
