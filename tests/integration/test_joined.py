"""Audio and text in one softmax: the path without a mask is the masked one, and masks are made once for all layers."""

from __future__ import annotations

import pytest
import torch

from integration.tiny_models import clips, stream, text, tiny_model
from ossicle.integration import joined
from ossicle.integration.joined import Joined, View, attend, deaf_rows, full_mask


def parts(heads=4, shared=2, length=7, audio=5, seed=0):
    torch.manual_seed(seed)
    shapes = [(2, heads, length, 8), *[(2, shared, audio, 8)] * 2, *[(2, shared, length, 8)] * 2]
    return [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("deaf", [0, 1, 3, 6, 7])
@pytest.mark.parametrize("shared", [1, 4])
def test_without_a_mask_as_with_one(deaf, shared):
    query, audio_key, audio_value, key, value = given = parts(shared=shared)
    positions = torch.arange(7).expand(2, -1)
    from_where = torch.full((2, 5), deaf)
    view = View(deaf=deaf_rows(query, key, None, positions, from_where))
    assert view.deaf == deaf
    masked = View(mask=full_mask(query, key, None, positions, from_where))
    outs, grads = [], []
    for one in (view, masked):
        outs.append(attend(query, (audio_key, audio_value), (key, value), one))
        grads.append(torch.autograd.grad(outs[-1].square().sum(), given, allow_unused=True, materialize_grads=True))
    torch.testing.assert_close(*outs, atol=1e-10, rtol=0)
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b, atol=1e-10, rtol=0)


def test_a_batch_whose_rows_differ_needs_a_mask():
    query, _, _, key, _ = parts()
    positions = torch.arange(7).expand(2, -1)
    unlike = torch.full((2, 5), 3)
    unlike[1] = 2
    padded = torch.full((2, 5), 3)
    padded[1, -1] = 2**30
    text_mask = torch.ones(2, 1, 7, 7, dtype=torch.bool)
    assert deaf_rows(query, key, None, positions, unlike) is None
    assert deaf_rows(query, key, None, positions, padded) is None
    assert deaf_rows(query, key, text_mask, positions, torch.full((2, 5), 3)) is None


def the_same_without_a_mask(monkeypatch, model, ids, mask, connected):
    made = []
    monkeypatch.setattr(joined, "full_mask", lambda *args: made.append(1) or full_mask(*args))
    logits = []
    with torch.no_grad():
        for split in (False, True):
            memory, placement = model.remember(ids, mask, connected)
            memory.joined = Joined(split=split)
            logits.append(model(ids, audio_memory=memory, position_ids=placement.positions).logits)
            assert len(made) == 1, "one mask for all layers, and none where none is needed"
    torch.testing.assert_close(*logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("options", [{}, {"positions": "block"}, {"visibility": "all"}], ids=str)
def test_a_model_without_a_mask_as_with_one(options, monkeypatch):
    model = tiny_model(streams=[stream(**options)])
    audio, lengths = clips(0.7, 0.7)
    ids, mask = text(model, [[3, "a", 9], [3, "a", 9]], lengths)
    connected = model.connect(model.encode(audio, lengths))
    the_same_without_a_mask(monkeypatch, model, ids, mask, connected)


def test_a_stream_without_a_token_needs_no_mask(monkeypatch):
    model = tiny_model(streams=[stream()])
    audio, lengths = clips(0.7)
    ids, mask = text(model, [[3, "a", 9]], lengths)
    connected = model.connect(model.encode(audio, lengths))
    nothing = {
        name: tokens.with_values(tokens.values[:, :0], valid=tokens.valid[:, :0]) for name, tokens in connected.items()
    }
    the_same_without_a_mask(monkeypatch, model, ids, mask, nothing)
