"""What passes between the endpoints and the worker: a job in, events out.

Job ──► Piece, Piece, …, Done        or Failed at any moment
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ossicle.inference.store import Recording
from ossicle.serve.limits import ApiError
from ossicle.types import Stretches


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How an answer is drawn.

    Attributes:
        max_tokens: Longest answer.
        temperature: 0 = greedy.
        top_p: Share of the probability that tokens are drawn from.
        stop: Strings that end the answer; they are not part of it.
        seed: Seed of this answer alone; None = from the machine.
        endless: Go on to `max_tokens` whatever the model says; for measuring.
        top_logprobs: How many likely tokens are told beside each one; None = no log-probabilities.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    endless: bool = False
    top_logprobs: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """More of an answer: its text, and log-probabilities of the tokens made since the last piece."""

    text: str
    logprobs: list[dict[str, Any]] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """The end of an answer: why (`stop`, `length`), and what it took, in tokens and seconds.

    `stretches` are (start, end) seconds of long clips that were heard in part, None for each that was heard whole.
    """

    reason: str
    prompt_tokens: int
    completion_tokens: int
    audio_tokens: int = 0
    cached_tokens: int = 0
    hits: int = 0
    misses: int = 0
    saved_s: float = 0.0
    first_token_s: float = 0.0
    total_s: float = 0.0
    stretches: tuple[Stretches | None, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """No answer, or no more of it."""

    error: ApiError


Event = Piece | Done | Failed


@dataclass(slots=True, kw_only=True, eq=False)
class Job:
    """One question to answer.

    Attributes:
        messages: Plain messages with one `<audio>` tag per clip.
        clips: The clips in order.
        sampling: How the answer is drawn.
        emit: Takes events; called from the worker's thread.
        scope: Whose handles may be used.
        deadline: Moment on the monotonic clock after which it is given up.
        cancelled: Set when nobody listens any more.
        received: Moment on the monotonic clock.
    """

    messages: list[dict[str, Any]]
    clips: list[Recording]
    sampling: Sampling
    emit: Callable[[Event], None]
    scope: str = ""
    deadline: float = float("inf")
    cancelled: threading.Event = field(default_factory=threading.Event)
    received: float = field(default_factory=time.monotonic)
