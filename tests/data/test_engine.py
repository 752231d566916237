"""The same rows whichever engine makes them."""

from __future__ import annotations

import json
import warnings
from functools import partial

import numpy as np
import pytest
import soundfile

from ossicle.cli.app import run
from ossicle.data import engine
from ossicle.data.rows import read_rows
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


@pytest.fixture(scope="module")
def cluster():
    ray = pytest.importorskip("ray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ray.init(num_cpus=2, object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
    yield ray
    ray.shutdown()


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*", "ignore::FutureWarning:ray.*")


@pytest.mark.slow
def test_ray_gives_the_same(cluster, monkeypatch):
    monkeypatch.setattr(engine, "BATCHES_ON_RAY", 2)  # several datasets, one after the other
    local = list(engine.run(partial(doubled, by=3), range(20), size=4))
    assert list(engine.run(partial(doubled, by=3), range(20), size=4, engine="ray")) == local


@pytest.mark.slow
def test_the_pipeline_on_ray_makes_the_same_rows(cluster, tmp_path, capsys):
    """Described, asked and built by the command line, with a recording that cannot be read among the others."""
    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "sounds" / ("hum", "hiss")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        wave = np.sin(np.arange(8000) * (0.04 + number / 400)) if number % 2 == 0 else rng.normal(0, 0.3, 8000)
        soundfile.write(folder / f"{number}.wav", (wave * 0.02 * (number + 1)).clip(-1, 1), 16000)
    (tmp_path / "sounds/hum/broken.wav").write_bytes(b"RIFFnothing")
    made, told = {}, {}
    for how in engine.ENGINES:
        out = tmp_path / how
        words = ["build", "folder", f"parts.sounds.root={tmp_path / 'sounds'}", "--out", out, "--engine", how]
        assert run(["data", *map(str, words), "--json"]) == 0
        steps = json.loads(capsys.readouterr().out)["steps"]
        told[how] = {name: (step["in"], step["out"], step["skipped"]) for name, step in steps.items() if "/" in name}
        names = ("sounds/described.jsonl", "sounds/closed.jsonl", "questions.jsonl")
        made[how] = [sorted(map(str, read_rows(out / name))) for name in names]
    assert made["ray"] == made["local"]
    assert told["ray"] == told["local"]
    assert told["ray"]["sounds/describe"][:2] == (41, 40)
    assert len(made["ray"][1]) > 200
