"""Every encoder with every connector, integration and decoder, pairwise; the full product is slow.

The axes come from the registries and the tables of tiny parts, so a new part is covered unasked. A model of two windows
hears two clips; counts, batching, caching, order of clips and of windows, and gradients are checked.
"""

from __future__ import annotations

from itertools import product

import pytest
import torch

from integration.pairwise import covering
from integration.tiny_models import MARKER, SLOT, clips, stream, text, tiny_model
from ossicle import registry
from ossicle.tiny import TINY_CONNECTORS, TINY_DECODERS, TINY_ENCODERS

INTEGRATIONS = {
    "attend": {},
    "prepend": {},
    "cross": {"gate": 1.0},  # at 0.1 a tiny Gemma3, whose text is large, hardly moves
    "attend+block": {"positions": "block"},
    "attend+own": {"own_projections": True},
    "attend+raw": {"norm": False, "positions": "zero", "visibility": "all"},
}
AXES = {
    "encoder": sorted(TINY_ENCODERS, key=lambda name: name != "cnn"),
    "connector": sorted(TINY_CONNECTORS, key=lambda name: name != "mlp"),
    "integration": list(INTEGRATIONS),
    "decoder": sorted(TINY_DECODERS, key=lambda name: name != "llama"),
}
PAIRS = covering(AXES)


def label(row):
    return "-".join(row.values())


def build(row):
    kind = row["integration"].split("+")[0]
    ear = stream(
        kind=kind,
        encoder=TINY_ENCODERS[row["encoder"]],
        connector=TINY_CONNECTORS[row["connector"]],
        **INTEGRATIONS[row["integration"]],
    )
    return tiny_model(row["decoder"], [ear])


def check(row):
    model = build(row)
    stream_ = next(iter(model.streams.values()))
    window = stream_.plan.encoder.window_samples / 16000
    audio, lengths = clips(window * 1.6, window * 0.4)
    for count, length in zip(
        model.connect(model.encode(audio, lengths))["ear"].counts().tolist(), lengths.tolist(), strict=True
    ):
        assert count == stream_.plan.num_tokens(length), "derived token count is not the produced one"
    rows = [[3, "a", 5], [2, "a", 4]]
    ids, mask = text(model, rows, lengths)
    heard = {"audio_values": audio, "audio_lengths": lengths}
    with torch.no_grad():
        together = model(ids, attention_mask=mask, **heard).logits
        for index, length in enumerate(lengths.tolist()):
            real = mask[index].bool()
            one = {"audio_values": audio[index : index + 1, :length], "audio_lengths": lengths[index : index + 1]}
            alone = model(ids[index : index + 1, real], **one).logits[0]
            torch.testing.assert_close(together[index, real], alone, atol=2e-4, rtol=1e-3)
        half = int(window * 16000)
        changed = clips(window * 1.6, window * 0.4, seed=7)[0]
        changed[0, : lengths[0]] = torch.cat([audio[0, half : lengths[0]], audio[0, :half]])
        other = model(ids, attention_mask=mask, audio_values=changed, audio_lengths=lengths).logits[:, -1]
        swapped, heard_else = (other - together[:, -1]).abs().amax(1).tolist()
        decided = row["connector"] == "tags"  # a tagger, whose verdict may be the same
        assert decided or swapped > 1e-6, "swapping two windows changes nothing"
        assert decided or heard_else > 1e-6, "other audio changes nothing"
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, "pad_token_id": 0}
    settings |= {"suppress_tokens": [MARKER, SLOT], "attention_mask": mask, **heard}
    assert torch.equal(model.generate(ids, **settings), model.generate(ids, use_cache=False, **settings))
    model.train()
    labels = ids.masked_fill((mask == 0) | (ids == MARKER) | (ids == SLOT), -100)
    model(ids, attention_mask=mask, labels=labels, **heard).loss.backward()
    for part in (stream_.encoder, stream_.connector):
        weights = list(part.parameters())
        assert weights or row["encoder"] == "level", "nothing can be learnt"
        assert not weights or any(p.grad is not None and p.grad.abs().sum() > 0 for p in weights), "no gradient arrives"


def test_every_registered_part_is_in_the_matrix():
    mixtures = {n for n, target in registry.names("encoders").items() if "mixtures" in target}
    assert set(registry.names("encoders")) - mixtures <= set(TINY_ENCODERS)
    assert set(registry.names("connectors")) == set(TINY_CONNECTORS)
    assert {name.split("+")[0] for name in INTEGRATIONS} == set(registry.names("integration"))


@pytest.mark.parametrize("row", PAIRS, ids=label)
def test_pairwise(row):
    check(row)


@pytest.mark.slow
@pytest.mark.parametrize(("encoder", "connector"), list(product(AXES["encoder"], AXES["connector"])))
def test_full_product(encoder, connector, subtests):
    for integration, decoder in product(AXES["integration"], AXES["decoder"]):
        row = dict(zip(AXES, (encoder, connector, integration, decoder), strict=True))
        if row not in PAIRS:
            with subtests.test(label(row)):
                check(row)
