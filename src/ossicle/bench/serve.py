"""A server under load, measured from outside, and what a second question costs in two ways of hearing.

    throughput   16 questions at once beside one after another: tokens a second
    gaps         of those 16 streams: the 99th percentile of the time between pieces beside the median
    handles      30 s clip, question, then another question under another system prompt: seconds to the first token
    plits        the same two questions to a prepending model that keeps the K/V of an identical prefix
    mixed        short questions while long prompts are read and long answers made: first token beside unloaded

The server is the real command in a process of its own; this process holds the clients. Every clip is made from the
seed and sent once, so that no handle helps where none is meant to. Source: our choice.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import resource
import statistics
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ossicle.errors import ConfigError
from ossicle.types import SAMPLE_RATE_HZ

GOALS = {"throughput": 4.0, "handles": 0.3, "gaps": 5.0, "mixed": 3.0}
"""At least, at most, at most, at most."""
LINE_BYTES = 1 << 22


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


@dataclass(slots=True, kw_only=True)
class Told:
    """One streamed answer as its client saw it: HTTP status, seconds to the first piece, between pieces, and usage."""

    status: int = 0
    first_s: float = 0.0
    total_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)
    tokens: int = 0
    usage: dict[str, Any] = field(default_factory=dict)
    error: str = ""


def run(setting: Setting, tell: Callable[[str], None] = lambda line: None) -> dict[str, Any]:
    """Measure everything once.

    Args:
        setting: What.
        tell: Takes a line when a part is measured.

    Raises:
        ConfigError: The server does not start.
    """
    result: dict[str, Any] = {"setting": {"model": setting.model, "seed": setting.seed, "tokens": setting.tokens}}
    random = np.random.default_rng(setting.seed)
    with served(setting.model, "--deadline-s", "900") as server:
        url = server.url
        asyncio.run(gather(url, [body(random, 1.0, tokens=4) for _ in range(2)]))
        for name, measure in {"throughput": _throughput, "handles": _handles, "mixed": mixed}.items():
            result |= asyncio.run(measure(url, setting, random))
            tell(f"{name}: {result[name]['ratio']:.2f}x")
    from ossicle.bench.prefix import second_questions  # loads the model here, once the server is gone

    result["plits"] = second_questions(setting.model, repeats=setting.repeats, seed=setting.seed)
    return result


@dataclass(frozen=True, slots=True)
class Served:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def resident_bytes(self) -> int:
        """Return the memory it holds, as Linux tells it."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * resource.getpagesize()


@contextmanager
def served(model: str, *words: str) -> Iterator[Served]:
    """Serve a model in a process of its own on a free port; gives it once it is ready.

    Raises:
        ConfigError: The server ends before it is ready.
    """
    command = [sys.executable, "-m", "ossicle", "serve", model, "--port", "0", "--no-page", *words]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        told = []
        for line in process.stderr:
            told.append(line.strip())
            if " is ready" in line:
                break
        found = re.search(r"http://\S+", "\n".join(told))
        if found is None or process.poll() is not None:
            raise ConfigError(f"bench serve: the server did not start: {told[-1] if told else 'it said nothing'}")
        threading.Thread(target=_drain, args=(process.stderr,), daemon=True).start()
        yield Served(found[0], process)
    finally:
        process.terminate()
        process.wait(timeout=60)


def _drain(stream: Any) -> None:
    for _ in stream:
        pass


def body(
    random: np.random.Generator,
    seconds: float,
    *,
    tokens: int,
    system: str = "",
    question: str = "What do you hear?",
    **part: Any,
) -> dict[str, Any]:
    """Return a question about a fresh clip of noise and tones; 0 seconds = about none."""
    content: list[dict[str, Any]] = [{"type": "text", "text": question}]
    if seconds:
        content.insert(0, {"type": "input_audio", "input_audio": {"data": clip(random, seconds)}, **part})
    before = [{"role": "system", "content": system}] if system else []
    return {
        "messages": [*before, {"role": "user", "content": content}],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def clip(random: np.random.Generator, seconds: float) -> str:
    """Return a fresh clip as base64 of a WAV."""
    time_s = np.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    tones = np.sin(2 * np.pi * random.uniform(100, 2000) * time_s) * np.sin(2 * np.pi * random.uniform(0.2, 3) * time_s)
    samples = (0.3 * tones + 0.02 * random.standard_normal(len(time_s))) * 32767
    held = io.BytesIO()
    with wave.open(held, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        out.writeframes(samples.astype("<i2").tobytes())
    return base64.b64encode(held.getvalue()).decode()


async def gather(url: str, bodies: Sequence[dict[str, Any]]) -> list[Told]:
    """Ask all at once."""
    return list(await asyncio.gather(*(ask(url, one) for one in bodies)))


async def ask(url: str, request: dict[str, Any]) -> Told:
    """Ask once over a connection of its own and read the streamed answer to its end."""
    parts, data = urlsplit(url), json.dumps(request).encode()
    told, began = Told(), time.perf_counter()
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=LINE_BYTES)
    try:
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(data)}\r\nConnection: close\r\n\r\n".encode() + data)
        told.status = int((await reader.readline()).split()[1])
        last = 0.0
        while line := await reader.readline():
            if line.startswith(b'{"error"'):
                told.error = json.loads(line)["error"]["code"] or ""
            if not line.startswith(b"data: {"):
                continue
            now, piece = time.perf_counter(), json.loads(line[6:])
            told.error = (piece.get("error") or {}).get("code") or told.error
            told.usage = piece.get("usage") or told.usage
            if piece.get("choices") and piece["choices"][0]["delta"].get("content"):
                told.first_s = told.first_s or now - began
                told.gaps_s += [now - last] if last else []
                last = now
    finally:
        writer.close()
    told.total_s, told.tokens = time.perf_counter() - began, told.usage.get("completion_tokens", 0)
    return told


async def _throughput(url: str, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return tokens a second of questions one after another and at once, and the gaps of the latter."""
    bodies = [body(random, setting.clip_s, tokens=setting.tokens) for _ in range(2 * setting.concurrency)]
    began = time.perf_counter()
    alone = [await ask(url, one) for one in bodies[: setting.concurrency]]
    between = time.perf_counter()
    together = await gather(url, bodies[setting.concurrency :])
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


async def _handles(url: str, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return seconds to the first token of a first and a second question about 30 s clips, by medians."""
    first, second = [], []
    for number in range(setting.repeats):
        name = f"bench-{setting.seed}-{number}"
        asked = body(random, 30.0, tokens=4, system="You are brief.", uuid=name)
        first.append((await ask(url, asked)).first_s)
        again = {"type": "input_audio", "input_audio": None, "uuid": name}
        text = {"type": "text", "text": "How many sounds are there?"}
        system = {"role": "system", "content": "You answer for a person who cannot hear. Be exact."}
        messages = [system, {"role": "user", "content": [again, text]}]
        second.append((await ask(url, {**asked, "messages": messages})).first_s)
    middle = statistics.median(first), statistics.median(second)
    ratio = middle[1] / middle[0]
    return {"handles": {"first_s": middle[0], "second_s": middle[1], "ratio": ratio, "goal": GOALS["handles"]}}


async def mixed(url: str, setting: Setting, random: np.random.Generator) -> dict[str, Any]:
    """Return how long short questions wait for their first token while long ones run.

    Args:
        url: A server.
        setting: How many of each.
        random: Makes the clips.
    """
    words = "What is it that one hears and when does it begin and end? "
    alone = [await ask(url, body(random, 0, tokens=8)) for _ in range(8)]
    unloaded = statistics.median(told.first_s for told in alone)
    long = [body(random, 10.0, tokens=400, question=words * 40) for _ in range(setting.long)]
    running = [asyncio.ensure_future(ask(url, one)) for one in long]
    await asyncio.sleep(0.05)
    short = []
    for _ in range(setting.short):
        short.append(asyncio.ensure_future(ask(url, body(random, 0, tokens=8))))
        await asyncio.sleep(unloaded * 2)
    still = sum(not task.done() for task in running)
    told_short, told_long = await asyncio.gather(*short), await asyncio.gather(*running)
    waited = sorted(told.first_s for told in told_short)
    told_mixed = {
        "unloaded_s": unloaded,
        "median_s": statistics.median(waited),
        "worst_s": waited[-1],
        "ratio": waited[-1] / unloaded,
        "median_ratio": statistics.median(waited) / unloaded,
        "within_goal": sum(one <= GOALS["mixed"] * unloaded for one in waited) / len(waited),
        "goal": GOALS["mixed"],
        "long_first_s": statistics.median(told.first_s for told in told_long),
        "errors": sum(bool(told.error) or told.status != 200 for told in (*told_short, *told_long)),
        "long_still_running": still,
    }
    return {"mixed": told_mixed}
