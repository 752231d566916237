"""Live audio over HTTP: open a stream, append chunks, ask while it grows.

    POST   /v1/audio/streams             → {"id", "duration_s": 0}
    POST   /v1/audio/streams/ID          body: a chunk, a file's bytes or audio/pcm (16-bit, 16 kHz, mono)
    POST   /v1/audio/streams/ID/ask      {"question", "max_tokens"} → {"answer", "duration_s", "audio_tokens", …}
    DELETE /v1/audio/streams/ID

A stream belongs to the API key that opened it, is as long as a clip may be, and is dropped when nobody has used it for
ten minutes. OpenAI's API has no such endpoint; source: our choice.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel, Field, ValidationError

from ossicle.errors import OssicleError, require
from ossicle.serve.limits import ApiError
from ossicle.serve.state import State
from ossicle.types import SAMPLE_RATE_HZ

fastapi = require("fastapi", "serve")
responses = require("fastapi.responses", "serve")
concurrency = require("starlette.concurrency", "serve")
Request, Response = fastapi.Request, fastapi.Response

MOST_STREAMS = 16
IDLE_S = 600.0


class Question(BaseModel):
    """What is asked of a stream."""

    question: str = Field(min_length=1, max_length=10_000)
    max_tokens: int = Field(default=64, ge=1)


@dataclass(slots=True)
class _Open:
    """A stream, and whose it is."""

    scope: str
    live: Any
    used: float
    duration_s: float = 0.0


class LiveEndpoints:
    """The handlers of one server's streams.

    Args:
        state: The server.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self._open: dict[str, _Open] = {}

    def add_to(self, app: Any, answers: dict[int | str, dict[str, Any]]) -> None:
        """Add the routes to an application, with what its OpenAPI page says of their answers."""
        options: dict[str, Any] = {"response_model": None, "responses": answers}
        one, question = "/v1/audio/streams/{number}", {"application/json": {"schema": Question.model_json_schema()}}
        chunk = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("audio/*", "audio/pcm")}
        app.add_api_route("/v1/audio/streams", self.open, methods=["POST"], **options)
        app.add_api_route(one, self.append, methods=["POST"], openapi_extra=_body(chunk), **options)
        app.add_api_route(one, self.close, methods=["DELETE"], **options)
        app.add_api_route(f"{one}/ask", self.ask, methods=["POST"], openapi_extra=_body(question), **options)

    async def open(self, request: Request) -> Response:
        """Open a stream."""
        from ossicle.inference.live import LiveStream

        now = time.monotonic()
        for number in [number for number, held in self._open.items() if now - held.used > IDLE_S]:
            del self._open[number]
        self._refuse_more()
        live = await self._run(LiveStream)
        self._refuse_more()  # others may have been opened meanwhile
        number = f"stream-{uuid.uuid4().hex}"
        self._open[number] = _Open(_scope(request), live, now)
        return responses.JSONResponse({"id": number, "object": "audio.stream", "duration_s": 0.0})

    def _refuse_more(self) -> None:
        if len(self._open) >= MOST_STREAMS:
            raise ApiError("too many live streams are open; close one", status=429, code="overloaded", retry_s=30)

    async def append(self, number: str, request: Request) -> Response:
        """Hear one more chunk."""
        held = self._find(number, request)
        body, raw = await request.body(), request.headers.get("content-type", "").startswith("audio/pcm")
        samples = await concurrency.run_in_threadpool(self._samples, body, raw)

        def hear(engine: Any) -> float:
            """One chunk after the other: the worker's thread knows how long the stream is, whoever else sends to it."""
            duration_s = held.duration_s + len(samples) / SAMPLE_RATE_HZ
            if duration_s > self.state.limits.audio_s:
                raise ApiError(
                    f"the stream would be longer than {self.state.limits.audio_s:g} s", code="audio_too_long"
                )
            held.live.append(samples)
            held.duration_s = duration_s
            return duration_s

        duration_s = await self._run(hear)
        return responses.JSONResponse({"id": number, "object": "audio.stream", "duration_s": duration_s})

    async def ask(self, number: str, request: Request) -> Response:
        """Answer a question about everything heard so far."""
        held = self._find(number, request)
        try:
            asked = Question.model_validate_json(await request.body())
        except ValidationError as error:
            told = error.errors()[0]
            where = ".".join(map(str, told["loc"])) or "body"
            raise ApiError(f"{where}: {told['msg']}", param=where) from None
        from ossicle.serve.decoding import unspecial
        from ossicle.serve.media import untagged

        most = min(asked.max_tokens, self.state.limits.max_tokens)

        def answered(engine: Any) -> Any:
            question = unspecial(engine.processor.tokenizer, untagged(asked.question))
            return held.live.answer(question, max_new_tokens=most)

        answer = await self._run(answered)
        told = {"answer": answer.text, "duration_s": held.duration_s, "audio_tokens": answer.audio_tokens}
        return responses.JSONResponse({"id": number, "object": "audio.stream.answer", **told})

    async def close(self, number: str, request: Request) -> Response:
        """Forget a stream."""
        self._find(number, request)
        del self._open[number]
        return responses.JSONResponse({"id": number, "object": "audio.stream", "deleted": True})

    def _find(self, number: str, request: Request) -> _Open:
        held = self._open.get(number)
        if held is None or held.scope != _scope(request):
            raise ApiError("no such live stream; it may have been idle too long", status=404, code="not_found")
        held.used = time.monotonic()
        return held

    def _samples(self, body: bytes, raw: bool) -> np.ndarray:
        """Return a chunk as (S,) float32."""
        if not raw:
            samples = self.state.media.decode(body).samples
            assert samples is not None
            return samples
        if len(body) % 2:
            raise ApiError("audio/pcm: expected 16-bit samples, got an odd number of bytes")
        return np.frombuffer(body, "<i2").astype(np.float32) / 32768

    async def _run(self, do: Callable[[Any], Any]) -> Any:
        """Let the worker's thread do something with the model."""
        done = asyncio.wrap_future(self.state.ready().call(do))
        try:
            return await asyncio.wait_for(done, self.state.limits.deadline_s)
        except TimeoutError:
            raise ApiError("the deadline has passed", status=504, code="deadline_exceeded") from None
        except ApiError:
            raise
        except OssicleError as error:
            raise ApiError(str(error)) from None


def _body(content: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": content}}


def _scope(request: Request) -> str:
    return str(request.scope["state"]["ossicle_scope"])
