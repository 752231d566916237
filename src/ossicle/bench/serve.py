"""A server under load, measured from outside, and what a second question costs in two ways of hearing.

    throughput   16 questions at once beside one after another: tokens a second
    gaps         of those 16 streams: the 99th percentile of the time between pieces beside the median
    handles      30 s clip, question, then another question under another system prompt: seconds to the first token
    plits        the same two questions to a prepending model that keeps the K/V of an identical prefix
    steady       short questions come one after another while long prompts are read and long answers made: first
                 token beside unloaded
    mixed        the same, as thick and fast as they would come if only first tokens counted
    burst        the same, all in one instant; beside it the short ones alone, and what they take at least

The server is the real command in a process of its own; this process holds the clients. Source: our choice.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ossicle.bench.clients import Served, Told, ask, body, gather, served
from ossicle.errors import ConfigError

GOALS = {"throughput": 4.0, "handles": 0.3, "gaps": 5.0, "mixed": 3.0}
"""At least, at most, at most, at most."""
PARTS = ("throughput", "handles", "plits", "steady", "mixed", "burst")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What is measured.

    Attributes:
        model: A model folder, or the name of one that ships.
        concurrency: Questions at once.
        tokens: Tokens of each answer; answers do not end before.
        clip_s: Seconds of audio of a question under load.
        repeats: Clips of which a second question is asked.
        long: Long questions of the mixed load.
        short: Short ones.
        seed: Seed of the clips.
    """

    model: str = "nano"
    concurrency: int = 16
    tokens: int = 64
    clip_s: float = 10.0
    repeats: int = 5
    long: int = 8
    short: int = 56
    seed: int = 0


def run(
    setting: Setting, parts: Sequence[str] = PARTS, tell: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """Measure some parts once.

    Args:
        setting: What.
        parts: Of `PARTS`; `gaps` come with `throughput`.
        tell: Takes a line when a part is measured.

    Raises:
        ConfigError: There is no such part, or the server does not start.
    """
    if unknown := set(parts) - set(PARTS):
        raise ConfigError(f"bench serve: no part '{min(unknown)}'; expected some of {', '.join(PARTS)}")
    result: dict[str, Any] = {"setting": {"model": setting.model, "seed": setting.seed, "tokens": setting.tokens}}
    measures = {"throughput": _throughput, "handles": _handles, "steady": steady, "mixed": mixed, "burst": _burst}
    if set(parts) & set(measures):
        with served(setting.model, "--deadline-s", "900") as server:
            random = np.random.default_rng(setting.seed)
            asyncio.run(gather(server.url, [body(random, 1.0, tokens=4) for _ in range(2)]))
            for name in (name for name in measures if name in parts):
                random = np.random.default_rng([setting.seed, PARTS.index(name)])
                result |= asyncio.run(measures[name](server, setting, random))
                tell(f"{name}: {result[name]['ratio']:.2f}x")
    if "plits" in parts:
        from ossicle.bench.prefix import second_questions  # loads the model here, once the server is gone

        result["plits"] = second_questions(setting.model, repeats=setting.repeats, seed=setting.seed)
    return result


async def _throughput(server: Served, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return tokens a second of questions one after another and at once, and the gaps of the latter."""
    bodies = [body(random, setting.clip_s, tokens=setting.tokens) for _ in range(2 * setting.concurrency)]
    began = time.perf_counter()
    alone = [await ask(server.url, one) for one in bodies[: setting.concurrency]]
    between = time.perf_counter()
    together = await gather(server.url, bodies[setting.concurrency :])
    took = between - began, time.perf_counter() - between
    one, many = (
        {"seconds": seconds, "tokens": (n := sum(t.tokens for t in told)), "tokens_per_s": n / seconds}
        for seconds, told in zip(took, (alone, together), strict=True)
    )
    ratio = many["tokens_per_s"] / one["tokens_per_s"]
    gaps = sorted(gap for told in together for gap in told.gaps_s)
    middle, worst = statistics.median(gaps), gaps[int(0.99 * len(gaps))]
    return {
        "throughput": {"one": one, "many": many, "ratio": ratio, "goal": GOALS["throughput"]},
        "gaps": {"median_s": middle, "p99_s": worst, "ratio": worst / middle, "goal": GOALS["gaps"], "n": len(gaps)},
    }


async def _handles(server: Served, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return seconds to the first token of a first and a second question about 30 s clips, by medians."""
    first, second = [], []
    for number in range(setting.repeats):
        name = f"bench-{setting.seed}-{number}"
        asked = body(random, 30.0, tokens=4, system="You are brief.", uuid=name)
        first.append((await ask(server.url, asked)).first_s)
        again = {"type": "input_audio", "input_audio": None, "uuid": name}
        text = {"type": "text", "text": "How many sounds are there?"}
        system = {"role": "system", "content": "You answer for a person who cannot hear. Be exact."}
        messages = [system, {"role": "user", "content": [again, text]}]
        second.append((await ask(server.url, {**asked, "messages": messages})).first_s)
    middle = statistics.median(first), statistics.median(second)
    ratio = middle[1] / middle[0]
    return {"handles": {"first_s": middle[0], "second_s": middle[1], "ratio": ratio, "goal": GOALS["handles"]}}


async def mixed(server: Served, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return how long short questions wait for their first token among long ones, when they come thick and fast.

    They come twice as far apart as one alone takes to its first token, which is more than one core can answer.

    Args:
        server: Who is asked.
        setting: How many of each.
        random: Makes the clips.
    """
    first_s, _ = await _unloaded(server, random)
    return {"mixed": await _streamed(server, setting, random, first_s, first_s * 2)}


async def steady(server: Served, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return the same at a moderate rate: short questions come twice as far apart as one alone takes to its end."""
    first_s, whole_s = await _unloaded(server, random)
    return {"steady": await _streamed(server, setting, random, first_s, whole_s * 2)}


async def _streamed(
    server: Served, setting: Setting, random: np.random.Generator, unloaded: float, apart_s: float
) -> dict[str, Any]:
    """Return how long short questions wait for their first token that come one after another among long ones."""
    running = [asyncio.ensure_future(ask(server.url, one)) for one in _long(setting, random)]
    await asyncio.sleep(0.05)
    short = []
    for _ in range(setting.short):
        short.append(asyncio.ensure_future(ask(server.url, body(random, 0, tokens=8))))
        await asyncio.sleep(apart_s)
    still = sum(not task.done() for task in running)
    told_short, told_long = await asyncio.gather(*short), await asyncio.gather(*running)
    told = {"unloaded_s": unloaded, "apart_s": apart_s, **_waited(told_short, unloaded)}
    long_s = statistics.median(one.first_s for one in told_long)
    more = {"long_first_s": long_s, "errors": _errors([*told_short, *told_long]), "long_still_running": still}
    return {**told, **more, "goal": GOALS["mixed"]}


async def _burst(server: Served, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return how long short questions wait that come in one instant, alone and with the long ones.

    `least` is what no order of work can beat for the last of them: the processor time that their first tokens take the
    server when nothing else is asked, over its cores, beside the unloaded time.
    """
    unloaded, _ = await _unloaded(server, random)
    before = server.processor_s()
    firsts = await gather(server.url, [body(random, 0, tokens=1) for _ in range(setting.short)])
    processor_s = server.processor_s() - before
    cores = len(os.sched_getaffinity(0))
    alone = await gather(server.url, [body(random, 0, tokens=8) for _ in range(setting.short)])
    every = [*(body(random, 0, tokens=8) for _ in range(setting.short)), *_long(setting, random)]
    told = await gather(server.url, every)
    waited = _waited(told[: setting.short], unloaded)
    more = {"processor_s": processor_s, "cores": cores, "least": processor_s / cores / unloaded}
    more |= {"alone": _waited(alone, unloaded), "errors": _errors([*firsts, *alone, *told]), "goal": GOALS["mixed"]}
    return {"burst": {"unloaded_s": unloaded, **waited, **more}}


async def _unloaded(server: Served, random: np.random.Generator) -> tuple[float, float]:
    """Return seconds to a short question's first token and to its end when it is alone: medians of some."""
    alone = [await ask(server.url, body(random, 0, tokens=8)) for _ in range(16)]
    return statistics.median(told.first_s for told in alone), statistics.median(told.total_s for told in alone)


def _long(setting: Setting, random: np.random.Generator) -> list[dict[str, Any]]:
    """Return the long questions."""
    words = "What is it that one hears and when does it begin and end? "
    return [body(random, 10.0, tokens=400, question=words * 40) for _ in range(setting.long)]


def _waited(told: Sequence[Told], unloaded: float) -> dict[str, float]:
    """Return how long answers' first tokens took, in seconds and beside the unloaded time."""
    waited = sorted(one.first_s for one in told)
    middle = statistics.median(waited)
    return {
        "median_s": middle,
        "worst_s": waited[-1],
        "ratio": waited[-1] / unloaded,
        "median_ratio": middle / unloaded,
        "within_goal": sum(one <= GOALS["mixed"] * unloaded for one in waited) / len(waited),
    }


def _errors(told: Sequence[Told]) -> int:
    return sum(bool(one.error) or one.status != 200 for one in told)


def lines(result: dict[str, Any]) -> list[str]:
    """Return a result of `run` in words."""
    told = []
    if speed := result.get("throughput"):
        gaps = result["gaps"]
        told += [
            f"questions at once: {speed['many']['tokens_per_s']:.0f} tokens/s, one at a time "
            f"{speed['one']['tokens_per_s']:.0f}: {speed['ratio']:.2f}x (goal at least {speed['goal']:g})",
            f"gaps between pieces: median {_ms(gaps['median_s'])}, 99 % {_ms(gaps['p99_s'])}: "
            f"{gaps['ratio']:.1f}x (goal at most {gaps['goal']:g})",
        ]
    if second := result.get("handles"):
        told.append(
            f"first token, 30 s clip: {_ms(second['first_s'])}, another question under another system prompt "
            f"{_ms(second['second_s'])}: {second['ratio']:.2f}x (goal at most {second['goal']:g})"
        )
    if plits := result.get("plits"):
        told.append(
            f"PLITS and a prefix cache, in process: {_ms(plits['first_s'])}, other system prompt "
            f"{plits['ratio_other']:.2f}x, same one {plits['ratio_same']:.2f}x"
        )
    for name, how in {"steady": "in turn", "mixed": "thick and fast", "burst": "in one instant"}.items():
        if waits := result.get(name):
            told.append(
                f"short among long, {how}: first token {_ms(waits['unloaded_s'])} unloaded, median "
                f"{waits['median_ratio']:.1f}x, worst {waits['ratio']:.1f}x, {waits['within_goal']:.0%} within "
                f"{waits['goal']:g}x"
            )
    if burst := result.get("burst"):
        told.append(
            f"  the short ones alone: median {burst['alone']['median_ratio']:.1f}x, worst "
            f"{burst['alone']['ratio']:.1f}x; no order of work on {burst['cores']} cores gives the last one less than "
            f"{burst['least']:.1f}x"
        )
    return told


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
