"""Live audio: at every moment the answer is that of the whole file so far; what cannot be appended to refuses."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from integration.tiny_models import CNN, clips, live_is_whole, stream, tiny_model
from ossicle.errors import DataError, UnsupportedError
from ossicle.inference.live import LiveStream, check_live
from ossicle.tiny import TINY_CONNECTORS, TINY_ENCODERS

SHORT = {**CNN, "window_s": 1.0}
WINDOWED = {
    "linear": {"kind": "linear"},
    "pool": {"kind": "pool", "factor": 3},
    "stack": {"kind": "stack", "factor": 7},
    "qformer": {"kind": "qformer", "queries": 2, "window_tokens": 5, "hidden": 16, "heads": 2, "depth": 1},
}
SETUPS = {
    **{name: [stream(encoder=SHORT, connector=connector)] for name, connector in WINDOWED.items()},
    "prepend": [stream(kind="prepend", encoder=SHORT, connector=WINDOWED["pool"])],
    "cross": [stream(kind="cross", encoder=SHORT)],
    "attend-block": [stream(encoder=SHORT, positions="block", own_projections=True, layers=[1])],
    "two clocks": [
        stream("a", "prepend", encoder=SHORT),
        stream("b", encoder="a", connector=WINDOWED["stack"]),
        stream("c", encoder={**CNN, "window_s": 0.7}),
    ],
}


def live_of(model):
    return LiveStream(SimpleNamespace(model=model))


@pytest.mark.parametrize("setup", SETUPS)
def test_at_every_moment_it_is_the_whole_file_so_far(setup):
    model = tiny_model(streams=SETUPS[setup])
    audio, _ = clips(3.4)
    live, rng = live_of(model), np.random.default_rng(0)
    rows = [[int(rng.integers(1, 5)), "a", 4] for _ in range(5)]
    for count, heard in live_is_whole(model, live, audio, (100, 9000, 21000, 4000, 12345), rows):
        assert count == sum(s.plan.num_tokens(heard) for s in model.streams.values())
    assert live.duration_s == heard / 16000
    assert max(len(waiting) for waiting in live._waiting.values()) < 16000  # finished windows' samples are let go


def test_where_only_what_stands_out_is_heard_it_is_what_stands_out_of_the_whole_file():
    model = tiny_model(streams=[stream("a", encoder=SHORT), stream("b", encoder={**CNN, "window_s": 0.7})])
    model.config.focus = {"over_s": 4.0, "keep_s": 2, "stretch_s": 1}
    audio, _ = clips(9.0)
    counted = list(live_is_whole(model, live_of(model), audio, (30000, 33500, 700, 50000, 29800)))
    count, heard = counted[-1]
    assert count < sum(s.plan.num_tokens(heard) for s in model.streams.values()) / 3


def test_an_hour_in_a_token_has_the_time_it_has_in_the_file():
    model = tiny_model(streams=[stream(encoder=SHORT)])
    live = live_of(model)
    ear, rate_hz = live._ears[0], model.streams["ear"].plan.encoder.facts().rate_hz
    tokens = torch.randn(int(3600 * rate_hz) + 40, 16, generator=torch.Generator().manual_seed(0))
    whole = live._connect(ear, tokens)
    ear.before = len(tokens) - 33
    torch.testing.assert_close(live._connect(ear, tokens[-33:]), whole[-33:], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "connector", [c for c in TINY_CONNECTORS.values() if c["kind"] in ("conv", "tltr") or "queries" in c], ids=str
)
def test_a_connector_that_looks_across_windows_refuses_in_one_line(connector):
    model = tiny_model(streams=[stream(encoder=SHORT, connector=connector)])
    if model.streams["ear"].plan.connector.windowed:
        pytest.skip("this one has windows")
    with pytest.raises(UnsupportedError, match=r"connector '.*' looks across windows") as told:
        live_of(model)
    assert "\n" not in str(told.value)


def test_every_connector_that_calls_itself_windowed_is_so():
    for kind, spec in TINY_CONNECTORS.items():
        model = tiny_model(streams=[stream(encoder=SHORT, connector=spec)])
        connector = model.streams["ear"].connector
        group = connector.config.group_tokens
        if group is None:
            continue
        count = 3 * group
        values = torch.randn(1, count, CNN["dim"], generator=torch.Generator().manual_seed(1))
        valid = torch.ones(1, count, dtype=torch.bool)
        from ossicle.types import AudioTokens

        with torch.no_grad():
            whole = connector(AudioTokens(values=values, valid=valid, rate_hz=10.0)).values
            last = connector(
                AudioTokens(
                    values=values[:, 2 * group :], valid=valid[:, :group], rate_hz=10.0, start_s=2 * group / 10.0
                )
            ).values
        torch.testing.assert_close(whole[:, -last.shape[1] :], last, atol=1e-5, rtol=1e-4, msg=kind)


def test_what_listens_to_the_question_refuses():
    pam = {"kind": "pam", "base": SHORT, "pool": [SHORT, SHORT], "prompt_dim": 64}
    with pytest.raises(UnsupportedError, match="listens to the question"):
        check_live(tiny_model(streams=[stream(encoder=pam)]))


def test_an_encoder_of_the_papers_can_be_live():
    check_live(tiny_model(streams=[stream(encoder=TINY_ENCODERS["whisper"])]))


def test_nothing_heard_and_wrong_samples_are_said():
    live = live_of(tiny_model(streams=[stream(encoder=SHORT)]))
    with pytest.raises(DataError, match="nothing has been heard"):
        live.hear(torch.tensor([[1, 2]]))
    with pytest.raises(DataError, match="finite"):
        live.append(np.array([0.0, np.nan]))
    with pytest.raises(DataError, match="shape"):
        live.append(np.zeros((2, 2)))


@pytest.mark.parametrize("chunks", [(16000, 16000), (9000, 7000), (16000, 16000, 3000)], ids=str)
def test_a_tagger_that_has_not_said_anything_has_no_keys(chunks):
    tags = {"kind": "tags", "tags": ["a dog", "rain"], "factor": 13, "length": 2}
    streams = [stream("a", encoder=SHORT), stream("tags", encoder="a", connector=tags, own_projections=True)]
    model = tiny_model(streams=streams)
    model.streams["tags"].connector.bound.fill_(1e9)
    audio, _ = clips(3.4)
    rows = [[3, "a", 4] for _ in chunks]
    for count, heard in live_is_whole(model, live_of(model), audio, chunks, rows):
        assert count == model.streams["a"].plan.num_tokens(heard)
