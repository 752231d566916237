"""One event in a long recording: it is where the truth says, and the whole is asked in one request."""

from __future__ import annotations

import numpy as np

from model.conftest import engine, tokenizer  # noqa: F401 - fixtures
from ossicle.evaluation import hour


def test_the_event_is_planted_where_the_truth_says():
    point = hour.planted(2.0, seed=3)
    assert point.wave.duration_s == 120.0 and point.label != point.absent
    power, inside = np.square(point.wave.samples), np.zeros(len(point.wave.samples), dtype=bool)
    inside[round(point.start_s * 16000) : round(point.end_s * 16000)] = True
    assert power[inside].mean() > 10 * power[~inside].mean()
    assert np.array_equal(point.wave.samples, hour.planted(2.0, seed=3).wave.samples)


def test_long_recordings_are_asked_and_told(engine):  # noqa: F811
    told = hour.run(engine, n=1, minutes=1.5)
    assert told["said_yes"]["value"] in (0.0, 1.0) and told["looked_there"]["value"] in (0.0, 1.0)
    assert told["rows"][0]["peak_bytes"] > 0 and "1.5 minutes" in hour.page(told)
