"""What comes in, what training waits for, and curves over length: of the right kind, and what must hold holds."""

from __future__ import annotations

import json

import pytest

from ossicle.bench import input as incoming
from ossicle.bench import length, train
from ossicle.bench.integrations import Setting
from ossicle.cli.app import run


def test_every_container_is_decoded_and_a_rate_holds_both_parts() -> None:
    for name in ("flac 16 kHz", "mp3 44.1 kHz"):
        spec = incoming.CONTAINERS[name]
        row = incoming._rates(spec, 1, 0)
        assert 0 < row["times_real_time"] < min(row["decode"], row["features"])


def test_batches_as_a_stage_draws_them_are_padded_less_than_random_ones() -> None:
    found = incoming.padding(batch=32, batches=256)
    assert found["tokens"] < 0.1 < 0.5 < found["tokens_random"]
    assert found["audio"] < 0.1


def test_padding_is_counted_by_hand() -> None:
    import numpy as np

    assert incoming._padded([[0, 1], [2]], np.array([1.0, 3.0, 5.0])) == pytest.approx(1 - 9 / 11)


def test_a_hard_mixture_costs_what_it_selects() -> None:
    found = train.mowe(clips=2, rounds=1)
    assert found["selected_per_clip"] == 1
    assert found["ratio"] <= train.GOALS["mowe"]


def test_slopes_are_of_what_was_reached_from_five_minutes_on() -> None:
    rows = [{"seconds": s, "prefill_s": 0.01 * s, "peak_bytes": s**2} for s in (10, 300, 600, 3600)]
    assert length._slope(rows, "prefill_s") == pytest.approx(1)
    assert length._slope([*rows, {"seconds": 7200, "failed": "longer than 60 s"}], "peak_bytes") == pytest.approx(2)
    assert length._slope(rows[:2], "prefill_s") is None


@pytest.mark.slow
def test_a_length_that_takes_too_long_ends_its_curve() -> None:
    found = length.run(Setting(threads=1), [2, 4], rounds=1, limit_s=0.001)
    assert [row["failed"] for row in found["curves"]["lal"]] == ["longer than 0.001 s"]
    found = length.run(Setting(threads=1), [2, 4], rounds=1, limit_s=60)
    assert [row["seconds"] for row in found["curves"]["plits-mlp"]] == [2, 4]
    assert all(row["peak_bytes"] > 0 for row in found["curves"]["plits-mlp"])


@pytest.mark.slow
@pytest.mark.alone
def test_bench_train_says_how_busy_the_decoder_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "train", "--steps", "2", "--batch", "4", "--clips", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["cached"]["busy"] < 1
    assert found["cached"]["steps"] == 2
