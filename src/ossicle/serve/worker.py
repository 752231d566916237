"""The one thread that runs the model: answers are decoded together, and join and leave at any token.

    waiting ──one at a time: prefill──► running: [a₁ b₁ c₁] [a₂ b₂ c₂ d₁] [a₃ c₃ d₂] …

So a short question does not wait for a long answer to end; a long prompt delays the others once, by its own prefill. A
queue that is full refuses, deadlines and clients that went away end an answer at its next token. Source:
iteration-level scheduling as in Orca (OSDI 2022), §3.1.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ossicle.inference.engine import Engine
from ossicle.inference.handles import Listener
from ossicle.inference.store import HandleStore
from ossicle.serve.batch import Batch
from ossicle.serve.decoding import Generation
from ossicle.serve.job import Done, Event, Failed, Job
from ossicle.serve.limits import ApiError, Limits
from ossicle.serve.metrics import Metrics

logger = logging.getLogger(__name__)
RETRY_S = 2


class Worker:
    """Answers jobs with a model, in a thread of its own.

    Args:
        engine: The model.
        store: Handles.
        limits: How many may run and wait.
        metrics: Where numbers go.
    """

    def __init__(self, engine: Engine, store: HandleStore, limits: Limits, metrics: Metrics) -> None:
        self.engine, self.limits, self.metrics = engine, limits, metrics
        self.listener = Listener(engine.model, store)
        self._waiting: deque[Job] = deque()
        self._calls: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._batch = Batch(engine.model)
        self._wake = threading.Condition()
        self._closing = False
        metrics.gauge("ossicle_requests_waiting", lambda: len(self._waiting))
        metrics.gauge("ossicle_requests_running", lambda: len(self._batch.rows))
        metrics.gauge("ossicle_handles_bytes", lambda: store.num_bytes)
        metrics.gauge("ossicle_handles_hits_total", lambda: store.hits)
        metrics.gauge("ossicle_handles_misses_total", lambda: store.misses)
        metrics.gauge("ossicle_handles_evicted_total", lambda: store.evicted)
        metrics.gauge("ossicle_handles_saved_seconds_total", lambda: store.saved_s)
        self._thread = threading.Thread(target=self._loop, name="ossicle-worker", daemon=True)
        self._thread.start()

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            ApiError: 429 when too many wait, 503 when the server is stopping.
        """
        with self._wake:
            if self._closing:
                raise ApiError("the server is stopping", status=503, code="stopping", retry_s=RETRY_S)
            if len(self._waiting) >= self.limits.waiting:
                self.metrics.count("ossicle_refused_total", reason="busy")
                raise ApiError("too many requests wait; try again", status=429, code="overloaded", retry_s=RETRY_S)
            self._waiting.append(job)
            self._wake.notify()

    def call(self, do: Callable[[Engine], Any]) -> Future[Any]:
        """Let the worker's thread do something else with the model, between two tokens."""
        future: Future[Any] = Future()
        with self._wake:
            self._calls.append((do, future))
            self._wake.notify()
        return future

    def close(self) -> None:
        """Stop after the token at hand; what is unfinished is told so."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout=30)

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not (self._waiting or self._batch.rows or self._calls or self._closing):
                    self._wake.wait()
                if self._closing:
                    break
                place = len(self._batch.rows) < self.limits.running
                job = self._waiting.popleft() if self._waiting and place else None
                calls, self._calls = list(self._calls), deque()
            for do, future in calls:
                self._do(do, future)
            if job is not None and self._wanted(job):
                self._begin(job)
            self._batch.leave([row for row in self._batch.rows if not self._wanted(row.job)])
            if self._batch.rows:
                self._step()
        for job in (*self._waiting, *(row.job for row in self._batch.rows)):
            job.emit(Failed(error=ApiError("the server is stopping", status=503, code="stopping")))

    def _wanted(self, job: Job) -> bool:
        """Return whether an answer is still worth making; say so where it is too late."""
        if job.cancelled.is_set():
            self.metrics.count("ossicle_refused_total", reason="cancelled")
            return False
        if time.monotonic() > job.deadline:
            self.metrics.count("ossicle_refused_total", reason="deadline")
            job.emit(Failed(error=ApiError("the deadline has passed", status=504, code="deadline_exceeded")))
            return False
        return True

    def _begin(self, job: Job) -> None:
        """Prefill a question and let it join the others."""
        try:
            row = Generation(self.engine, self.listener, job)
            self._emit(job, row.take(row.prefill()))
            if not row.over:
                self._batch.join(row)
        except ApiError as error:
            job.emit(Failed(error=error))
        except Exception as error:  # noqa: BLE001 - one broken answer must not end all others; it is logged and told
            job.emit(Failed(error=_explained(error)))

    def _step(self) -> None:
        """Make one token of every answer."""
        rows = list(self._batch.rows)
        try:
            for row, logits in zip(rows, self._batch.step(), strict=True):
                self._emit(row.job, row.take(logits))
        except Exception as error:  # noqa: BLE001 - these answers end, the server goes on; it is logged and told
            told = _explained(error)
            for row in rows:
                row.job.emit(Failed(error=told))
            self._batch = Batch(self.engine.model)
            return
        self._batch.leave([row for row in rows if row.over])

    def _emit(self, job: Job, events: list[Event]) -> None:
        for event in events:
            job.emit(event)
            if isinstance(event, Done):
                self._count(event)

    def _do(self, do: Callable[[Engine], Any], future: Future[Any]) -> None:
        try:
            future.set_result(do(self.engine))
        except Exception as error:  # noqa: BLE001 - handed to the caller
            future.set_exception(error)

    def _count(self, done: Done) -> None:
        self.metrics.count("ossicle_tokens_total", done.prompt_tokens, kind="prompt")
        self.metrics.count("ossicle_tokens_total", done.completion_tokens, kind="completion")
        self.metrics.count("ossicle_tokens_total", done.audio_tokens, kind="audio")
        self.metrics.time("ossicle_first_token_seconds", done.first_token_s)
        self.metrics.time("ossicle_answer_seconds", done.total_s)


def _explained(error: Exception) -> ApiError:
    """Return what a client is told of a failure inside."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ApiError("out of memory; send shorter or fewer clips", status=503, code="out_of_memory", retry_s=RETRY_S)
    logger.error("an answer failed", exc_info=error)
    return ApiError("an internal error", status=500, code="internal_error")
