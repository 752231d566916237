"""The command as people start it: refusals in one line, and nano served, asked with curl, and drained."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

import ossicle
from ossicle.cli import app
from ossicle.serve.run import open_port
from serve.conftest import wav

NANO = Path(ossicle.__file__).parent / "nano" / "config.json"


@pytest.mark.parametrize(
    "words, said",
    [
        (["nano", "--host", "0.0.0.0"], "OSSICLE_API_KEY"),
        (["no-such-model", "--port", "0"], "no folder with a config.json"),
        (["nano", "--api-key-file", "no-such-file"], "cannot be read"),
        (["nano", "--port", "99999"], "65535"),
        (["nano", "--host", "no such host", "--api-key-file", "KEYS"], "no such address"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_2(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("OSSICLE_API_KEY", raising=False)
    monkeypatch.setattr("ossicle.serve.run._check_model", lambda model: None) if "no such host" in words else None
    (tmp_path / "keys").write_text("k")
    assert app.run(["serve", *(str(tmp_path / "keys") if word == "KEYS" else word for word in words)]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and told[0].startswith("ossicle: error: ") and said in told[0]


def test_a_busy_port_is_one_line_and_exit_2(capsys, monkeypatch):
    monkeypatch.setattr("ossicle.serve.run._check_model", lambda model: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert app.run(["serve", "nano", "--port", str(taken.getsockname()[1]), "--no-page"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and "cannot listen there" in told[0] and "try --port" in told[0]


def _served(words):
    """Start the command; return the process and its address."""
    command = [sys.executable, "-m", "ossicle", "serve", *words]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "OSSICLE_API_KEY": "k1,k2"}
    )
    found = re.search(r"http://\S+", process.stderr.readline())
    return process, found[0]


def test_small_pieces_leave_at_once():
    """Without TCP_NODELAY each answer waits for the client's acknowledgement of its head, 40 ms on Linux."""
    opened, told = open_port("127.0.0.1", 0), []

    async def taken() -> None:
        def note(reader, writer):
            told.append(writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            writer.close()

        async with await asyncio.start_server(note, sock=opened):
            reader, writer = await asyncio.open_connection(*opened.getsockname())
            await reader.read()
            writer.close()

    asyncio.run(taken())
    assert told and told[0]


@pytest.mark.slow
@pytest.mark.skipif(not NANO.is_file(), reason="nano is not in this checkout")
def test_nano_is_served_asked_and_drained():
    process, url = _served(["nano", "--port", "0", "--no-page"])
    try:
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer k2"}, timeout=300) as client:
            assert client.get("/health").status_code == 200
            until = time.monotonic() + 300
            while client.get("/ready").status_code != 200 and time.monotonic() < until:
                time.sleep(0.5)
            data = base64.b64encode(wav(1.0)).decode()
            parts = [{"type": "audio", "audio": data}, {"type": "text", "text": "What do you hear?"}]
            body = {"messages": [{"role": "user", "content": parts}]}
            curl = [
                shutil.which("curl"),
                "-sS",
                "-H",
                "Authorization: Bearer k1",
                "-d",
                "@-",
                f"{url}/v1/chat/completions",
            ]
            if curl[0]:
                done = subprocess.run(curl, input=json.dumps(body), capture_output=True, text=True, check=True)
                assert json.loads(done.stdout)["choices"][0]["message"]["content"]
            assert httpx.post(f"{url}/v1/chat/completions", json=body).status_code == 401
            said, again = (client.post("/v1/chat/completions", json=body).json() for _ in range(2))
            assert said["choices"][0]["message"] == again["choices"][0]["message"]
            # the other key's clip was no help, one's own is
            assert said["usage"]["audio_handles"]["hits"] == 0 < again["usage"]["audio_handles"]["hits"]
            with client.stream(
                "POST", "/v1/chat/completions", json={**body, "stream": True, "temperature": 1.9}
            ) as answer:
                lines = answer.iter_lines()
                next(lines)
                process.send_signal(signal.SIGTERM)
                assert list(filter(None, lines))[-1] == "data: [DONE]"
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()
