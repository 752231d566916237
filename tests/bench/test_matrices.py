"""The products that a PLITS step is compared with are its own, no more and no fewer."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ossicle.bench import shapes
from ossicle.bench.integrations import Setting, Variant, run
from ossicle.bench.matrices import Matrices
from ossicle.errors import ConfigError

SMALL = shapes.Shape(
    decoder=shapes._decoder("llama", 3, 64, 4, 2, 96, 300), batch=2, audio_tokens=40, text_tokens=24, label_tokens=8
)
SETTING = Setting(shape="test-small")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(shapes.SHAPES, "test-small", SMALL)


def products(run) -> int:
    """Return the operations of a call's matrix products alone, attention left out."""
    with (
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION),
        FlopCounterMode(display=False) as counter,
    ):
        run()
    return sum(
        n for op, n in counter.get_flop_counts()["Global"].items() if op in (torch.ops.aten.mm, torch.ops.aten.addmm)
    )


def test_they_are_the_products_of_a_plits_step():
    alone, step = Matrices("matrices", SETTING), Variant("plits-mlp", SETTING)
    assert products(alone.train_step) == pytest.approx(products(lambda: step.loss().backward()), rel=0.02)
    with torch.no_grad():
        assert products(alone.infer_step) == pytest.approx(products(step.loss), rel=0.02)


def test_their_shapes_are_those_of_the_decoder_layers():
    alone, step = Matrices("matrices", SETTING), Variant("plits-mlp", SETTING)
    layer = step.model.get_decoder().layers[0]
    linears = Counter((part.in_features, part.out_features) for part in layer.modules() if isinstance(part, nn.Linear))
    assert Counter(alone.linears()) == linears
    rows = SMALL.batch * (SMALL.text_tokens + SMALL.audio_tokens)
    *layers, (labels, head, _, once) = alone.products
    assert all(len(states) == rows and times == 3 for states, _, _, times in layers)
    assert (len(labels), tuple(head.shape), once) == (SMALL.batch * SMALL.label_tokens, (64, 300), 1)


def test_the_operations_they_name_are_those_they_run():
    alone = Matrices("matrices", SETTING)
    facts = alone.facts()
    assert products(alone.infer_step) == facts["infer"]["analytic_flops"]
    assert products(alone.train_step) == facts["train"]["analytic_flops"] == 3 * facts["infer"]["analytic_flops"]


@pytest.mark.parametrize("how", [{"lora": 4}, {"freeze_ffn": True}, {"checkpointing": True}], ids=str)
def test_where_something_is_frozen_they_are_refused(how):
    with pytest.raises(ConfigError, match="--matrices: everything trains there"):
        Matrices("matrices", Setting(shape="test-small", **how))


@pytest.mark.slow
def test_their_share_and_the_peers_stand_beside_the_variants():
    """In processes of their own, at a size where the step is mostly overhead: the share lies well between 0 and 1."""
    setting = Setting(audio_tokens=40, text_tokens=24, batch=1, rounds=2, threads=1, clock="cpu")
    found = run(setting, ("plits-mlp", "lal"), peers=True, matrices=True)
    assert set(found["results"]) == {"plits-mlp", "lal"}
    assert set(found["peers"]) == {"qwen2-audio", "trainer"}
    assert set(found["ratios"]) == {"lal/plits-mlp", "lal/qwen2-audio", "plits-mlp/qwen2-audio", "plits-mlp/trainer"}
    assert set(found["matrices"]) == {"train", "infer"}
    assert all(0.02 < share < 1 for share in found["matrices"].values())
    for row in (*found["results"].values(), *found["peers"].values()):
        assert row["train"]["samples_per_s"] > 0
        assert row["train"]["activation_bytes"] > 0
    ratio = found["ratios"]["lal/plits-mlp"]
    assert ratio["share"] == pytest.approx(ratio["measured"] / ratio["analytic"])
