"""Streams over several encoders: features side by side, in a batch, from a folder, live, and when they do not fit."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from integration.tiny_models import CNN, clips, live_is_whole, stream, text, tiny_model
from ossicle.errors import ConfigError, DataError
from ossicle.inference.live import LiveStream
from ossicle.inference.weights import Fingerprints
from ossicle.model import AudioLM
from ossicle.streams import plan, resolved, side_by_side
from ossicle.types import AudioTokens

SHORT = {**CNN, "window_s": 1.0}
TAGS = {"kind": "tags", "tags": ["a dog", "rain"], "factor": 25}


def streams(**changes):
    both = {"name": "both", "encoder": ["a", "b"], "connector": TAGS, "integration": {"kind": "attend"}} | changes
    return [stream("a", encoder=SHORT), stream("b", encoder={**SHORT, "dim": 24}), both]


def test_the_connector_sees_both_encoders_features():
    model = tiny_model(streams=streams())
    audio, lengths = clips(2.3, 0.9)
    encoded = model.encode(audio, lengths)
    assert set(encoded) == {"a", "b"}
    both = model.streams["both"]
    assert (both.plan.owners, both.plan.facts.dim, both.connector.facts.dim) == (("a", "b"), 40, 40)
    wide = encoded["a"].with_values(torch.cat([encoded["a"].values, encoded["b"].values], -1))
    torch.testing.assert_close(model.connect(encoded)["both"].values, both.connector(wide).values)


def test_each_encoder_is_run_once_and_can_learn_through_it():
    model = tiny_model(streams=streams(connector={"kind": "pool", "factor": 5})).train()
    audio, lengths = clips(1.2)
    calls = []
    for name in ("a", "b"):
        model.streams[name].encoder.register_forward_hook(lambda *_, name=name: calls.append(name))
    connected = model.connect(model.encode(audio, lengths))
    connected["both"].values.square().sum().backward()
    for name in ("a", "b"):
        grads = [p.grad for p in model.streams[name].encoder.parameters() if p.grad is not None]
        assert any(grad.abs().sum() > 0 for grad in grads)


def test_it_survives_its_folder(tmp_path):
    model = tiny_model(streams=streams())
    model.save_pretrained(tmp_path)
    again = AudioLM.from_pretrained(tmp_path).eval()
    assert again.config.streams[2]["encoder"] == ["a", "b"]
    audio, lengths = clips(1.5)
    ids, mask = text(model, [[2, "a", 3]], lengths)
    inputs = {"input_ids": ids, "attention_mask": mask, "audio_values": audio, "audio_lengths": lengths}
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-4)


def test_live_it_is_the_whole_file_so_far():
    model = tiny_model(streams=streams())
    audio, _ = clips(3.4)
    live = LiveStream(SimpleNamespace(model=model))
    assert len(list(live_is_whole(model, live, audio, (100, 9000, 21000, 12345)))) == 4


def test_a_change_in_either_encoder_changes_what_is_kept_of_it():
    model = tiny_model(streams=streams())
    prints = Fingerprints(model)
    before = prints.tokens()
    with torch.no_grad():
        next(model.streams["b"].encoder.parameters()).add_(1)
    prints.look()
    after = prints.tokens()
    assert {name for name in before if before[name] != after[name]} == {"b", "both"}


def test_one_name_in_a_list_is_that_encoder():
    alone = plan([stream("a", encoder=SHORT), stream("b", encoder=["a"])])[1]
    assert (alone.owner, alone.beside, alone.facts) == ("a", (), alone.encoder.facts())
    assert resolved([stream("a", encoder=SHORT), stream("b", encoder=["a"])])[1]["encoder"] == "a"


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (["a", "nobody"], "encoder 'nobody' is not an earlier stream"),
        ([], "encoder names no stream"),
        (
            ["a", "slow"],
            r"the same tokens at the same times; got 'a' 12.5 per s in 16000 samples, 'slow' 12.5 per s in",
        ),
    ],
)
def test_what_cannot_stand_side_by_side_is_refused(encoder, message):
    slow = stream("slow", encoder={**CNN, "window_s": 2.0})
    with pytest.raises(ConfigError, match=message):
        plan([stream("a", encoder=SHORT), slow, stream("both", encoder=encoder)])


def test_features_of_other_lengths_are_refused():
    def tokens(count):
        return AudioTokens(values=torch.zeros(1, count, 4), valid=torch.ones(1, count, dtype=torch.bool), rate_hz=25.0)

    with pytest.raises(DataError, match=r"different numbers of tokens: \[3\]; \[4\]"):
        side_by_side([tokens(3), tokens(4)])
