"""The fast LAL path equals the naive reference in every decoder family, under padding, grouped queries and options."""

from __future__ import annotations

import copy

import pytest
import torch

from integration.naive_lal import AUDIO, naive_logits
from integration.pairwise import covering
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


def naive_of(model, ids, mask, memory, placement, row, decoder=None):
    real = mask[row].bool()
    segment = memory.segments[0]
    audible = segment.visible_from[row] < 2**30
    return naive_logits(
        decoder or naive_decoder(model, segment.own),
        model.embed(ids, memory)[row, real],
        placement.positions[row, real],
        states=segment.states[row, audible],
        at=segment.positions[row, audible],
        visible_from=segment.visible_from[row, audible],
        layers=segment.layers,
        norm=segment.norm,
    )


def naive_decoder(model, own=None):
    """A copy of the decoder; projections of the audio's own stand in for the layer's while it is caught."""
    decoder = copy.deepcopy(model.language_model)
    for place, pair in () if own is None else own.items():
        attention = decoder.get_decoder().layers[int(place)].self_attn
        for name in ("k_proj", "v_proj"):
            mine = getattr(pair, name)
            getattr(attention, name).register_forward_hook(
                lambda module, args, out, mine=mine: mine(args[0]) if AUDIO["catching"] else out
            )
    return decoder


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


CHOICES = {
    "own_projections": {"decoder's": False, "own": True},
    "norm": {"norm": True, "raw": False},
    "layers": {"all": "all", "later": {"skip_first": 1}, "first": [0]},
    "positions": {name: name for name in ("marker", "block", "zero")},
    "visibility": {name: name for name in ("after", "all")},
    "feed_forward": {"frozen": False, "trained": True},
}
PAIRWISE = covering({axis: list(values) for axis, values in CHOICES.items()})


@pytest.mark.parametrize("row", PAIRWISE, ids=lambda row: "-".join(row.values()))
def test_options_in_pairs_give_the_naive_logits_and_gradients(row):
    """Feed-forward blocks frozen or trained: the gradients of what trains are the naive reference's, and no others."""
    options = {axis: CHOICES[axis][value] for axis, value in row.items()}
    trained = options.pop("feed_forward")
    model = tiny_model(streams=[stream(**options)])
    for name, parameter in model.language_model.named_parameters():
        parameter.requires_grad_(trained and ".mlp." in name)
    if model.streams.ear.integration.own is not None:
        with torch.no_grad():
            for parameter in model.streams.ear.integration.own.parameters():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    audio, lengths = clips(0.4, 0.2)
    ids, mask = text(model, [[3, "a", 4, "a", 3]], lengths)

    def hear():
        model.zero_grad()
        return model.remember(ids, mask, model.connect(model.encode(audio, lengths)))

    memory, placement = hear()
    fast = model(ids, attention_mask=mask, position_ids=placement.positions, audio_memory=memory).logits[0]
    fast.square().sum().backward()
    heard = {**gradients(model.streams), **gradients(model.language_model)}
    memory, placement = hear()
    decoder = naive_decoder(model, memory.segments[0].own)
    slow = naive_of(model, ids, mask, memory, placement, 0, decoder)
    torch.testing.assert_close(fast, slow, atol=2e-5, rtol=1e-4)
    slow.square().sum().backward()
    wanted = {**gradients(model.streams), **gradients(decoder)}
    assert heard.keys() == wanted.keys() and len(heard) > 4
    assert any(".mlp." in name and ".layers." in name for name in heard) == trained
    for name, gradient in wanted.items():
        torch.testing.assert_close(heard[name], gradient, atol=1e-4, rtol=1e-3, msg=lambda said, name=name: name + said)


def gradients(module):
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}
