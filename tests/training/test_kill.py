"""A training process killed with SIGKILL at random moments, again and again, ends with the losses of one left alone."""

from __future__ import annotations

import json
import multiprocessing
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipe import TINY, tiny

from ossicle.training.recipe import Loaded
from ossicle.training.run import Run

HERE = Path(__file__).parent
WAIT_S = 300


def losses(out: Path) -> list[tuple[str, int, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["stage"], row["step"], row["loss"]) for row in rows if "loss" in row]


def resume(folder: Path, loaded: Loaded) -> None:
    torch.set_num_threads(1)
    Run(loaded, folder / "out", tell=lambda _: None).train(resume=True)


def start(folder: Path, loaded: Loaded) -> Any:
    """Train in a process of its own, forked, so that it need not import everything again."""
    process = multiprocessing.get_context("fork").Process(target=resume, args=(folder, loaded))
    process.start()
    return process


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def kill_while_training(folder: Path, loaded: Loaded, chance: random.Random) -> bool:
    """Start it, wait until it writes its log, then a random moment longer; return whether it was killed in time."""
    log = folder / "out" / "log.jsonl"
    before = size(log)
    process = start(folder, loaded)
    until = time.monotonic() + WAIT_S
    while size(log) <= before and process.is_alive() and time.monotonic() < until:
        before = min(before, size(log))  # resuming cuts the log back first
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.25))
    process.kill()
    process.join()
    return process.exitcode == -signal.SIGKILL


def check(tmp_path: Path, kills: int) -> None:
    (tmp_path / "steady").mkdir()
    (tmp_path / "killed").mkdir()
    loaded = tiny(tmp_path)
    steady = start(tmp_path / "steady", loaded)
    steady.join(WAIT_S)
    assert steady.exitcode == 0
    chance = random.Random(1)
    killed = sum(kill_while_training(tmp_path / "killed", loaded, chance) for _ in range(kills))
    assert killed >= 1
    last = start(tmp_path / "killed", loaded)
    last.join(WAIT_S)
    assert last.exitcode == 0
    assert losses(tmp_path / "killed" / "out") == losses(tmp_path / "steady" / "out")


def test_killed_once(tmp_path: Path) -> None:
    check(tmp_path, kills=1)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    """Two sources in proportion, dropout, audio left out and swapped, an optimiser with moments: all go on so."""
    data = {**TINY["data"], "more": {**TINY["data"]["sounds"], "samples": 10, "options": 3}}
    mix = [{"source": "sounds", "weight": 2}, {"source": "more", "weight": 1}]
    changed = {"mix": mix, "steps": 70, "checkpoint_every": 2, "audio_dropout": 0.2, "audio_shuffle": 0.2}
    loaded = tiny(tmp_path, data=data, stages=[{**stage, **changed} for stage in TINY["stages"]])
    (tmp_path / "steady").mkdir()
    (tmp_path / "killed").mkdir()
    chance = random.Random(2)
    steady = start(tmp_path / "steady", loaded)
    steady.join(WAIT_S)
    assert steady.exitcode == 0
    log, kills = tmp_path / "killed" / "out" / "log.jsonl", 0
    while kills < 20:
        process = start(tmp_path / "killed", loaded)
        before, until = size(log), time.monotonic() + WAIT_S
        rows = 0 if chance.random() < 0.2 else chance.randint(1, 5)  # some die before their first step
        while rows and size(log) < before + 150 * rows and process.is_alive() and time.monotonic() < until:
            before = min(before, size(log))  # resuming cuts the log back first
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.05))
        assert process.is_alive(), f"it ended by itself, after {kills} kills"
        process.kill()
        process.join()
        kills += 1
    last = start(tmp_path / "killed", loaded)
    last.join(WAIT_S)
    assert last.exitcode == 0
    assert losses(tmp_path / "killed" / "out") == losses(tmp_path / "steady" / "out")
