"""What a server accepts, and the error that says what it does not, in OpenAI's shape.

    {"error": {"message", "type", "param", "code"}}

Source: conventions of the OpenAI API; the numbers are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ossicle.errors import OssicleError


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a server accepts.

    Attributes:
        body_bytes: Size of a request.
        upload_s: Seconds that may pass between two pieces of a body.
        audio_s: Decoded seconds of all clips of a request, or of a live stream.
        audios: Clips in one request.
        max_tokens: Tokens of one answer.
        deadline_s: Seconds from receipt to the last token.
        waiting: Requests that wait for a place; more are answered 429.
        running: Answers made at the same time.
        cache_bytes: Bytes of keys and values of running answers; beyond it they wait for others to end.
        media_domains: Hosts that audio is fetched from; empty = none.
        media_folder: Folder that local audio is read from; None = none.
        fetch_s: Seconds that fetching one clip may take.
    """

    body_bytes: int = 64 << 20
    upload_s: float = 30.0
    audio_s: float = 3600.0
    audios: int = 16
    max_tokens: int = 1024
    deadline_s: float = 120.0
    waiting: int = 64
    running: int = 64
    cache_bytes: int = 4 << 30
    media_domains: tuple[str, ...] = ()
    media_folder: Path | None = None
    fetch_s: float = 10.0


class ApiError(OssicleError):
    """An answer other than 200.

    Args:
        message: What is wrong, what was expected; nothing of the server's insides.
        status: HTTP status.
        param: Field of the request it is about.
        code: Stable name for programs.
        retry_s: Seconds after which to try again.
    """

    def __init__(
        self, message: str, *, status: int = 400, param: str | None = None, code: str | None = None, retry_s: int = 0
    ) -> None:
        super().__init__(message)
        self.message, self.status, self.param, self.code, self.retry_s = message, status, param, code, retry_s

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        headers = {"Retry-After": str(self.retry_s)} if self.retry_s else {}
        headers |= {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}
        # What is left of a body that was refused must not be read as the next request.
        return headers | ({"Connection": "close"} if self.status in (408, 413) else {})

    def body(self) -> dict[str, Any]:
        """Return the error as OpenAI's clients read it.

        Example:
            >>> ApiError("no", param="n").body()["error"]["type"]
            'invalid_request_error'
        """
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
