"""The wire: what a request may hold, and how answers look, as OpenAI's clients know them.

    request JSON ──pydantic──► ChatRequest ──► messages with `<audio>` tags, audio parts in order

Fields we do not know are ignored, as every server of this API does; fields that would change the answer and that we
cannot honour (several choices, tools, a response format) are refused. Source: OpenAI's chat completions; `audio_url`,
`audio`, `uuid` and `ignore_eos` as in vLLM and SGLang. Without `temperature` answers are greedy (our choice).
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ossicle.serve.limits import ApiError

Finite = Annotated[float, Field(allow_inf_nan=False)]
AUDIO_TYPES = ("input_audio", "audio_url", "audio")


class Wire(BaseModel):
    """Base of everything that arrives."""

    model_config = ConfigDict(extra="ignore")


class InputAudio(Wire):
    """Base64 audio; its format is found out from its bytes."""

    data: str
    format: str | None = None


class AudioUrl(Wire):
    """A data:, https: or file: URL."""

    url: str


class Part(Wire):
    """One part of a message: text, or audio in any of three shapes, null where `uuid` names a known clip."""

    type: Literal["text", "input_audio", "audio_url", "audio"]
    text: str | None = None
    input_audio: InputAudio | None = None
    audio_url: AudioUrl | str | None = None
    audio: str | InputAudio | None = None
    uuid: str | None = Field(default=None, min_length=1, max_length=256)

    def source(self) -> str | None:
        """Return the audio as base64, URL or path, or None."""
        held = getattr(self, self.type)
        if isinstance(held, InputAudio):
            return held.data
        return held.url if isinstance(held, AudioUrl) else held

    @model_validator(mode="after")
    def _holds_what_it_says(self) -> Part:
        if self.type == "text" and self.text is None:
            raise ValueError("a text part needs 'text'")
        if self.type != "text" and self.source() is None and self.uuid is None:
            raise ValueError(f"an audio part needs '{self.type}', or the 'uuid' of a clip sent before")
        return self


class Message(Wire):
    """One turn."""

    role: Literal["system", "developer", "user", "assistant"]
    content: str | Annotated[list[Part], Field(max_length=1024, fail_fast=True)] | None = None

    @model_validator(mode="after")
    def _asks_something(self) -> Message:
        texts = [self.content] if isinstance(self.content, str) else [part.text for part in self.content or []]
        if self.role == "user" and not self.has_audio and not any(text and text.strip() for text in texts):
            raise ValueError("a user's turn needs text or audio")
        return self

    @property
    def has_audio(self) -> bool:
        """Whether one of its parts is audio."""
        return isinstance(self.content, list) and any(part.type != "text" for part in self.content)


class StreamOptions(Wire):
    """What a stream ends with."""

    include_usage: bool = False


class ChatRequest(Wire):
    """Body of POST /v1/chat/completions."""

    messages: list[Message] = Field(min_length=1, max_length=1024, fail_fast=True)
    model: str | None = None
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    temperature: Finite | None = Field(default=None, ge=0, le=2)
    top_p: Finite | None = Field(default=None, gt=0, le=1)
    stop: str | Annotated[list[str], Field(max_length=16, fail_fast=True)] | None = None
    seed: int | None = None
    ignore_eos: bool | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    tools: list[Any] | None = None
    response_format: dict[str, Any] | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end the answer."""
        given = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(stop for stop in given if stop)

    def check(self) -> None:
        """Refuse what would change the answer and cannot be honoured.

        Raises:
            ApiError: Several choices, tools, a response format, too many stop strings.
        """
        unable = "this server cannot do that; leave it out"
        if self.n not in (None, 1):
            raise ApiError(f"n is {self.n}; only one choice per request is made here", param="n", code="unsupported")
        if self.tools:
            raise ApiError(f"tools: {unable}", param="tools", code="unsupported")
        if (self.response_format or {}).get("type", "text") != "text":
            raise ApiError(f"response_format: {unable}", param="response_format", code="unsupported")
        if len(self.stops) > 16 or any(len(stop) > 256 for stop in self.stops):
            raise ApiError("stop: at most 16 strings of at most 256 characters", param="stop")


def parse_chat(body: bytes) -> ChatRequest:
    """Return the checked request.

    Raises:
        ApiError: Not JSON, a field that does not fit, or one that cannot be honoured.
    """
    try:
        request = ChatRequest.model_validate_json(body)
    except ValidationError as error:
        where, told = _explained(error)
        raise ApiError(f"{where or 'body'}: {told}", param=where or None, code="invalid_value") from None
    request.check()
    return request


def _explained(error: ValidationError) -> tuple[str, str]:
    """Return where a request is wrong and what is expected there.

    Of a field that may be a string or a list every error of both ways is listed; the one that came furthest is meant.
    """
    found = error.errors(include_url=False, include_input=False, include_context=False)
    places = [tuple(step for step in one["loc"] if step != "str" and "[" not in str(step)) for one in found]
    first = places[0]
    same = [index for index, place in enumerate(places) if place[: len(first)] == first]
    deepest = max(same, key=lambda index: len(places[index]))
    told = {found[i]["msg"]: None for i in same if places[i] == places[deepest]}
    return ".".join(map(str, places[deepest])), " or: ".join(told)


def usage(told: Any) -> dict[str, Any]:
    """Return the usage block of a finished answer (see `job.Done`)."""
    heard = {"audio_heard_s": told.stretches} if any(told.stretches) else {}
    return {
        "prompt_tokens": told.prompt_tokens,
        "completion_tokens": told.completion_tokens,
        "total_tokens": told.prompt_tokens + told.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": told.cached_tokens, "audio_tokens": told.audio_tokens},
        "audio_handles": {"hits": told.hits, "misses": told.misses, "saved_ms": round(told.saved_s * 1000, 3)},
        **heard,
    }


def completion(number: str, model: str, text: str, told: Any, logprobs: list[dict[str, Any]] | None) -> dict[str, Any]:
    """Return a whole answer."""
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, "refusal": None},
        "logprobs": None if logprobs is None else {"content": logprobs, "refusal": None},
        "finish_reason": told.reason,
    }
    head = {"id": number, "object": "chat.completion", "created": int(time.time()), "model": model}
    return {**head, "choices": [choice], "usage": usage(told)}


def chunk(number: str, created: int, model: str, choices: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """Return one piece of a streamed answer."""
    head = {"id": number, "object": "chat.completion.chunk", "created": created, "model": model}
    return {**head, "choices": choices, **more}


def choice(
    delta: dict[str, Any], logprobs: list[dict[str, Any]] | None = None, reason: str | None = None
) -> dict[str, Any]:
    """Return the one choice of a streamed piece."""
    held = None if logprobs is None else {"content": logprobs, "refusal": None}
    return {"index": 0, "delta": delta, "logprobs": held, "finish_reason": reason}
