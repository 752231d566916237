"""The data engine's benchmark reports what it says."""

from __future__ import annotations

import pytest

from ossicle.bench.data import run


def test_rates_and_scaling_agree():
    result = run(clips=100, rounds=1, cores=4)
    assert result["closed_questions_per_s"] > 1000
    # Both are rounded: milliseconds to a tenth, the rate to a whole number.
    assert result["describe_times_real_time"] * result["describe_ms_per_10s"] == pytest.approx(10_000, rel=0.02)
    hours = result["paper_set"]["hours"]
    assert hours["1"] > hours["8"] > hours["64"] > 0
    asked = result["paper_set"]["open_questions"]
    assert asked["calls"] == 669_000
    assert 100 < asked["tokens_in"] / asked["calls"] < 2000
    assert asked["tokens_out"] == 10 * 60 * asked["calls"]
