"""The same rows whichever engine makes them."""

from __future__ import annotations

from functools import partial

import pytest

from ossicle.data import engine
from ossicle.errors import ConfigError


def doubled(batch, by):
    return [by * item for item in batch]


def test_results_come_in_order_and_an_unknown_engine_is_refused():
    work = partial(doubled, by=2)
    assert list(engine.run(work, range(10), size=3)) == [0, 2, 4, 6, 8, 10, 12, 14, 16, 18]
    assert list(engine.run(work, [], size=3)) == []
    with pytest.raises(ConfigError, match="none of local, ray"):
        list(engine.run(work, [1], engine="spark"))


@pytest.mark.slow
def test_processes_give_the_same():
    from ossicle.audio.levels import level_index

    work = partial(_levels_of, level_index)
    assert list(engine.run(work, range(20), size=3, jobs=2)) == list(engine.run(work, range(20), size=3))


def _levels_of(level, batch):
    return [level(item, (1, 2, 3, 4)) for item in batch]


@pytest.mark.slow
def test_ray_gives_the_same():
    ray = pytest.importorskip("ray")
    ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    try:
        local = list(engine.run(partial(doubled, by=3), range(20), size=4))
        assert list(engine.run(partial(doubled, by=3), range(20), size=4, engine="ray")) == local
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_the_pipeline_on_ray_makes_the_same_rows(tmp_path):
    ray = pytest.importorskip("ray")
    import numpy as np
    import soundfile

    from ossicle.data.imports import describe_file, import_clips
    from ossicle.data.rows import read_rows
    from ossicle.questions.generate import Plan
    from ossicle.questions.whole import closed_file

    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "sounds" / ("hum", "hiss")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        wave = np.sin(np.arange(8000) * (0.04 + number / 400)) if number % 2 == 0 else rng.normal(0, 0.3, 8000)
        soundfile.write(folder / f"{number}.wav", (wave * 0.02 * (number + 1)).clip(-1, 1), 16000)
    import_clips(tmp_path / "sounds", tmp_path / "clips.jsonl")
    ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    made = {}
    try:
        for how in engine.ENGINES:
            described, questions = tmp_path / f"described.{how}.jsonl", tmp_path / f"questions.{how}.jsonl"
            describe_file(tmp_path / "clips.jsonl", described, engine=how)
            closed_file(described, questions, Plan(seed=3), engine=how)
            made[how] = [sorted(map(str, read_rows(path))) for path in (described, questions)]
    finally:
        ray.shutdown()
    assert made["ray"] == made["local"]
    assert len(made["ray"][1]) > 200
