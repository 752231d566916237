"""What every encoder and connector takes and returns, with shapes and types checked at run time."""

import pytest
import torch
from beartype import beartype
from jaxtyping import Bool, Float, Int, jaxtyped
from torch import Tensor

from ossicle.connectors.base import build_connector
from ossicle.encoders.base import build_encoder
from ossicle.tiny import TINY_CONNECTORS, TINY_ENCODERS, tiny_encoder
from ossicle.types import AudioTokens


@jaxtyped(typechecker=beartype)
def _encode(part, audio: Float[Tensor, "C S"], lengths: Int[Tensor, " C"]) -> Float[Tensor, "C N D"]:
    tokens = part(audio, lengths)
    _check(tokens, len(audio))
    assert tokens.values.shape[-1] == part.facts.dim
    return tokens.values


@jaxtyped(typechecker=beartype)
def _check_mask(values: Float[Tensor, "C N D"], valid: Bool[Tensor, "C N"], times_s: Float[Tensor, " N"]) -> None:
    prefix = valid.int().diff(dim=1) <= 0
    assert prefix.all(), "valid tokens are a prefix of their row"


def _check(tokens: AudioTokens, num_clips: int) -> None:
    assert len(tokens.values) == num_clips
    _check_mask(tokens.values, tokens.valid, tokens.times_s())


@pytest.mark.parametrize("kind", sorted(TINY_ENCODERS))
def test_an_encoder_keeps_its_shapes(kind):
    _encode(build_encoder(TINY_ENCODERS[kind]), torch.randn(2, 24000) / 9, torch.tensor([24000, 9000]))


@pytest.mark.parametrize("kind", sorted(TINY_CONNECTORS))
def test_a_connector_keeps_its_shapes(kind):
    encoder = tiny_encoder("cnn")
    connector = build_connector(TINY_CONNECTORS[kind], encoder.facts, 24)
    tokens = connector(encoder(torch.randn(2, 9000), torch.tensor([9000, 99])))
    assert tokens.values.shape[-1] == 24
    _check(tokens, 2)


def test_the_check_can_fail():
    with pytest.raises(Exception, match="valid"):
        _check_mask(torch.zeros(2, 3, 4), torch.ones(2, 5, dtype=torch.bool), torch.zeros(3))
