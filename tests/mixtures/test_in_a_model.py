"""Mixtures inside AudioLM: the routing loss, gradients, prompts, cached features, saving, attended and prepended."""

from __future__ import annotations

import pytest
import torch

from integration.tiny_models import clips, stream, text, tiny_model
from mixtures.stubs import stub
from ossicle.errors import ConfigError, DataError
from ossicle.mixtures.balance import auxiliary_loss
from ossicle.model import AudioLM

MOWE = {"kind": "mowe", "base": stub(0, dim=8), "pool": [stub(1), stub(2, hop=1000)]}
PAM = {**MOWE, "kind": "pam", "prompt_dim": 64}


def batch(model, labels=True):
    audio, lengths = clips(0.4, 0.2, 0.3)
    ids, mask = text(model, [["a", 6], [2, "a", "a", 5]], lengths)
    answer = torch.where(mask.bool() & (torch.arange(ids.shape[1]) >= ids.shape[1] - 3), ids, -100)
    inputs = {"input_ids": ids, "attention_mask": mask, "audio_values": audio, "audio_lengths": lengths}
    return {**inputs, "labels": answer} if labels else inputs


@pytest.mark.parametrize("kinds", [["prepend"], ["attend"], ["prepend", "attend"]])
def test_the_routing_loss_is_added_while_training(kinds):
    """However the mixture is heard: prepended, attended, or both with one shared encoder."""
    parts = [stream(f"s{n}", kind, encoder="s0" if n else MOWE) for n, kind in enumerate(kinds)]
    model = tiny_model(streams=parts)
    encoder = model.streams.s0.encoder
    encoder.set_progress(0.7)
    inputs = batch(model)
    plain = model(**inputs).loss
    model.train()
    encoder.base.eval()
    loss = model(**inputs).loss
    terms = encoder.auxiliary_loss()
    torch.testing.assert_close(loss, plain + 0.1 * sum(terms.values()))
    count = int((inputs["labels"][:, 1:] != -100).sum())
    torch.testing.assert_close(model(**inputs, num_items_in_batch=1).loss, count * loss)
    loss.backward()
    assert encoder.router.independent.logits.grad.abs().sum() > 0
    assert encoder.router.dependent.layers[-1].weight.grad.abs().sum() > 0
    only_text = {key: inputs[key].clamp(max=290) for key in ("input_ids", "attention_mask", "labels")}
    in_training = model(**only_text).loss
    torch.testing.assert_close(in_training, model.eval()(**only_text).loss)


def test_frozen_members_get_no_gradient_and_routers_do():
    model = tiny_model(streams=[stream(encoder=MOWE)]).train()
    encoder = model.streams.ear.encoder
    model.requires_grad_(False)
    encoder.router.requires_grad_(True)
    model(**batch(model)).loss.backward()
    got = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert got == {name for name, _ in model.named_parameters() if ".encoder.router." in name}


@pytest.mark.parametrize("spec", [MOWE, {**MOWE, "concat": "time"}, PAM], ids=["mowe", "mowe-time", "pam"])
def test_cached_features_and_saved_models_answer_the_same(spec, tmp_path):
    model = tiny_model(streams=[stream(kind="prepend", encoder=spec)])
    inputs = batch(model, labels=False)
    with torch.no_grad():
        for name, parameter in model.streams.ear.encoder.router.named_parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(len(name))))
        want = model(**inputs).logits
        kept = model.encode(inputs.pop("audio_values"), inputs.pop("audio_lengths"), every=True)
        torch.testing.assert_close(model(**inputs, audio_tokens=kept).logits, want)
        model.save_pretrained(tmp_path / "m")
        again = AudioLM.from_pretrained(tmp_path / "m").eval()
        torch.testing.assert_close(again(**inputs, audio_tokens=kept).logits, want)
        said = model.generate(**inputs, audio_tokens=kept, max_new_tokens=3, do_sample=False)
        assert said.shape[1] == inputs["input_ids"].shape[1] + 3


def test_the_prompt_is_what_stands_before_the_answer():
    model = tiny_model(streams=[stream(encoder=PAM)])
    inputs = batch(model)
    ids, mask, labels = inputs["input_ids"], inputs["attention_mask"], inputs["labels"]
    vectors = model.prompts(ids, mask, labels)
    assert vectors.shape == (3, 64)
    table = model.get_input_embeddings().weight
    asked = (mask[0] == 1) & (ids[0] < 298) & (labels[0] == -100)
    torch.testing.assert_close(vectors[0], table[ids[0][asked]].mean(0))
    assert torch.equal(vectors[1], vectors[2])
    changed = torch.where(labels != -100, 7, ids)
    assert torch.equal(model.prompts(changed, mask, labels), vectors), "an answer must not choose its encoders"
    assert not torch.equal(model.prompts(changed, mask), model.prompts(ids, mask))
    with pytest.raises(DataError, match="loss_on"):
        model.prompts(ids, mask, ids)
    assert tiny_model(streams=[stream(encoder=MOWE)]).prompts(ids, mask) is None
    with pytest.raises(ConfigError, match="prompt_dim is 32"):
        tiny_model(streams=[stream(encoder={**PAM, "prompt_dim": 32})])


def test_a_question_changes_what_is_heard_and_nothing_else_does():
    model = tiny_model(streams=[stream(encoder=PAM)])
    with torch.no_grad():
        model.streams.ear.encoder.router.prompt.layers[-1].weight.normal_()
        encoded = model.encode(*clips(0.3, 0.3))
        both = model.connect(encoded, torch.randn(2, 64, generator=torch.Generator().manual_seed(0)))["ear"].values
        same = model.connect(encoded, torch.ones(2, 64).cumsum(1))["ear"].values
    assert not torch.equal(both, same)
    assert auxiliary_loss(model.streams.values()) == 0.0
