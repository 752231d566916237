"""Each connector's own part against a loop that does the plain thing, token by token."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from ossicle.audio.chunk import prefix_mask
from ossicle.connectors.base import build_connector, sinusoid
from ossicle.types import AudioTokens, EncoderFacts

FACTS = EncoderFacts(dim=6, rate_hz=10.0)
PLAIN = {"time_embedding": False, "output_norm": False}


def _tokens(*counts: int) -> AudioTokens:
    values = torch.randn(len(counts), max(counts), FACTS.dim, generator=torch.Generator().manual_seed(5))
    valid = prefix_mask(torch.tensor(counts), max(counts))
    return AudioTokens(values=values * valid[..., None], valid=valid, rate_hz=FACTS.rate_hz)


def _connector(kind: str, **fields):
    torch.manual_seed(2)
    connector = build_connector({"kind": kind, **PLAIN, **fields}, FACTS, 8).eval()
    with torch.no_grad():
        for parameter in connector.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    return connector


@pytest.mark.parametrize("counts", [(7, 3), (8, 1)])
def test_stack(counts):
    connector, tokens = _connector("stack", factor=4), _tokens(*counts)
    out = connector(tokens)
    for row, count in enumerate(counts):
        for place, start in enumerate(range(0, count, 4)):
            stacked = [tokens.values[row, i] if i < count else torch.zeros(FACTS.dim) for i in range(start, start + 4)]
            torch.testing.assert_close(out.values[row, place], connector.layers(torch.cat(stacked)))
    assert out.rate_hz == 2.5


@pytest.mark.parametrize("counts", [(7, 3), (8, 1)])
def test_pool(counts):
    connector, tokens = _connector("pool", factor=4), _tokens(*counts)
    out = connector(tokens)
    for row, count in enumerate(counts):
        for place, start in enumerate(range(0, count, 4)):
            mean = tokens.values[row, start : min(count, start + 4)].mean(0)
            torch.testing.assert_close(out.values[row, place], connector.layers(mean))


def _fitted_tags(*, bound):
    connector = _connector("tags", factor=4, length=2, tags=["a", "b", "c"], examples=5, gamma=0.7)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name in ("mean", "examples", "says"):
            buffer = getattr(connector, name)
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.5)
        connector.spread.uniform_(0.5, 2, generator=generator)
        connector.bound.fill_(bound)
    return connector


@pytest.mark.parametrize("counts", [(7, 3), (8, 1)])
@pytest.mark.parametrize("bound", [-5.0, 0.0, 5.0])
def test_tags(counts, bound):
    connector, tokens = _fitted_tags(bound=bound), _tokens(*counts)
    out = connector(tokens)
    for row, count in enumerate(counts):
        said = []
        for start in range(0, count, 4):
            real = tokens.values[row, start : min(count, start + 4)]
            pooled = (torch.cat([real.mean(0), real.max(0).values]) - connector.mean) / connector.spread
            scores = torch.zeros(4)
            for example, says in zip(connector.examples, connector.says, strict=True):
                scores += torch.exp(-0.7 * (pooled - example).square().mean()) * says
            said += [*connector.names[scores[:3].argmax()]] if scores[3] > bound else []
        assert out.counts()[row] == len(said)
        assert not said or torch.equal(out.values[row, : len(said)], torch.stack(said))
        assert not out.values[row, len(said) :].any()
    assert {-5.0: out.valid.any(1).all(), 5.0: not out.valid.any()}.get(bound, True)


def test_only_the_names_of_tags_learn():
    connector = _fitted_tags(bound=-5.0)
    connector(_tokens(8, 8)).values.square().sum().backward()
    assert [name for name, _ in connector.named_parameters()] == ["names"]
    assert connector.names.grad.abs().sum() > 0


def test_conv():
    connector, tokens = _connector("conv", depth=2, hidden=5), _tokens(9, 4)
    out = connector(tokens)
    for row, count in enumerate((9, 4)):
        states = list(tokens.values[row, :count])
        for convolution in connector.convolutions:
            padded = [torch.zeros_like(states[0]), *states, torch.zeros_like(states[0])]
            states = [
                functional.gelu(
                    convolution.bias + sum(convolution.weight[:, :, k] @ padded[start + k] for k in range(3))
                )
                for start in range(0, len(states), 2)
            ]
        torch.testing.assert_close(out.values[row, : len(states)], connector.linear(torch.stack(states)))


@pytest.mark.parametrize("window", [None, 4])
def test_qformer(window):
    connector = _connector("qformer", queries=3, window_tokens=window, hidden=8, heads=2, depth=2)
    counts = (9, 5)
    tokens = _tokens(*counts)
    out = connector(tokens)
    for row, count in enumerate(counts):
        memory = connector.token_in(connector.token_norm(tokens.values[row, :count]))
        memory = connector.memory_norm(memory + sinusoid((torch.arange(count) + 0.5) / 10, 8))
        size = window or count
        for group, start in enumerate(range(0, count, size)):
            states = connector.queries
            for block in connector.blocks:
                normed = block.norms[0](states)
                states = states + _attend(block.to_queries, normed, normed)
                states = states + _attend(block.to_tokens, block.norms[1](states), memory[start : start + size])
                states = states + block.feed_forward(block.norms[2](states))
            got = out.values[row, 3 * group : 3 * group + 3]
            torch.testing.assert_close(got, connector.linear(connector.norm(states)), atol=1e-5, rtol=1e-5)
    assert out.rate_hz == (7.5 if window else 10.0)


def _attend(attention, x, memory):
    query, (key, value) = attention.query(x), attention.key_value(memory).chunk(2, -1)
    heads = []
    for part in range(2):
        here = slice(4 * part, 4 * part + 4)
        weights = (query[:, here] @ key[:, here].T / 2).softmax(-1)
        heads.append(weights @ value[:, here])
    return attention.out(torch.cat(heads, -1))


def test_global_queries_have_the_clips_start_as_time():
    connector = _connector("qformer", queries=3, hidden=8, heads=2)
    out = connector(AudioTokens(**{**_parts(_tokens(9)), "start_s": 4.0}))
    assert out.values.shape[1] == 3
    assert connector.times_s(out).tolist() == [4.0, 4.0, 4.0]


def _parts(tokens: AudioTokens) -> dict:
    return {"values": tokens.values, "valid": tokens.valid, "rate_hz": tokens.rate_hz}
