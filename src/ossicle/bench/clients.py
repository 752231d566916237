"""Clients of a server in a process of its own: they ask, read streamed answers to their end, and watch the clock.

    served(model) ──► ossicle serve … on a free port ◄── ask(url, body(random, seconds)) ──► Told

Every clip is made from a generator and sent once, so that no handle helps where none is meant to. Source: our choice.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import resource
import subprocess
import sys
import threading
import time
import wave
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from ossicle.errors import ConfigError
from ossicle.types import SAMPLE_RATE_HZ

LINE_BYTES = 1 << 22


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


@dataclass(frozen=True, slots=True)
class Served:
    """A server in a process of its own."""

    url: str
    process: subprocess.Popen[str]

    def processor_s(self) -> float:
        """Return the processor seconds it has taken so far, as Linux tells them."""
        after_name = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")

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
