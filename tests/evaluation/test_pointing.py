"""The pointing game: what is a hit, what is laid where, and a whole game with a model that knows nothing."""

from __future__ import annotations

import json

import numpy as np
import pytest

from model.conftest import engine, tokenizer  # noqa: F401 - fixtures
from ossicle.evaluation import pointing
from ossicle.types import Waveform


def _point(start_s, end_s):
    wave = Waveform(samples=np.zeros(160000, np.float32))
    return pointing.Point(wave=wave, start_s=start_s, end_s=end_s, label="a bell", absent="a dog")


@pytest.mark.parametrize(
    "event, hits",
    [((3.0, 5.0), {3, 4}), ((3.4, 5.6), {3, 4, 5}), ((3.6, 5.4), {4}), ((3.2, 3.6), {3}), ((3.8, 4.2), {3, 4})],
)
def test_a_second_lies_in_the_event_when_they_share_half_of_the_shorter(event, hits):
    assert {second for second in range(10) if _point(*event).hit(second, second + 1)} == hits


def test_where_nothing_weighs_nothing_is_pointed_at():
    rows = [{"start_s": float(i), "end_s": i + 1.0, "weight": 0.0} for i in range(10)]
    assert not pointing._points(_point(0.0, 2.0), rows)
    rows[1]["weight"] = 0.1
    assert pointing._points(_point(0.0, 2.0), rows) and not pointing._points(_point(5.0, 7.0), rows)


def test_an_event_is_where_the_truth_says():
    one, again = (list(pointing.world_points(3, seed=5)) for _ in range(2))
    for point, same in zip(one, again, strict=True):
        assert np.array_equal(point.wave.samples, same.wave.samples)
        assert point.wave.duration_s == 10.0 and point.absent != point.label
        samples, inside = np.square(point.wave.samples), np.zeros(160000, dtype=bool)
        inside[round(point.start_s * 16000) : round(point.end_s * 16000)] = True
        assert samples[inside].mean() > 3 * samples[~inside].mean()
    assert not np.array_equal(one[0].wave.samples, next(pointing.world_points(1, seed=6)).wave.samples)


def test_a_game_is_told_beside_chance(engine, tmp_path):  # noqa: F811
    told = pointing.run(engine, tmp_path, n=1, out=tmp_path / "out")
    assert told["absent"] == ["esc10"] and set(told["tasks"]) == {"world"}
    task = told["tasks"]["world"]
    assert task["n"] == 1 and 0 < task["chance"] < 0.5
    for kind in pointing.KINDS:
        assert task[kind]["attention"]["value"] in (0.0, 1.0) and len(task[kind]["occlusion"]["ci95"]) == 2
    (line,) = (tmp_path / "out" / "pointing-world.jsonl").read_text().splitlines()
    assert set(json.loads(line)["kinds"]) == set(pointing.KINDS)
    assert pointing.page(told).count("\n") == 1 + len(pointing.KINDS)
