"""Routing that learns: gradients, finding the encoder that hears, following the sound, and choosing without collapse.

frame   | family | label in one of four places, noise in the others |        encoder k hears place k alone
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from mixtures.stubs import STRIDE, stub
from ossicle.encoders.base import build_encoder
from ossicle.mixtures import balance
from ossicle.mixtures.routers import Route, sparse

HOP, FRAMES, MEMBERS, DIM = 400, 4, 4, 4
BASE = stub(6, dim=MEMBERS)


def sounds(places, seed, noise=0.3):
    """Clips whose label is written at their own place, and whose place the base can hear."""
    generator = torch.Generator().manual_seed(seed)
    count = len(places)
    labels = torch.randint(0, 2, (count,), generator=generator)
    frames = noise * torch.randn(count, FRAMES, HOP, generator=generator)
    pattern = torch.tensor([1.0, -1.0, 1.0, -1.0])
    for clip, (place, label) in enumerate(zip(places, labels.tolist(), strict=True)):
        frames[clip, :, STRIDE * place : STRIDE * place + DIM] = pattern * (1.0 if label else -1.0)
        frames[clip, :, STRIDE * 6 + place] += 2.0
    return frames.flatten(1), torch.full((count,), HOP * FRAMES), labels


def mixture(seed, **settings):
    torch.manual_seed(seed)
    spec = {"kind": "mowe", "base": BASE, "pool": [stub(k) for k in range(MEMBERS)], "width": 4, **settings}
    encoder = build_encoder(spec)
    encoder.base.requires_grad_(False)
    encoder.pool.requires_grad_(False)
    return encoder.train()


def train(encoder, places, seed, steps=120, auxiliary=True):
    """Train routers, maps and a linear head; return the loss without the routing loss."""
    audio, lengths, labels = sounds(places, seed)
    head = nn.Linear(encoder.facts.dim, 2)
    optimiser = torch.optim.Adam([*encoder.router.parameters(), *head.parameters()], lr=0.05)
    with torch.no_grad():
        features = encoder.features(audio, lengths)
    for step in range(steps):
        encoder.set_progress(step / (steps - 1))
        tokens = encoder.finish(features)
        loss = nn.functional.cross_entropy(head(tokens.values.relu().mean(1)), labels)
        extra = encoder.config.loss_weight * sum(encoder.auxiliary_loss().values()) if auxiliary else 0.0
        optimiser.zero_grad()
        (loss + extra).backward()
        optimiser.step()
    return float(loss.detach())


def routes(encoder, places, seed=1000):
    audio, lengths, _ = sounds(places, seed)
    encoder.eval()
    with torch.no_grad():
        encoder(audio, lengths)
    return {route.router: route for route in encoder.trace}


@pytest.mark.parametrize("straight_through", [False, True])
def test_the_router_has_a_gradient_when_one_encoder_is_kept(straight_through):
    encoder = mixture(0, top_k=1, straight_through=straight_through)
    encoder.set_progress(1.0)
    audio, lengths, _ = sounds([0, 1, 2, 3] * 2, 0)
    values = encoder(audio, lengths).values
    (values * torch.randn(values.shape, generator=torch.Generator().manual_seed(5))).sum().backward()
    assert encoder.router.independent.logits.grad.abs().min() > 0
    assert encoder.router.dependent.layers[-1].weight.grad.abs().sum() > 0
    assert sum(linear.weight.grad.abs().sum() for linear in encoder.router.maps) > 0
    assert all(parameter.grad is None for parameter in [*encoder.base.parameters(), *encoder.pool.parameters()])


def test_a_renormalised_weight_would_have_none():
    """Why selected weights stay as the softmax made them: at k = 1 a renormalised one is 1, whatever the logits are."""
    logits = torch.tensor([[0.3, -0.2]], requires_grad=True)
    weights = sparse(logits.softmax(-1), 1, 1.0)
    (weights / weights.sum(-1, keepdim=True))[0, 0].backward(retain_graph=True)
    assert logits.grad.abs().max() < 1e-6
    weights[0, 0].backward()
    assert logits.grad.abs().max() > 0.1


@pytest.mark.parametrize("seed", range(5))
def test_both_routers_find_the_encoder_that_hears(seed):
    wanted = seed % MEMBERS
    alone = [["independent"], ["dependent"]] if seed == 2 else []  # together is the harder case
    for routers in [["independent", "dependent"], *alone]:
        encoder = mixture(seed, routers=routers)
        train(encoder, [wanted] * 64, seed, steps=60)
        for route in routes(encoder, [wanted] * 16).values():
            assert (route.weights.argmax(-1) == wanted).all(), (routers, route.probabilities[0])
            assert (route.weights > 0).sum(-1).eq(1).all()


@pytest.mark.parametrize("seed", range(5))
def test_the_dependent_router_follows_the_sound_and_the_independent_one_stays(seed):
    places = [0, 1, 2, 3] * 16
    encoder = mixture(seed)
    train(encoder, places, seed, steps=120)
    found = routes(encoder, places)
    right = found["dependent"].weights.argmax(-1) == torch.tensor(places)
    assert right.float().mean() >= 0.8
    assert found["independent"].weights.unique(dim=0).shape[0] == 1


@pytest.mark.parametrize("seed", range(3))
def test_selectivity_sharpens_without_collapse(seed):
    places = [0, 1, 2, 3] * 16
    entropies, used = {}, {}
    for weight in (0.0, 1.0):
        encoder = mixture(seed, routers=["dependent"], selectivity=weight, top_k=None)
        train(encoder, places, seed, steps=40)
        p = routes(encoder, places)["dependent"].probabilities
        entropies[weight] = float(balance.entropy(p).mean())
        used[weight] = p.argmax(-1).unique()
    assert entropies[1.0] <= 0.7 * entropies[0.0]
    assert len(used[1.0]) == MEMBERS


def _route(p, name="dependent"):
    p = torch.tensor(p)
    return Route(router=name, members=("a", "b"), probabilities=p, weights=p)


def test_terms_have_known_values():
    sure_same, sure_apart, unsure = _route([[1.0, 0], [1, 0]]), _route([[1.0, 0], [0, 1]]), _route([[0.5, 0.5]] * 2)
    for route, selectivity, diversity, load in ((sure_same, 0, 1, 1), (sure_apart, 0, 0, 0), (unsure, 1, 0, 0)):
        assert float(balance.selectivity([route])) == pytest.approx(selectivity, abs=1e-6)
        assert float(balance.diversity([route])) == pytest.approx(diversity, abs=1e-6)
        assert float(balance.balance([route])) == pytest.approx(load, abs=1e-6)
    assert float(balance.selectivity([unsure, unsure])) == pytest.approx(2)


def test_terms_are_switched_by_name_and_gone_in_evaluation():
    audio, lengths, _ = sounds([0, 1], 0)
    encoder = mixture(0, balance=2.0, diversity=0.0)
    encoder(audio, lengths)
    assert set(encoder.auxiliary_loss()) == {"balance"}  # selectivity waits until routers grow hard
    encoder.set_progress(1.0)
    encoder(audio, lengths)
    terms = encoder.auxiliary_loss()
    assert set(terms) == {"selectivity", "balance"}
    assert float(terms["selectivity"].detach()) == pytest.approx(2.0)  # two routers, both still undecided
    encoder.eval()(audio, lengths)
    assert encoder.auxiliary_loss() == {}
    alone = mixture(0, routers=["independent"], balance=1.0)
    alone.set_progress(0.7)
    alone(audio, lengths)
    assert set(alone.auxiliary_loss()) == {"selectivity"}


def test_routers_grow_hard_and_never_soft_again():
    encoder = mixture(0, hold=0.25, hard_from=0.75)
    assert [encoder.config.sparsity(x) for x in (0.0, 0.25, 0.5, 0.75, 1.0)] == [0.0, 0.0, 0.5, 1.0, 1.0]
    encoder.set_progress(0.6)
    encoder.set_progress(0.2)
    assert float(encoder.router.progress) == pytest.approx(0.6)
    encoder.router.requires_grad_(False)
    encoder.set_progress(1.0)
    assert float(encoder.router.progress) == pytest.approx(0.6)
    p = torch.tensor([[0.5, 0.3, 0.2]])
    torch.testing.assert_close(sparse(p, 1, 0.5), torch.tensor([[0.5, 0.15, 0.1]]))
    torch.testing.assert_close(sparse(p, 2, 1.0, straight_through=True), torch.tensor([[0.5, 0.5, 0.0]]))
    assert torch.equal(sparse(p, None, 1.0), p)


OPTIONS = {
    "routers": [["independent"], ["dependent"], ["dependent", "independent"]],
    "top_k": [None, 1, 2, 4],
    "straight_through": [False, True],
    "temperature": [0.3, 2.0],
    "noise": [0.0, 0.5],
    "router_hidden": [None, 8],
    "concat": ["feature", "time"],
    "width": [4, 6],
    "norm": [False, True],
    "hold": [0.0, 0.8],
    "hard_from": [0.4, 1.0],
    "selectivity": [0.0, 1.0],
    "diversity": [0.0, 1.0],
    "balance": [0.0, 1.0],
    "loss_weight": [0.0, 0.1],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in OPTIONS.items() for value in values])
def test_every_choice_the_paper_leaves_open_builds_and_learns(name, value):
    encoder = mixture(0, **{name: value})
    audio, lengths, _ = sounds([0, 1, 2, 3], 0)
    for progress in (0.0, 0.6, 1.0):
        encoder.set_progress(progress)
        tokens = encoder(audio, lengths)
        total = tokens.values.square().mean() + encoder.config.loss_weight * sum(encoder.auxiliary_loss().values())
        encoder.zero_grad()
        total.backward()
        grads = [parameter.grad for parameter in encoder.router.parameters()]
        assert all(grad is not None and grad.isfinite().all() for grad in grads)
        assert sum(float(grad.abs().sum()) for grad in grads) > 0
