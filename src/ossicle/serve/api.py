"""The endpoints, as OpenAI's clients know them.

    POST /v1/chat/completions   POST /v1/audio/transcriptions   GET /v1/models
    GET  /health   GET /ready   GET /metrics   GET /docs   GET /openapi.json       everything else: the page

Bodies are read and checked by hand, so that every refusal has one shape. Source: OpenAI's API.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from ossicle.errors import require
from ossicle.serve.gate import Gate
from ossicle.serve.job import Done, Event, Failed, Job, Piece, Sampling
from ossicle.serve.limits import ApiError
from ossicle.serve.live import LiveEndpoints
from ossicle.serve.post import to_this_loop
from ossicle.serve.schema import ChatRequest, choice, chunk, completion, parse_chat, usage
from ossicle.serve.state import State

fastapi = require("fastapi", "serve")
responses = require("fastapi.responses", "serve")
exceptions = require("starlette.exceptions", "serve")
concurrency = require("starlette.concurrency", "serve")
Request, Response = fastapi.Request, fastapi.Response

TRANSCRIBE = "What is said?"
"""What a transcription asks the model."""
LONGEST = 256
"""Tokens of an answer where none are asked for."""
LATE_S = 1.0
"""Seconds that the worker has to say itself that a deadline has passed; it may be in the middle of a long clip."""
FORMATS = ("json", "text", "verbose_json")


def build_app(state: State) -> Any:
    """Return the application.

    Args:
        state: The server; its worker may come later.
    """
    from ossicle import __version__

    app = fastapi.FastAPI(title="ossicle", version=__version__, redoc_url=None)
    app.add_middleware(Gate, state=state)
    app.add_exception_handler(ApiError, _refused)
    app.add_exception_handler(exceptions.HTTPException, _refused)
    endpoints = Endpoints(state)
    asked = ChatRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    _describe(app, asked.pop("$defs"))
    schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": asked}}}}
    form = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": FORM}}}}
    post: dict[str, Any] = {"methods": ["POST"], "response_model": None}
    chat, said = _answers("application/json", "text/event-stream"), _answers("application/json", "text/plain")
    app.add_api_route("/v1/chat/completions", endpoints.chat, openapi_extra=schema, responses=chat, **post)
    app.add_api_route("/v1/audio/transcriptions", endpoints.transcribe, openapi_extra=form, responses=said, **post)
    LiveEndpoints(state).add_to(app, _answers("application/json"))
    for path in ("/v1/models", "/health", "/ready", "/metrics"):
        get: dict[str, Any] = {"methods": ["GET"], "response_model": None}
        get["responses"] = _answers("text/plain" if path == "/metrics" else "application/json")
        app.add_api_route(path, getattr(endpoints, path.rpartition("/")[2]), **get)
    every = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
    app.add_api_route("/v1/{rest:path}", endpoints.nothing, methods=every, response_model=None, include_in_schema=False)
    if state.page is not None:
        app.mount("/", state.page)
    return app


FORM = {
    "type": "object",
    "required": ["file"],
    "properties": {
        "file": {"type": "string", "format": "binary"},
        "model": {"type": "string"},
        "response_format": {"type": "string", "enum": list(FORMATS)},
        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
    },
}


ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
"""The one shape of an error."""


def _answers(*kinds: str) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI page says of an endpoint's answers."""
    error = {"description": "No answer: what is wrong, and where", "content": {"application/json": {"schema": ERROR}}}
    return {200: {"description": "The answer", "content": {kind: {} for kind in kinds}}, "4XX": error, "5XX": error}


def _describe(app: Any, parts: dict[str, Any]) -> None:
    """Add the parts of a request to the OpenAPI page."""
    make = app.openapi

    def openapi() -> dict[str, Any]:
        page: dict[str, Any] = make()
        page.setdefault("components", {}).setdefault("schemas", {}).update(parts)
        return page

    app.openapi = openapi


async def _refused(request: Request, error: Any) -> Response:
    """Answer an error in the one shape."""
    if not isinstance(error, ApiError):
        error = ApiError(str(error.detail), status=error.status_code)
    return responses.JSONResponse(error.body(), status_code=error.status, headers=error.headers)


class Endpoints:
    """The handlers of one server."""

    def __init__(self, state: State) -> None:
        self.state = state
        self.created = int(time.time())

    async def health(self) -> Response:
        """Say that the port is open."""
        return responses.JSONResponse({"status": "ok"})

    async def ready(self) -> Response:
        """Say whether the model is loaded."""
        self.state.ready()
        return responses.JSONResponse({"status": "ready", "model": self.state.name})

    async def metrics(self) -> Response:
        """Return counts and times in Prometheus' format."""
        return responses.PlainTextResponse(self.state.metrics.text(), media_type="text/plain; version=0.0.4")

    async def models(self) -> Response:
        """List the one model."""
        row = {"id": self.state.name, "object": "model", "created": self.created, "owned_by": "ossicle"}
        return responses.JSONResponse({"object": "list", "data": [row]})

    async def nothing(self, request: Request) -> Response:
        """Answer what is not there."""
        raise ApiError("no such endpoint, or not by this method; see /docs", status=404, code="not_found")

    async def chat(self, request: Request) -> Response:
        """Answer a conversation with audio, at once or streamed."""
        asked = parse_chat(await request.body())
        self.state.check_model(asked.model)
        self.state.ready()
        scope = request.scope["state"]["ossicle_scope"]
        read, messages = self.state.media.read, asked.messages
        if any(message.has_audio for message in messages):
            messages, clips = await concurrency.run_in_threadpool(read, messages, scope)
        else:  # a short question need not wait for a thread
            messages, clips = read(messages, scope)
        wanted = asked.max_completion_tokens or asked.max_tokens or LONGEST
        sampling = Sampling(
            max_tokens=min(wanted, self.state.limits.max_tokens),
            temperature=asked.temperature or 0.0,
            top_p=asked.top_p or 1.0,
            stop=asked.stops,
            seed=asked.seed,
            endless=bool(asked.ignore_eos),
            top_logprobs=(asked.top_logprobs or 0) if asked.logprobs else None,
        )
        talk = Talk(self.state, request, messages, clips, sampling)
        number = f"chatcmpl-{uuid.uuid4().hex}"
        if asked.stream:
            with_usage = asked.stream_options is not None and asked.stream_options.include_usage
            pieces = _stream(talk, await talk.next(), number, self.state.name, with_usage)
            return responses.StreamingResponse(
                pieces, media_type="text/event-stream", headers={"Cache-Control": "no-store"}
            )
        text, logprobs, done = await talk.whole()
        told = logprobs if sampling.top_logprobs is not None else None
        return responses.JSONResponse(completion(number, self.state.name, text, done, told))

    async def transcribe(self, request: Request) -> Response:
        """Say what is said in an uploaded file."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise ApiError("expected multipart/form-data with a 'file'", param="file")
        async with request.form(max_files=1, max_fields=32) as form:
            file = form.get("file")
            if file is None or isinstance(file, str):
                raise ApiError("file: is missing; upload one recording", param="file")
            self.state.check_model(_field(form, "model", None))
            kind = _field(form, "response_format", "json")
            if kind not in FORMATS:
                raise ApiError(f"response_format: expected one of {', '.join(FORMATS)}", param="response_format")
            temperature = _temperature(_field(form, "temperature", "0"))
            data = await file.read()
        self.state.ready()
        clip = await concurrency.run_in_threadpool(self.state.media.decode, data, "file")
        messages = [{"role": "user", "content": f"<audio>{TRANSCRIBE}"}]
        sampling = Sampling(max_tokens=min(LONGEST, self.state.limits.max_tokens), temperature=temperature)
        talk = Talk(self.state, request, messages, [clip], sampling)
        text, _, _ = await talk.whole()
        if kind == "text":
            return responses.PlainTextResponse(text + "\n")
        seconds = clip.num_samples / 16_000
        more = {"task": "transcribe", "duration": seconds} if kind == "verbose_json" else {}
        return responses.JSONResponse({**more, "text": text, "usage": {"type": "duration", "seconds": round(seconds)}})


class Talk:
    """One question given to the worker, and its events as they come back to this event loop."""

    def __init__(
        self, state: State, request: Request, messages: list[dict[str, Any]], clips: list[Any], sampling: Sampling
    ) -> None:
        loop, self.events = asyncio.get_running_loop(), asyncio.Queue[Event]()
        self.job = Job(
            messages=messages,
            clips=clips,
            sampling=sampling,
            emit=partial(to_this_loop().put, self.events),
            scope=request.scope["state"]["ossicle_scope"],
            deadline=time.monotonic() + state.limits.deadline_s,
        )
        state.ready().submit(self.job)
        late = Failed(error=ApiError("the deadline has passed", status=504, code="deadline_exceeded"))
        self._late = loop.call_later(state.limits.deadline_s + LATE_S, self.events.put_nowait, late)
        self._gone = asyncio.ensure_future(_gone(request))
        left = Failed(error=ApiError("the client went away", status=499))
        self._gone.add_done_callback(lambda _: self.events.put_nowait(left))

    async def next(self) -> Piece | Done:
        """Return the next event.

        Raises:
            ApiError: There will be no more of the answer, or nobody is there to hear it.
        """
        try:
            event = await self.events.get()
        except asyncio.CancelledError:
            self.end()
            raise
        if isinstance(event, Failed):
            self.end()
            raise event.error
        return event

    async def whole(self) -> tuple[str, list[dict[str, Any]], Done]:
        """Return the whole answer."""
        text, logprobs = "", list[dict[str, Any]]()
        try:
            while isinstance(event := await self.next(), Piece):
                text += event.text
                logprobs += event.logprobs or []
            return text, logprobs, event
        finally:
            self.end()

    def end(self) -> None:
        """Give the answer up, unless it is finished."""
        self.job.cancelled.set()
        self._late.cancel()
        self._gone.cancel()


async def _gone(request: Request) -> None:
    """Return when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _stream(talk: Talk, event: Piece | Done, number: str, model: str, with_usage: bool) -> AsyncIterator[str]:
    """Yield server-sent events: the role, pieces of text, the reason, usage where asked for, and the end."""
    created, more = int(time.time()), {"usage": None} if with_usage else {}

    def line(choices: list[dict[str, Any]], **extra: Any) -> str:
        told = chunk(number, created, model, choices, **{**more, **extra})
        return f"data: {json.dumps(told, ensure_ascii=False)}\n\n"

    try:
        yield line([choice({"role": "assistant", "content": ""})])
        while isinstance(event, Piece):
            yield line([choice({"content": event.text}, event.logprobs)])
            event = await talk.next()
        yield line([choice({}, reason=event.reason)])
        if with_usage:
            yield line([], usage=usage(event))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield f"data: {json.dumps(error.body())}\n\ndata: [DONE]\n\n"
    finally:
        talk.end()


def _field(form: Any, name: str, otherwise: str | None) -> str | None:
    value = form.get(name)
    return value if isinstance(value, str) and value else otherwise


def _temperature(text: str | None) -> float:
    try:
        value = float(text or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 2:
        raise ApiError("temperature: expected a number from 0 to 2", param="temperature")
    return value
