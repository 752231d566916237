"""What every request passes before anything else: an id, a key, bounds on its body, a log line, and no bare 500.

    request ──► id ──► who calls (key, or loopback alone) ──► body counted while it comes ──► app ──► log, metrics

Source: our choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
import uuid
from typing import Any

from ossicle.errors import require
from ossicle.serve.keys import is_loopback
from ossicle.serve.limits import ApiError
from ossicle.serve.state import State

requests = require("starlette.requests", "serve")

logger = logging.getLogger("ossicle.serve.requests")
KEYLESS = frozenset({"/health", "/ready", "/openapi.json", "/docs"})
GUARDED = ("/v1", "/metrics")
ID = re.compile(r"[\w.-]{1,128}", re.ASCII)
DROP_S = 2.0
"""So long the rest of a body that is too large is taken in and dropped, before the answer."""


class Gate:
    """ASGI middleware around all endpoints.

    Args:
        app: What it guards.
        state: The server.
    """

    def __init__(self, app: Any, state: State) -> None:
        self.app, self.state = app, state

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Pass one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        call = _Call(scope, receive, send, self.state)
        began = time.perf_counter()
        try:
            scope.setdefault("state", {})["ossicle_scope"] = self._who(call)
            scope["state"]["ossicle_id"] = call.number
            await self.app(scope, call.receive, call.send)
        except ApiError as error:
            await call.answer(error)
        except requests.ClientDisconnect:  # in the middle of its body; it is logged as 499
            pass
        except Exception as error:
            logging.getLogger(__name__).error("request %s failed", call.number, exc_info=error)
            await call.answer(ApiError("an internal error", status=500, code="internal_error"))
        finally:
            self._log(call, time.perf_counter() - began)

    def _who(self, call: _Call) -> str:
        """Return the caller's scope.

        Raises:
            ApiError: 401 for a wrong key, 403 for a page of another site that calls a keyless server.
        """
        path = call.scope["path"]
        if self.state.keys:
            if path in KEYLESS or not path.startswith(GUARDED):
                return ""
            found = self.state.keys.bearer(call.header("authorization"))
            if found is None:
                raise ApiError("wrong or missing API key", status=401, code="invalid_api_key")
            return found
        # Without keys only this machine may call; a web page that its browser shows must not do so in its name.
        host, origin = call.header("host"), call.header("origin")
        if not is_loopback(_host(host)) or (origin and not is_loopback(_host(origin.partition("://")[2]))):
            raise ApiError("without API keys only loopback may call", status=403, code="not_loopback")
        return ""

    def _log(self, call: _Call, seconds: float) -> None:
        route = getattr(call.scope.get("route"), "path", None) or "other"
        status = str(call.status or 499)
        self.state.metrics.count("ossicle_requests_total", route=route, status=status)
        self.state.metrics.time("ossicle_request_seconds", seconds, route=route)
        told = {"request": call.number, "method": call.scope["method"], "route": route, "status": int(status)}
        logger.info(json.dumps({**told, "seconds": round(seconds, 4), "body_bytes": call.num_bytes}))


class _Call:
    """One request: its headers, its body counted, and whether its answer has begun."""

    def __init__(self, scope: dict[str, Any], receive: Any, send: Any, state: State) -> None:
        self.scope, self._receive, self._send, self.limits = scope, receive, send, state.limits
        self.num_bytes, self.status, self.whole = 0, 0, False
        given = self.header("x-request-id")
        self.number = given if ID.fullmatch(given) else uuid.uuid4().hex

    def header(self, name: str) -> str:
        return next((v.decode("latin-1") for k, v in self.scope["headers"] if k == name.encode()), "")

    async def receive(self) -> dict[str, Any]:
        """Return the next event, the body within its bounds."""
        if self.whole:  # waiting for the client to go away may take as long as it likes
            event: dict[str, Any] = await self._receive()
            return event
        length = self.header("content-length")
        if length.isdigit() and int(length) > self.limits.body_bytes:
            raise self._too_large()
        try:
            event = await asyncio.wait_for(self._receive(), self.limits.upload_s)
        except TimeoutError:
            raise ApiError("the body came too slowly", status=408, code="upload_timeout") from None
        self.num_bytes += len(event.get("body", b""))
        self.whole = event["type"] != "http.request" or not event.get("more_body", False)
        if self.num_bytes > self.limits.body_bytes:
            raise self._too_large()
        return event

    def _too_large(self) -> ApiError:
        return ApiError(
            f"the request is larger than {self.limits.body_bytes:,} bytes", status=413, code="request_too_large"
        )

    async def drop_rest(self) -> None:
        """Drop what is still coming: on a connection closed over unread bytes, a sending client loses the answer."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DROP_S):
                while not self.whole:
                    event = await self._receive()
                    self.whole = event["type"] != "http.request" or not event.get("more_body", False)

    async def send(self, message: dict[str, Any]) -> None:
        """Send, with the request's id beside it."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.status == 413:
                await self.drop_rest()
            extra = [(b"x-request-id", self.number.encode()), (b"x-content-type-options", b"nosniff")]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await self._send(message)

    async def answer(self, error: ApiError) -> None:
        """Answer with an error, unless an answer has begun."""
        if self.status:
            return
        body = json.dumps(error.body()).encode()
        headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
        packed = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await self.send({"type": "http.response.start", "status": error.status, "headers": packed})
        await self.send({"type": "http.response.body", "body": body})


def _host(header: str) -> str:
    """Return the host of `host`, `host:port` or `[v6]:port`."""
    return header.partition("]")[0].lstrip("[") if header.startswith("[") else header.partition(":")[0]
