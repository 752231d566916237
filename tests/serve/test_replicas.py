"""Replicas: which one a clip belongs to, and two on Ray Serve of which one is killed under load."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

import ossicle
from ossicle.serve.metrics import Metrics
from ossicle.serve.replicas import Front, order, sticky_key
from ossicle.serve.run import Settings, open_port
from serve.conftest import wav

NANO = Path(ossicle.__file__).parent / "nano" / "config.json"


def chat(data, question="What do you hear?", **part):
    audio = {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}, **part}
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": question}, audio]}]}


def key(body):
    return sticky_key("/v1/chat/completions", b"application/json", json.dumps(body).encode())


def test_a_clip_stays_where_its_handle_is():
    assert key(chat("AAAA")) == key(chat("AAAA", "Is there a dog?")) != key(chat("BBBB"))
    assert key(chat("AAAA", uuid="u")) == key(chat(None, "more", uuid="u"))
    nothing = {"messages": [{"role": "user", "content": "hello"}]}
    assert key(nothing) == key(nothing)
    for odd in (b"", b"[1", b"3", b'{"messages": 3}', b'{"messages": [3, {"content": [3, {"type": 4}]}]}', b"[" * 9999):
        assert sticky_key("/v1/chat/completions", b"", odd)
    parts = (b"--%s\r\nfile\r\n--%s--" % (name, name) for name in (b"xyz", b"abc"))
    one, two = (
        sticky_key("/v1/audio/transcriptions", b"multipart/form-data; boundary=" + name, part)
        for name, part in zip((b"xyz", b"abc"), parts, strict=True)
    )
    assert one == two
    assert sticky_key("/v1/audio/streams/a", b"", b"1") == sticky_key("/v1/audio/streams", b"", b"2")


def test_when_a_replica_goes_only_its_clips_move():
    first = {name: order(name, 3) for name in map(str, range(300))}
    shares = [sum(1 for places in first.values() if places[0] == number) for number in range(3)]
    assert min(shares) > 60 and sum(shares) == 300
    for name, places in first.items():
        assert order(name, 3) == places
        assert order(name, 2)[0] == next(number for number in places if number < 2)


class _Handle:
    """Stands in for a Ray Serve handle."""

    def __init__(self, number, broken=None):
        self.number, self.broken, self.cancelled = number, broken, False
        self.answer = self

    def options(self, stream):
        return self

    def remote(self, scope, body):
        return self

    def cancel(self):
        self.cancelled = True

    async def __aiter__(self):
        if self.broken == "before":
            raise ConnectionError("died")
        if self.broken in ("unknown_uuid", "invalid_value"):
            yield {"type": "http.response.start", "status": 400, "headers": []}
            yield {"type": "http.response.body", "body": json.dumps({"error": {"code": self.broken}}).encode()}
            return
        yield {"type": "http.response.start", "status": 200, "headers": []}
        if self.broken == "hangs":
            await asyncio.sleep(60)
        yield {"type": "http.response.body", "body": str(self.number).encode()}


def _ask(handles, body=b"{}", leaves=False, method="POST", path="/v1/chat/completions"):
    sent = []

    async def run():
        given = [{"type": "http.request", "body": body}]

        async def receive():
            if given:
                return given.pop()
            await asyncio.sleep(0.2 if leaves else 60)
            return {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        front = Front(handles, (ConnectionError,))
        await front({"type": "http", "method": method, "path": path, "headers": []}, receive, send)

    asyncio.run(run())
    return sent


def test_the_next_replica_answers_for_a_dead_one():
    first, second = order(sticky_key("/v1/chat/completions", b"", b"{}"), 2)
    handles = [_Handle(0), _Handle(1)]
    assert _ask(handles)[-1]["body"] == str(first).encode()
    handles[first].broken = "before"
    assert _ask(handles)[-1]["body"] == str(second).encode()
    handles[second].broken = "before"
    from ossicle.serve.limits import ApiError

    with pytest.raises(ApiError, match="no replica can be reached"):
        _ask(handles)


def test_a_clip_that_another_replica_heard_is_asked_for_there():
    first, second = order(sticky_key("/v1/chat/completions", b"", b"{}"), 2)
    handles = [_Handle(0), _Handle(1)]
    handles[first].broken = "unknown_uuid"
    assert [message.get("status") for message in _ask(handles)] == [200, None]
    assert _ask(handles)[-1]["body"] == str(second).encode()
    handles[second].broken = "unknown_uuid"
    refused = _ask(handles)
    assert refused[0]["status"] == 400 and b"unknown_uuid" in refused[1]["body"] and len(refused) == 2
    handles[second].broken = "before"
    assert _ask(handles) == refused, "who is gone does not make the clip known"
    handles[first].broken = "invalid_value"
    handles[second].broken = None
    assert b"invalid_value" in _ask(handles)[-1]["body"], "any other refusal is the answer"


def test_a_client_that_leaves_ends_its_answer():
    handles = [_Handle(0, "hangs"), _Handle(1, "hangs")]
    assert len(_ask(handles, leaves=True)) == 1
    assert any(handle.cancelled for handle in handles)


class _Counted:
    """Stands in for a handle whose replica tells its metrics."""

    def __init__(self, replica):
        self.metrics, self.replica = self, replica

    async def remote(self):
        if self.replica is None:
            raise ConnectionError("died")
        return self.replica.text()


def test_metrics_are_those_of_all_replicas():
    replicas = [Metrics(), Metrics()]
    for number, one in enumerate(replicas):
        one.count("ossicle_requests_total", number + 1, route="/a", status="200")
        one.gauge("ossicle_requests_running", lambda: 3)
        one.time("ossicle_answer_seconds", 0.2)
    lines = (
        _ask([*map(_Counted, replicas), _Counted(None)], method="GET", path="/metrics")[-1]["body"]
        .decode()
        .splitlines()
    )
    assert 'ossicle_requests_total{replica="1",route="/a",status="200"} 2' in lines
    assert 'ossicle_answer_seconds_bucket{replica="0",le="0.3"} 1' in lines
    assert [line for line in lines if "_up{" in line] == [
        f'ossicle_replica_up{{replica="{n}"}} {n < 2:d}' for n in range(3)
    ]
    typed = [line for line in lines if line.startswith("#")]
    assert len(typed) == len(set(typed)) == 4
    first = lines.index("# TYPE ossicle_requests_running gauge")
    assert lines[first + 1 : first + 3] == [f'ossicle_requests_running{{replica="{n}"}} 3' for n in range(2)]


@contextlib.contextmanager
def served(fleet):
    import uvicorn

    opened = open_port("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(fleet.front(), log_config=None, lifespan="off"))
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        opened.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(not NANO.is_file(), reason="nano is not in this checkout")
def test_two_replicas_one_killed_under_load():
    pytest.importorskip("ray.serve")
    from ossicle.serve.replicas import Fleet

    fleet = Fleet(Settings(page=False, device="cpu"), 2)
    try:
        with served(fleet) as url, httpx.Client(base_url=url, timeout=300) as client:
            clips = [base64.b64encode(wav(1.0, hz=200.0 + 40 * i)).decode() for i in range(8)]

            def ask(index):
                answer = client.post("/v1/chat/completions", json=chat(clips[index % 8]))
                return answer.status_code, answer.headers.get("x-ossicle-replica"), answer.json()

            first = [ask(index) for index in range(8)]
            again = [ask(index) for index in range(8)]
            assert {status for status, _, _ in first + again} == {200}
            homes = [number for _, number, _ in first]
            assert set(homes) == {"0", "1"} and homes == [number for _, number, _ in again]
            assert all(told["usage"]["audio_handles"]["hits"] > 0 for _, _, told in again)
            told = client.get("/metrics").text
            assert all(f'ossicle_requests_running{{replica="{number}"}}' in told for number in (0, 1))
            process = fleet.handles[0].process.remote().result()
            with ThreadPoolExecutor(4) as pool:
                asked = [pool.submit(ask, index) for index in range(40)]
                time.sleep(0.5)
                os.kill(process, signal.SIGKILL)
                done = [future.result() for future in asked]
            assert {status for status, _, _ in done} == {200}
            assert fleet.handles[0].process.remote().result(timeout_s=300) != process  # Ray has started it again
            assert [ask(index)[1] for index in range(8)] == homes
    finally:
        fleet.close()
