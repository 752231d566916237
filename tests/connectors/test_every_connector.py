"""What holds for every connector of the table: counts, rate, padding, gradients, times."""

from __future__ import annotations

import pytest
import torch

from ossicle import registry
from ossicle.audio.chunk import prefix_mask
from ossicle.connectors.base import Connector, build_connector
from ossicle.errors import ConfigError
from ossicle.tiny import TINY_CONNECTORS
from ossicle.types import AudioTokens, EncoderFacts

FACTS = EncoderFacts(dim=24, rate_hz=25.0, num_layers=2)
WIDTH = 20
KINDS = sorted(TINY_CONNECTORS)


def _connector(kind: str, **changes) -> Connector:
    torch.manual_seed(0)
    connector = build_connector({**TINY_CONNECTORS[kind], **changes}, FACTS, WIDTH).eval()
    connector.set_output_scale(0.5)
    return connector


def _tokens(*counts: int, seed: int = 0, length: int | None = None, fill: float = 0.0) -> AudioTokens:
    length = length or max(counts)
    rows = torch.full((len(counts), length, FACTS.dim), fill)
    for row, count in enumerate(counts):
        generator = torch.Generator().manual_seed(seed + row)
        rows[row, :count] = torch.randn(count, FACTS.dim, generator=generator)
    return AudioTokens(values=rows, valid=prefix_mask(torch.tensor(counts), length), rate_hz=FACTS.rate_hz)


def test_every_name_is_covered():
    assert set(registry.names("connectors")) == set(TINY_CONNECTORS)


@pytest.mark.parametrize("kind", KINDS)
def test_counted_tokens_are_produced_tokens(kind):
    connector = _connector(kind)
    for count in [*range(1, 25), 77]:
        out = connector(_tokens(count))
        assert out.values.shape == (1, connector.config.num_tokens(count), WIDTH)
        assert out.valid.all()
        assert out.rate_hz == connector.config.rate_hz(FACTS.rate_hz)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_and_neighbours_change_nothing(kind):
    connector = _connector(kind)
    for count in (1, 4, 5, 11):
        alone = connector(_tokens(count))
        for fill in (0.0, 3.0):
            together = connector(_tokens(count, 17, 8, fill=fill))
            kept = alone.values.shape[1]
            assert together.counts()[0] == kept
            torch.testing.assert_close(together.values[0, :kept], alone.values[0], atol=1e-5, rtol=1e-5)
            assert together.values[0, kept:].eq(0).all()
            assert torch.isfinite(together.values).all()


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_reach_every_parameter_and_only_real_tokens(kind):
    connector = _connector(kind).train()
    tokens = _tokens(4, 17)
    tokens.values.requires_grad_()
    out = connector(tokens)
    (out.values * torch.randn(out.values.shape, generator=torch.Generator().manual_seed(3))).sum().backward()
    missing = [name for name, parameter in connector.named_parameters() if parameter.grad is None]
    assert missing == []
    assert tokens.values.grad[0, :4].abs().sum(-1).gt(0).all()
    assert tokens.values.grad[0, 4:].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_order_of_time_matters(kind):
    """Two tokens change places: what comes out is another thing, not only in another order."""
    connector = _connector(kind)
    tokens, places = _tokens(12), [11, *range(1, 11), 0]
    got = connector(tokens.with_values(tokens.values[:, places])).values
    want = connector(tokens).values
    want = want[:, places] if want.shape[1] == 12 else want.flip(1)
    assert not torch.allclose(got, want, atol=1e-4)
    plain = _connector(kind, time_embedding=False)
    assert not torch.allclose(connector(tokens).values, plain(tokens).values)


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_start_changes_the_output(kind):
    connector = _connector(kind)
    tokens = _tokens(12)
    later = AudioTokens(values=tokens.values, valid=tokens.valid, rate_hz=tokens.rate_hz, start_s=30.0)
    assert not torch.allclose(connector(tokens).values, connector(later).values)
    assert connector(later).start_s == 30.0


@pytest.mark.parametrize("kind", KINDS)
def test_output_has_the_scale_of_text(kind):
    connector = _connector(kind, time_embedding=False)
    rms = connector(_tokens(40)).values.square().mean().sqrt()
    assert rms.item() == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "stack", "factor": 0}, "factor"),
        ({"kind": "pool", "factr": 2}, "did you mean 'factor'"),
        ({"kind": "qformer", "hidden": 10, "heads": 3}, "multiple of heads"),
        ({"kind": "tltr", "heads": 7}, "no multiple of heads"),
    ],
)
def test_settings_that_do_not_fit(spec, message):
    with pytest.raises(ConfigError, match=message):
        build_connector(spec, FACTS, WIDTH)
