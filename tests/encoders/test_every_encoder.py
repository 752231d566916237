"""What holds for every encoder of the table: counts, padding, batches, windows, gradients, taps."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle import registry
from ossicle.encoders.base import Encoder, build_encoder
from ossicle.tiny import TINY_ENCODERS, tiny_encoder

KINDS = sorted(TINY_ENCODERS)
TAUGHT = [kind for kind in KINDS if kind != "level"]
"""Encoders with weights; `level` has none, and so no layers to tap."""
_built: dict[str, Encoder] = {}


def _encoder(kind: str) -> Encoder:
    if kind not in _built:
        torch.manual_seed(0)
        _built[kind] = tiny_encoder(kind)
        with torch.no_grad():
            for parameter in _built[kind].parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape))
    return _built[kind]


def _clip(samples: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.2 * torch.randn(samples, generator=generator)


def _encode(encoder: Encoder, *clips: torch.Tensor):
    lengths = torch.tensor([len(clip) for clip in clips])
    return encoder(torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True), lengths)


def test_every_name_is_covered():
    alone = {name for name, target in registry.names("encoders").items() if target.startswith("ossicle.encoders.")}
    assert alone == set(TINY_ENCODERS)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=15, deadline=None, derandomize=True)
@given(data=st.data())
def test_counted_tokens_are_produced_tokens(kind, data):
    encoder = _encoder(kind)
    window = encoder.config.window_samples
    samples = data.draw(
        st.one_of(st.integers(1, 3 * window), st.sampled_from([1, 399, 400, window - 1, window, window + 1]))
    )
    with torch.no_grad():
        tokens = _encode(encoder, _clip(samples))
    assert tokens.values.shape == (1, encoder.config.num_tokens(samples), encoder.facts.dim)
    assert tokens.valid.all()
    assert tokens.values.shape[1] >= 1
    assert torch.isfinite(tokens.values).all()
    assert tokens.rate_hz == encoder.facts.rate_hz


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.001, 0.3, 1.0, 1.7])
def test_a_clip_alone_is_a_clip_in_a_batch(kind, share):
    encoder = _encoder(kind)
    window = encoder.config.window_samples
    clip, longer = _clip(max(1, round(share * window))), _clip(round(2.4 * window), 1)
    with torch.no_grad():
        alone, together = _encode(encoder, clip), _encode(encoder, longer, clip, clip)
    count = alone.values.shape[1]
    assert together.counts().tolist()[1:] == [count, count]
    torch.testing.assert_close(together.values[1, :count], alone.values[0], atol=1e-5, rtol=1e-5)
    assert together.values[1, count:].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_windows_are_independent_where_declared(kind):
    encoder = _encoder(kind)
    window = encoder.config.window_samples
    if not encoder.facts.windowed:
        pytest.skip("declares that it is not windowed")
    first, second = _clip(window), _clip(window, 1)
    with torch.no_grad():
        both = _encode(encoder, torch.cat([first, second])).values[0]
        apart = torch.cat([_encode(encoder, first).values[0], _encode(encoder, second).values[0]])
    torch.testing.assert_close(both, apart, atol=1e-5, rtol=1e-5)
    seconds = len(both) / encoder.facts.rate_hz
    assert seconds == pytest.approx(2 * window / 16_000, rel=1e-3)


@pytest.mark.parametrize("kind", TAUGHT)
def test_gradients_reach_what_trains(kind):
    encoder = tiny_encoder(kind).train()
    clips = [_clip(encoder.config.window_samples // 2), _clip(encoder.config.window_samples, 1)]
    tokens = _encode(encoder, *clips)
    tokens.values.square().sum().backward()
    names = [name for name, parameter in encoder.named_parameters() if parameter.requires_grad]
    reached = [name for name in names if encoder.get_parameter(name).grad is not None]
    assert len(reached) >= 0.8 * len(names) > 0
    encoder.requires_grad_(False)
    assert not _encode(encoder.eval(), *clips).values.requires_grad


@pytest.mark.parametrize("kind", TAUGHT)
def test_taps_are_stacked_in_width(kind):
    layered = tiny_encoder(kind, layers="all")
    count = layered.facts.num_layers
    clip = _clip(layered.config.window_samples // 2)
    picked = build_encoder({**TINY_ENCODERS[kind], "layers": [0, -1]}).eval()
    picked.load_state_dict(layered.state_dict())
    with torch.no_grad():
        everything, two = _encode(layered, clip).values, _encode(picked, clip).values
    assert everything.shape[-1] == layered.facts.dim
    assert two.shape[-1] == picked.facts.dim
    if count > 1:
        width = layered.facts.dim // count
        assert picked.facts.num_layers == 2
        torch.testing.assert_close(two, torch.cat([everything[..., :width], everything[..., -width:]], -1))
        assert not torch.allclose(two[..., :width], two[..., width:])


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "architecture" in TINY_ENCODERS[kind]])
def test_checkpointing_changes_no_gradient(kind):
    """Blocks whose outputs are tapped run twice, and the taps stay those of the first run."""
    encoder = tiny_encoder(kind, layers="all").train()
    if not encoder.model.supports_gradient_checkpointing:
        pytest.skip("transformers cannot checkpoint this family")
    for module in encoder.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    clip = _clip(encoder.config.window_samples // 2)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            encoder.model.gradient_checkpointing_enable({"use_reentrant": False})
        encoder.zero_grad()
        torch.manual_seed(0)
        _encode(encoder, clip).values.square().sum().backward()
        gradients.append({name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, atol=1e-5, rtol=1e-3, msg=lambda t, n=name: n + t)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_goes_all_the_way(kind):
    encoder = copy.deepcopy(_encoder(kind))
    clip = _clip(encoder.config.window_samples // 2)
    with torch.no_grad():
        want = _encode(encoder, clip).values
        with torch.autocast("cpu", torch.bfloat16):
            mixed = _encode(encoder, clip).values
        half = _encode(encoder.to(torch.bfloat16), clip).values
    assert half.dtype == torch.bfloat16
    for got in (half, mixed):
        assert (got.float() - want).abs().mean() < 0.05 * want.abs().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_no_buffer_is_lost_when_built_without_memory(kind):
    """Models are built on the meta device and filled from a file: what the file does not hold would stay garbage."""
    encoder = _encoder(kind)
    kept = set(encoder.state_dict())
    assert {name for name, _ in encoder.named_buffers()} <= kept


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_the_base_size_hears_eleven_seconds(kind):
    encoder = build_encoder({"kind": kind}).eval()
    samples = 11 * 16_000
    with torch.no_grad():
        tokens = _encode(encoder, _clip(samples))
    assert tokens.values.shape[1:] == (encoder.config.num_tokens(samples), encoder.facts.dim)
    assert torch.isfinite(tokens.values).all()
