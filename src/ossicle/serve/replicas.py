"""Several replicas of one model behind one address, on Ray Serve.

                         ┌── hash of the audio ──►  replica 1   a Ray Serve application each: model, handles, endpoints
    client ──► gate ──► front                       replica 2   Ray starts one that died again
                         └── the next in order ──►  replica …   when the first is gone before its answer began

The front runs in this process and speaks HTTP; a request travels to its replica as an ASGI scope and a body, the answer
comes back message by message. Which replica a clip belongs to is decided by rendezvous hashing of its uuid or its
bytes, so that a second question finds the handle, and only the dead one's clips move. Pages and live streams have one
replica; `/metrics` asks all. `--ray-address` joins a cluster; without it Ray runs here.
Source: rendezvous hashing (Thaler & Ravishankar, 1998); Ray Serve; the rest is our choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

from ossicle.errors import require
from ossicle.serve.cores import share_the_machine
from ossicle.serve.gate import Gate
from ossicle.serve.limits import ApiError
from ossicle.serve.metrics import merged
from ossicle.serve.run import (
    Settings,
    checked,
    drained_by_signals,
    listening,
    log_requests,
    server_of,
)
from ossicle.serve.state import State

logger = logging.getLogger(__name__)
PLAIN = ("type", "http_version", "method", "scheme", "path", "raw_path", "query_string", "root_path")
STICKY = ("/v1/chat", "/v1/audio/transcriptions")
REFUSED, UNKNOWN, SHORT = 400, b'"unknown_uuid"', 4096
"""How a replica refuses a clip that it does not know: status, code, and the bytes of a body that may hold it."""
RETRY_S = 5
METRICS_S = 5.0
"""So long a replica has to tell its metrics."""


class Replica:
    """One model with its endpoints, inside a Ray worker.

    Args:
        settings: How to serve; address and port are the front's.
        number: Which replica it is.
    """

    def __init__(self, settings: Settings, number: int) -> None:
        from ossicle.inference.engine import load
        from ossicle.serve.api import build_app
        from ossicle.serve.page import Page
        from ossicle.serve.worker import Worker

        self.number = number
        self.state = state = State(settings.served_name, settings.keys, settings.limits, settings.handle_bytes)
        state.page = Page(state) if settings.page else None
        self.app = build_app(state)
        engine = load(settings.model, device=settings.device, dtype=settings.dtype)
        share_the_machine()
        state.worker = Worker(engine, state.store, settings.limits, state.metrics)
        if state.page is not None:
            state.page.build()

    async def process(self) -> int:
        """Return the id of this process."""
        import os

        return os.getpid()

    async def metrics(self) -> str:
        """Return this replica's counts and times."""
        return self.state.metrics.text()

    async def answer(self, scope: dict[str, Any], body: bytes) -> AsyncIterator[dict[str, Any]]:
        """Yield the ASGI messages of the answer to one request."""
        messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        given, gone = [{"type": "http.request", "body": body, "more_body": False}], asyncio.Event()

        async def receive() -> dict[str, Any]:
            if given:
                return given.pop()
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                number = (b"x-ossicle-replica", str(self.number).encode())
                message = {**message, "headers": [*map(tuple, message.get("headers", [])), number]}
            await messages.put(message)

        async def run() -> None:
            try:
                await self.app({**scope, "asgi": {"version": "3.0"}}, receive, send)
            finally:
                await messages.put(None)

        task = asyncio.ensure_future(run())
        try:
            while (message := await messages.get()) is not None:
                yield message
        finally:
            gone.set()
            await asyncio.wait([task], timeout=5)
            task.cancel()


class Front:
    """ASGI application that hands each request to a replica.

    Args:
        handles: The replicas' Ray Serve handles.
        lost: What is raised when a replica dies or cannot be reached.
    """

    def __init__(self, handles: list[Any], lost: tuple[type[Exception], ...]) -> None:
        self.handles, self.lost = handles, lost

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        if (scope["method"], scope["path"]) == ("GET", "/metrics"):
            await self._metrics(send)
            return
        pieces = []
        while (event := await receive())["type"] == "http.request":
            pieces.append(event.get("body", b""))
            if not event.get("more_body", False):
                break
        else:  # gone in the middle of its body
            return
        body = b"".join(pieces)
        plain = {name: scope[name] for name in PLAIN if name in scope}
        plain["headers"] = [(bytes(key), bytes(value)) for key, value in scope["headers"]]
        plain |= {name: tuple(scope[name]) if scope.get(name) else None for name in ("client", "server")}
        key = await asyncio.to_thread(sticky_key, scope["path"], self._header(scope, b"content-type"), body)
        answer = asyncio.ensure_future(self._answer(plain, body, key, send))
        gone = asyncio.ensure_future(_disconnected(receive))
        await asyncio.wait((answer, gone), return_when=asyncio.FIRST_COMPLETED)
        gone.cancel()
        if not answer.done():
            answer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await answer

    async def _metrics(self, send: Any) -> None:
        """Answer with the metrics of all replicas, each number labelled with its replica."""

        async def text(handle: Any) -> str:
            with contextlib.suppress(TimeoutError, *self.lost):
                return str(await asyncio.wait_for(handle.metrics.remote(), METRICS_S))
            return ""

        texts = await asyncio.gather(*map(text, self.handles))
        headers = [(b"content-type", b"text/plain; version=0.0.4")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": merged(dict(enumerate(texts))).encode()})

    async def _answer(self, plain: dict[str, Any], body: bytes, key: str, send: Any) -> None:
        """Send the first replica's answer that begins; one that breaks off later is not begun again.

        A request may name a clip that another replica heard, as the second of two: who does not know it is passed over.
        """
        unknown: list[dict[str, Any]] = []
        for number in order(key, len(self.handles)):
            began = False
            stream = self.handles[number].options(stream=True).answer.remote(plain, body)
            try:
                async for messages in _told(stream):
                    if UNKNOWN in messages[-1].get("body", b"")[:SHORT] and len(messages) == 2:
                        unknown = messages
                        break
                    began = True
                    for message in messages:
                        await send(message)
                else:
                    return
            except self.lost as error:
                logger.warning("replica %d is gone: %s", number, str(error).splitlines()[0])
                if began:
                    return
            except asyncio.CancelledError:
                stream.cancel()
                raise
        if not unknown:
            raise ApiError("no replica can be reached; they are started again", status=503, retry_s=RETRY_S)
        for message in unknown:
            await send(message)

    def _header(self, scope: dict[str, Any], name: bytes) -> bytes:
        return next((value for key, value in scope["headers"] if key == name), b"")


async def _told(stream: Any) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the messages of an answer one by one; a refusal's head only with its body, which says why."""
    head: list[dict[str, Any]] = []
    async for message in stream:
        if message.get("status") == REFUSED:
            head = [message]
            continue
        yield [*head, message]
        head = []


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def sticky_key(path: str, content_type: bytes, body: bytes) -> str:
    """Return what decides which replica a request belongs to: its first clip, or its kind where it has none.

    Example:
        >>> sticky_key("/v1/audio/streams", b"", b"")
        '/v1/audio/streams'
    """
    if not path.startswith(STICKY):
        return "/v1/audio/streams" if path.startswith("/v1/audio/streams") else "/"
    if content_type.startswith(b"multipart/"):
        boundary = content_type.partition(b"boundary=")[2].strip(b'"')
        return hashlib.blake2b(body.replace(boundary, b"") if boundary else body).hexdigest()
    try:
        clip = _first_clip(json.loads(body))
    except (ValueError, RecursionError):
        clip = None
    return clip if clip is not None else hashlib.blake2b(body).hexdigest()


def _first_clip(asked: Any) -> str | None:
    """Return the uuid, or the hash of the data, of the first audio part of a chat request."""
    messages = asked.get("messages") if isinstance(asked, dict) else None
    for message in messages if isinstance(messages, list) else []:
        content = message.get("content") if isinstance(message, dict) else None
        for part in content if isinstance(content, list) else []:
            held = part.get(part.get("type")) if isinstance(part, dict) and isinstance(part.get("type"), str) else None
            if not isinstance(part, dict) or part.get("type") == "text":
                continue
            if isinstance(part.get("uuid"), str):
                return f"uuid {part['uuid']}"
            return hashlib.blake2b(json.dumps(held, sort_keys=True).encode()).hexdigest()
    return None


def order(key: str, count: int) -> list[int]:
    """Return all replicas, the one a key belongs to first; when one is gone, only its own keys move.

    Example:
        >>> sorted(order("a", 3))
        [0, 1, 2]
    """
    weights = [hashlib.blake2b(f"{number} {key}".encode(), digest_size=8).digest() for number in range(count)]
    return sorted(range(count), key=lambda number: weights[number], reverse=True)


class Fleet:
    """Replicas on Ray Serve.

    Args:
        settings: How to serve.
        count: Number of replicas.
        address: A cluster's address; None = Ray is started here.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    def __init__(self, settings: Settings, count: int, address: str | None = None) -> None:
        self.ray, self.serve = require("ray", "ray"), require("ray.serve", "ray")
        self.state = State(settings.served_name, settings.keys, settings.limits, 0)
        if not self.ray.is_initialized():
            self.ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False)
        self.serve.start(proxy_location="Disabled")
        gpus = {"num_gpus": 1} if settings.device.startswith("cuda") else {}
        deployment = self.serve.deployment(
            Replica,
            name="replica",
            max_ongoing_requests=settings.limits.waiting + settings.limits.running + 16,
            ray_actor_options={"num_cpus": 0, **gpus},
            health_check_period_s=2,
            graceful_shutdown_timeout_s=10,
        )
        targets = [
            self.serve.RunTarget(target=deployment.bind(settings, number), name=f"ossicle-{number}", route_prefix=None)
            for number in range(count)
        ]
        self.handles = self.serve.run_many(targets)

    def front(self) -> Any:
        """Return the ASGI application for clients."""
        exceptions = require("ray.exceptions", "ray")
        serve_exceptions = require("ray.serve.exceptions", "ray")
        lost = (
            exceptions.RayActorError,
            exceptions.RaySystemError,
            serve_exceptions.DeploymentUnavailableError,
            serve_exceptions.ReplicaUnavailableError,
        )
        return Gate(Front(self.handles, lost), self.state)

    def close(self) -> None:
        """Stop the replicas, and Ray where it was started here."""
        self.serve.shutdown()
        self.ray.shutdown()


def serve_replicas(
    settings: Settings, count: int, address: str | None = None, tell: Callable[[str], None] = lambda line: None
) -> None:
    """Serve several replicas until SIGTERM or SIGINT.

    Args:
        settings: How.
        count: Number of replicas.
        address: A cluster's address, or None.
        tell: Takes lines for whoever started it.

    Raises:
        ConfigError: As `serve`.
        CheckpointError: As `serve`.
        MissingExtraError: Ray is not installed.
    """
    require("uvicorn", "serve")
    require("ray.serve", "ray")
    opened = checked(settings)
    log_requests()
    fleet = Fleet(settings, count, address)
    try:
        server = server_of(fleet.state, app=fleet.front())
        server.capture_signals = lambda: drained_by_signals(server)
        tell(f"listening on {listening(settings, opened)}, {count} replicas")
        server.run(sockets=[opened])
    finally:
        opened.close()
        fleet.close()
