"""Compiled norms and feed-forward blocks: the same numbers, the same names of weights, and undone where not wanted."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_recipe import tiny

from integration.tiny_models import clips, text, tiny_model
from ossicle.tiny import TINY_DECODERS
from ossicle.training.compiled import compile_blocks, compile_none
from ossicle.training.run import prepare


def compiled(model):
    return [name for name, module in model.named_modules() if module._compiled_call_impl is not None]


@pytest.mark.parametrize("family", TINY_DECODERS)
def test_every_family_has_norms_and_a_feed_forward_block_in_each_layer(family):
    model = tiny_model(family)
    names = list(model.state_dict())
    count, layers = compile_blocks(model.get_decoder()), len(model.get_decoder().layers)
    assert count in (3 * layers, 5 * layers), "two norms or four, and one block"
    assert len(compiled(model)) == count
    assert list(model.state_dict()) == names
    compile_none(model.get_decoder())
    assert compiled(model) == []


def test_a_stage_says_whether(tmp_path):
    recipe = tiny(tmp_path, "stages.1.compile=true").recipe
    model = tiny_model()
    for stage, count in ((recipe.stages[0], 0), (recipe.stages[1], 6), (recipe.stages[0], 0)):
        prepare(model, stage)
        assert len(compiled(model)) == count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # while it is traced
def test_the_same_logits_and_gradients_at_every_length():
    plain = tiny_model()
    other = copy.deepcopy(plain)
    compile_blocks(other.get_decoder())
    for rows, seconds in (([[3, "a", 9]], (0.7,)), ([[2, "a", 4], [7, "a", 1]], (0.4, 1.1)), ([[5]], (0.5,))):
        audio, lengths = clips(*seconds)
        ids, mask = text(plain, rows, lengths)
        heard = {"audio_values": audio, "audio_lengths": lengths} if any("a" in row for row in rows) else {}
        logits = [model(ids, attention_mask=mask, **heard).logits[mask.bool()] for model in (plain, other)]
        torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)
        for out in logits:
            out.square().mean().backward()
        for (name, a), b in zip(plain.named_parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-5, rtol=1e-3, msg=name)
