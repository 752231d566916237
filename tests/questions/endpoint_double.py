"""A language model on this machine that fails, stalls, cuts off, talks garbage and limits rates, by a fixed rule."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MODES = ("fine",) * 12 + ("error", "limit", "stall", "cut", "garbage", "prose", "half")


class Double(ThreadingHTTPServer):
    """Serves /v1/chat/completions; `naughty=False` always answers well.

    The same prompt gets another fate each time it comes. A prompt that says "hopeless" is never answered in form. The
    first `limits` calls are told to come again in `wait_s`. A prompt with audio gets a sentence, not a form.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, *, naughty: bool = True, status: int = 200, stall_s: float = 0.6) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.naughty, self.status, self.stall_s = naughty, status, stall_s
        self.calls = 0
        self.limits, self.wait_s, self.pause_s = 0, 0.4, 0.0
        self.at_once = self.most_at_once = 0
        self.came: list[float] = []
        self.seen: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.bodies: list[dict] = []
        self.lock = threading.Lock()
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def __enter__(self) -> Double:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address) -> None:
        """A client that was killed is no news."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece; in two, each reply waits for an acknowledgement

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        server: Double = self.server
        with server.lock:
            server.at_once += 1
            server.most_at_once = max(server.most_at_once, server.at_once)
            server.came.append(time.monotonic())
        try:
            self._reply(server)
        finally:
            with server.lock:
                server.at_once -= 1

    def _reply(self, server: Double) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = json.dumps(body["messages"])
        with server.lock:
            server.calls += 1
            server.seen[text] += 1
            count = server.seen[text]
            server.keys.add(self.headers.get("Authorization", ""))
            if len(server.bodies) < 20:
                server.bodies.append(body)
        if server.status != 200:
            return self._send(server.status, b'{"error": {"message": "Incorrect key sk-secret-key"}}')
        time.sleep(server.pause_s)
        if server.calls <= server.limits:
            return self._send(429, b"{}", {"Retry-After": str(server.wait_s)})
        fate = int.from_bytes(hashlib.blake2b(f"{text}{count}".encode(), digest_size=4).digest(), "big")
        mode = MODES[fate % len(MODES)] if server.naughty else "fine"
        if mode == "error":
            return self._send(500 + fate % 4, b"{}")
        if mode == "limit":
            return self._send(429, b"{}", {"Retry-After": "0.02"})
        if mode == "stall":
            time.sleep(server.stall_s)
        if mode == "garbage":
            return self._send(200, b"<html>busy</html>", {"Content-Type": "text/html"})
        reply = {"pairs": [{"q": f"Question {n}?", "a": f"Answer {n} of it."} for n in range(3)]}
        content = json.dumps(reply)
        if "paragraph" in body["messages"][-1]["content"]:
            content = json.dumps({"paragraph": "A dog barks while it rains."})
        if "input_audio" in text:
            content = "A dog barks\n in the rain."
        if mode == "prose" or "hopeless" in text:
            content = "Sure! Here are your questions."
        if mode == "half":
            content = content[: len(content) // 2]
        done = {
            "id": "x", "object": "chat.completion", "created": 0, "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": content}}],
            "usage": {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150},
        }  # fmt: skip
        self._send(200, json.dumps(done).encode(), cut=mode == "cut")

    def _send(self, status: int, data: bytes, headers: dict[str, str] | None = None, *, cut: bool = False) -> None:
        try:
            self.send_response(status)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) // 2] if cut else data)
            self.wfile.flush()
            self.close_connection = self.close_connection or cut
        except OSError:
            self.close_connection = True
