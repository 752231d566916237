"""Sharing a stage among processes: the same samples, and with torchrun the same losses as one process alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_kill import HERE, losses
from tiny_recipe import TINY, tiny, write

from ossicle.errors import ConfigError, UserError
from ossicle.training import processes
from ossicle.training.recipe import Stage
from ossicle.training.run import Run

STILL = ("model.language_model.architecture.attention_dropout=0", "model.streams.0.encoder.dropout=0")
WAIT_S = 400
CPU = torch.device("cpu")
OSSICLE = ("-m", "ossicle")


def stage(**settings: object) -> Stage:
    return Stage.model_validate({"name": "s", "train": ["connector"], "learning_rate": 1, "steps": 1, **settings})


def pretend(monkeypatch: pytest.MonkeyPatch, count: int, number: int = 0) -> None:
    monkeypatch.setattr(processes, "world", lambda: count)
    monkeypatch.setattr(processes, "rank", lambda: number)


def test_alone_nothing_changes() -> None:
    one = stage(batch_size=6)
    assert processes.shared(one) is one
    assert list(processes.micro_batches(stage(batch_size=6, micro_batch_size=2), 4)) == [12, 13, 14]
    assert processes.sum_numbers([1.5, 2], "cpu") == [1.5, 2]
    assert processes.agree("x") == "x"


def test_processes_take_every_micro_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = []
    for number in range(3):
        pretend(monkeypatch, 3, number)
        taken += list(processes.micro_batches(stage(batch_size=12, micro_batch_size=2), 5))
    assert sorted(taken) == list(range(30, 36))


def test_micro_batches_shrink_until_they_can_be_shared_and_the_effective_batch_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, 4)
    assert processes.shared(stage(batch_size=8)).micro == 2
    assert processes.shared(stage(batch_size=8, micro_batch_size=1)).micro == 1
    assert processes.shared(stage(batch_size=8)).batch_size == 8
    with pytest.raises(ConfigError, match="batch_size 6 cannot be shared by 4 processes"):
        processes.shared(stage(batch_size=6))


def test_a_peer_that_is_gone_is_one_line_and_other_errors_stay_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(processes.distributed, "init_process_group", lambda backend: None)
    monkeypatch.setattr(processes.distributed, "destroy_process_group", lambda: None)
    with pytest.raises(UserError, match=r"another process of the run is gone.*--resume"), processes.joined(CPU):
        raise RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]:2114")
    with pytest.raises(RuntimeError, match="shapes differ"), processes.joined(CPU):
        raise RuntimeError("shapes differ")


def launch(
    recipe: Path, out: Path, count: int, *words: str, program: Sequence[str] = OSSICLE, restarts: int = 0
) -> Any:
    """Train with torchrun on CPU and return the finished process."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    train = ["train", str(recipe), *STILL, *words, "--device", "cpu", "--json", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(HERE.parents[1] / "src")}
    command = [*torchrun, "--max-restarts", str(restarts), *program, *train]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=WAIT_S, check=False)


@pytest.mark.slow
def test_a_process_killed_in_a_step_ends_the_run_and_a_restart_has_the_same_losses(tmp_path: Path) -> None:
    dying = [str(HERE / "train_dying.py")]
    stages = [{**s, "batch_size": 4, "micro_batch_size": 1, "checkpoint_every": 2} for s in TINY["stages"]]
    path = write(tmp_path, stages=stages)
    ended = launch(path, tmp_path / "ended", 2, program=dying)
    assert ended.returncode != 0
    ours = [line for line in ended.stderr.splitlines() if line.startswith("ossicle: error:")]
    assert len(ours) <= 1 and all("another process of the run is gone" in line for line in ours)
    again = launch(path, tmp_path / "again", 2, program=dying, restarts=1)
    assert again.returncode == 0, again.stderr[-2000:]
    Run(tiny(tmp_path, *STILL, stages=stages), tmp_path / "one", tell=lambda _: None).train()
    for (_, _, a), (_, _, b) in zip(losses(tmp_path / "again"), losses(tmp_path / "one"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_several_processes_have_the_losses_of_one(tmp_path: Path, count: int) -> None:
    """Also with a batch in which some process has no audio at all: half of the samples lose theirs."""
    half = ("stages.0.audio_dropout=0.5", "stages.1.audio_dropout=0.5")
    stages = [{**s, "batch_size": 4, "micro_batch_size": 1} for s in TINY["stages"]]
    path = write(tmp_path, stages=stages)
    done = launch(path, tmp_path / "many", count, *half)
    assert done.returncode == 0, done.stderr[-2000:]
    assert [s["steps"] for s in json.loads(done.stdout)["stages"]] == [5, 6]

    alone = tiny(tmp_path, *STILL, *half, stages=stages)
    Run(alone, tmp_path / "one", tell=lambda _: None).train()
    for (_, _, a), (_, _, b) in zip(losses(tmp_path / "many"), losses(tmp_path / "one"), strict=True):
        assert a == pytest.approx(b, abs=1e-4)
