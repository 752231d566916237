"""A training process killed with SIGKILL at random moments, again and again, ends with the losses of one left alone."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

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


def start(folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, str(HERE / "train_tiny.py"), str(folder)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def kill_while_training(folder: Path, chance: random.Random) -> bool:
    """Start it, wait until it writes its log, then a random moment longer; return whether it was killed in time."""
    log = folder / "out" / "log.jsonl"
    before = size(log)
    process = start(folder)
    until = time.monotonic() + WAIT_S
    while size(log) <= before and process.poll() is None and time.monotonic() < until:
        before = min(before, size(log))  # resuming cuts the log back first
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.25))
    alive = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return alive


def check(tmp_path: Path, kills: int) -> None:
    (tmp_path / "steady").mkdir()
    (tmp_path / "killed").mkdir()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        Run(tiny(tmp_path / "steady"), tmp_path / "steady" / "out", tell=lambda _: None).train()
    finally:
        torch.set_num_threads(threads)
    chance = random.Random(1)
    killed = sum(kill_while_training(tmp_path / "killed", chance) for _ in range(kills))
    assert killed >= 1
    last = start(tmp_path / "killed")
    assert last.wait(WAIT_S) == 0
    assert losses(tmp_path / "killed" / "out") == losses(tmp_path / "steady" / "out")


def test_killed_once(tmp_path: Path) -> None:
    check(tmp_path, kills=1)


def resume(folder: Path, loaded: Loaded) -> None:
    torch.set_num_threads(1)
    Run(loaded, folder / "out", tell=lambda _: None).train(resume=True)


@pytest.mark.slow
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    """Two sources in proportion, dropout, audio left out and swapped, an optimiser with moments: all go on as before.

    The processes are forked, so that twenty of them need not import everything again.
    """
    data = {**TINY["data"], "more": {**TINY["data"]["sounds"], "samples": 10, "options": 3}}
    mix = [{"source": "sounds", "weight": 2}, {"source": "more", "weight": 1}]
    changed = {"mix": mix, "steps": 70, "checkpoint_every": 2, "audio_dropout": 0.2, "audio_shuffle": 0.2}
    loaded = tiny(tmp_path, data=data, stages=[{**stage, **changed} for stage in TINY["stages"]])
    (tmp_path / "steady").mkdir()
    (tmp_path / "killed").mkdir()
    forks, chance = multiprocessing.get_context("fork"), random.Random(2)
    steady = forks.Process(target=resume, args=(tmp_path / "steady", loaded))
    steady.start()
    steady.join(WAIT_S)
    assert steady.exitcode == 0
    log, kills = tmp_path / "killed" / "out" / "log.jsonl", 0
    while kills < 20:
        process = forks.Process(target=resume, args=(tmp_path / "killed", loaded))
        process.start()
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
    last = forks.Process(target=resume, args=(tmp_path / "killed", loaded))
    last.start()
    last.join(WAIT_S)
    assert last.exitcode == 0
    assert losses(tmp_path / "killed" / "out") == losses(tmp_path / "steady" / "out")
