"""The chunked loss is the plain one, to its gradients, and what it keeps does not grow with vocabulary × rows."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ossicle import loss
from ossicle.bench.measure import kept_for_backward


def case(bias=True, vocab=97, rows=23, width=16):
    torch.manual_seed(0)
    head = nn.Linear(width, vocab, bias=bias)
    return head, torch.randn(rows, width, requires_grad=True), torch.randint(0, vocab, (rows,))


def made(head, hidden, targets, chunk, monkeypatch, **options):
    monkeypatch.setitem(loss.CHUNK, "cpu", chunk)
    value = loss.head_loss(head, hidden, targets, 7, **options)
    inputs = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    return value, torch.autograd.grad(value * 3, inputs)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_chunks_change_nothing(bias, frozen, monkeypatch):
    head, hidden, targets = case(bias)
    head.requires_grad_(not frozen)
    whole, many = (made(head, hidden, targets, chunk, monkeypatch, routing=0.5) for chunk in (10**9, 97 * 5))
    torch.testing.assert_close(many[0], whole[0], atol=1e-5, rtol=1e-6)
    for a, b in zip(many[1], whole[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_a_head_of_another_kind_changes_nothing(monkeypatch):
    head, hidden, targets = case()
    head.register_forward_hook(lambda module, args, out: out * 2)
    whole, many = (made(head, hidden, targets, chunk, monkeypatch) for chunk in (10**9, 97 * 5))
    torch.testing.assert_close(many[0], whole[0], atol=1e-5, rtol=1e-6)
    for a, b in zip(many[1], whole[1], strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def test_autocast(monkeypatch):
    head, hidden, targets = case()
    with torch.autocast("cpu", torch.bfloat16):
        whole, many = (made(head, hidden, targets, chunk, monkeypatch) for chunk in (10**9, 97 * 5))
    torch.testing.assert_close(many[0], whole[0], atol=2e-2, rtol=1e-3)
    for a, b in zip(many[1], whole[1], strict=True):
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, atol=2e-2, rtol=2e-2)


def test_what_is_kept_does_not_grow_with_the_vocabulary_times_the_rows(monkeypatch):
    monkeypatch.setitem(loss.CHUNK, "cpu", 4000)
    kept = {}
    for rows in (20, 200):
        head, hidden, targets = case(vocab=1000, rows=rows, width=4)
        kept[rows] = kept_for_backward(
            lambda h=head, x=hidden, t=targets: loss.head_loss(h, x, t, 1), [*head.parameters()]
        )
    assert kept[200] - kept[20] <= 180 * 4 * 4 + 64, "only the gradient of the hidden states grows with the rows"


@pytest.mark.parametrize("chunk", [10**9, 97 * 5])
@pytest.mark.parametrize("hooked", [False, True])
def test_a_label_weighs_what_it_is_given(chunk, hooked, monkeypatch):
    head, hidden, targets = case()
    if hooked:
        head.register_forward_hook(lambda module, args, out: out * 2)
    weights = torch.rand(len(targets)) * 3
    value, grads = made(head, hidden, targets, chunk, monkeypatch, weights=weights)
    expected = (nn.functional.cross_entropy(head(hidden), targets, reduction="none") * weights).sum() / 7
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-6)
    for a, b in zip(grads, torch.autograd.grad(expected * 3, [hidden, *head.parameters()]), strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
