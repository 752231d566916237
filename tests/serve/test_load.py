"""Many clients at once on nano for a while: no error, nobody starves, memory stays flat, overload is said."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

import ossicle
from ossicle.bench.clients import ask, body, gather, served
from ossicle.bench.serve import Setting, steady

pytestmark = [pytest.mark.slow, pytest.mark.alone]
NANO = Path(ossicle.__file__).parent / "nano" / "config.json"
SECONDS = float(os.environ.get("OSSICLE_LOAD_S", "120"))
CLIENTS = 64


async def client(url, number, until, told):
    """Ask one question after another: short and long answers, with clips of all lengths and without."""
    random = np.random.default_rng(number)
    while time.monotonic() < until:
        seconds = float(random.choice([0.0, 0.0, 0.5, 2.0, 8.0]))
        answer = await ask(url, body(random, seconds, tokens=int(random.choice([4, 16, 64]))))
        told[number].append(answer)


async def loaded(server, seconds):
    """Load a server; return what each client was told, and its memory on the way."""
    told, memory = [[] for _ in range(CLIENTS)], []

    async def watch():
        while True:
            memory.append(server.resident_bytes())
            await asyncio.sleep(2)

    watching = asyncio.ensure_future(watch())
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(server.url, number, until, told) for number in range(CLIENTS)))
    watching.cancel()
    return told, memory


@pytest.mark.skipif(not NANO.is_file(), reason="nano is not in this checkout")
def test_many_clients_for_a_while(capsys):
    with served("nano", "--handle-megabytes", "32", "--deadline-s", "600") as server:
        asyncio.run(gather(server.url, [body(np.random.default_rng(0), 8.0, tokens=64) for _ in range(CLIENTS)]))
        told, memory = asyncio.run(loaded(server, SECONDS))
    every = [answer for row in told for answer in row]
    first = sorted(answer.first_s for answer in every)
    half = len(memory) // 2
    growth = max(memory[half:]) - max(memory[:half])
    report = {
        "seconds": SECONDS,
        "answers": len(every),
        "tokens": sum(answer.tokens for answer in every),
        "errors": sum(answer.status != 200 or bool(answer.error) for answer in every),
        "fewest_of_a_client": min(map(len, told)),
        "most_of_a_client": max(map(len, told)),
        "first_token_s": [statistics.median(first), first[int(0.99 * len(first))], first[-1]],
        "resident_mb": [round(held / 1e6) for held in memory[:: max(1, len(memory) // 12)]],
        "growth_mb": round(growth / 1e6, 1),
    }
    with capsys.disabled():
        print("\n" + json.dumps(report))
    assert report["errors"] == 0
    assert report["fewest_of_a_client"] * 4 >= report["most_of_a_client"], "a client starved"
    assert growth < 64 << 20


@pytest.mark.skipif(not NANO.is_file(), reason="nano is not in this checkout")
def test_overload_is_said_and_over_when_the_load_is():
    random = np.random.default_rng(0)
    with served("nano", "--running", "1", "--queue", "2") as server:
        bodies = [body(random, 0.0, tokens=64) for _ in range(16)]
        told = asyncio.run(gather(server.url, bodies))
        refused = [answer for answer in told if answer.status == 429]
        assert refused and all(answer.error == "overloaded" for answer in refused)
        assert all(answer.status == 200 and not answer.error for answer in told if answer not in refused)
        assert asyncio.run(ask(server.url, bodies[0])).status == 200


@pytest.mark.skipif(not NANO.is_file(), reason="nano is not in this checkout")
def test_short_questions_hardly_wait_for_long_ones(capsys):
    """The aim is 3 times the unloaded time for each; on two shared cores most of them and a bound on the worst."""
    random = np.random.default_rng(0)
    with served("nano", "--deadline-s", "900") as server:
        asyncio.run(gather(server.url, [body(random, 1.0, tokens=4) for _ in range(2)]))
        told = asyncio.run(steady(server, Setting(), random))["steady"]
    with capsys.disabled():
        print("\n" + json.dumps(told))
    assert told["errors"] == 0 and told["long_still_running"] == 8
    assert told["median_ratio"] <= 4 and told["ratio"] <= 20
