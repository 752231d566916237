"""The analytic model of a step agrees with torch's own counter, forward and backward, for every variant."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ossicle import loss
from ossicle.bench import flops, measure, shapes
from ossicle.bench.integrations import PEERS, Setting, Variant
from ossicle.bench.peers import Peer

SMALL = shapes.Shape(
    decoder=shapes._decoder("llama", 2, 64, 4, 2, 96, 300), batch=2, audio_tokens=40, text_tokens=24, label_tokens=8
)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "test-small", SMALL)


@pytest.mark.parametrize("name", shapes.VARIANTS)
def test_forward_and_backward_within_one_percent(name):
    variant = Variant(name, Setting(shape="test-small"))
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        loss = variant.loss()
        forward = counter.get_total_flops()
        loss.backward()
        total = counter.get_total_flops()
    config = variant.model.config.text_config
    given = {"text": SMALL.text_tokens, "heads_at": SMALL.label_tokens, "causal": False}
    expected = SMALL.batch * flops.forward_flops(config, variant.split, **given)
    assert forward == pytest.approx(expected, rel=0.001)
    assert total == pytest.approx(3 * expected, rel=0.001)


@pytest.mark.parametrize("name", PEERS)
def test_peers_step_on_the_same_work(name):
    peer = Peer(name, Setting(shape="test-small"))
    facts = peer.facts()
    plits = Variant("plits-mlp", Setting(shape="test-small")).facts()
    assert facts["train"]["analytic_flops"] == pytest.approx(plits["train"]["analytic_flops"], rel=0.02)
    assert facts["train"]["activation_bytes"] > plits["train"]["activation_bytes"], "they keep logits of every row"


HOW = {"lora": 4}, {"freeze_ffn": True}, {"checkpointing": True}, {"lora": 4, "checkpointing": True}


@pytest.mark.parametrize("name", shapes.VARIANTS)
@pytest.mark.parametrize("how", HOW, ids=str)
def test_frozen_parts_adapters_and_recomputing_are_counted(name, how):
    setting = Setting(shape="test-small", **how)
    variant = Variant(name, setting)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        variant.loss().backward()
    given = {"text": SMALL.text_tokens, "labels": SMALL.label_tokens, "trained": setting.trained, "causal": False}
    expected = SMALL.batch * flops.train_flops(variant.model.config.text_config, variant.split, **given)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.001)


@pytest.mark.parametrize("chunk", [2**24, 64])
@pytest.mark.parametrize("name", shapes.VARIANTS)
def test_what_is_kept_for_backward_is_near_what_must_be(name, chunk, monkeypatch):
    monkeypatch.setitem(loss.CHUNK, "cpu", chunk)
    variant = Variant(name, Setting(shape="test-small"))
    kept = measure.kept_for_backward(variant.loss, variant.model.parameters())
    given = {"text": SMALL.text_tokens, "labels": SMALL.label_tokens, "rows": SMALL.batch, "chunk": chunk}
    least = 4 * flops.kept_elements(variant.model.config.text_config, variant.split, **given)
    assert least < kept < 1.7 * least


def test_lal_keeps_less_for_backward_and_its_work_is_linear_in_audio():
    kept = {}
    for name in ("plits-mlp", "lal"):
        variant = Variant(name, Setting(shape="test-small"))
        kept[name] = measure.kept_for_backward(variant.loss, variant.model.parameters())
    assert kept["lal"] < 0.7 * kept["plits-mlp"]
    config = variant.model.config.text_config
    work = [flops.forward_flops(config, [("attend", n)], text=24, heads_at=8) for n in (0, 1000, 2000)]
    assert work[2] - work[1] == work[1] - work[0]


def test_unknown_shape_names_the_nearest():
    from ossicle.errors import ConfigError

    with pytest.raises(ConfigError, match="cpu-small"):
        shapes.shape("cpu-smal")
