"""The two threads that run the model: one hears, one answers; answers join and leave at any token.

    waiting ──ear: template, encoder, keys and values──► heard ──place free──► Batch: short prompts, then a token of
    text alone ─────────────────────────────────────────►                      some answers or a piece of a longer one

So a short question waits neither for a long answer to end nor for a long prompt to be read, and no answer stops while a
clip is encoded. Of waiting clips the shortest is heard first, one that has waited for `PATIENCE_S` before all. A queue
that is full refuses; deadlines and clients that went away end an answer at its next token.

Source: iteration-level scheduling as in Orca (OSDI 2022), §3.1; two threads are our choice.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import torch

from ossicle.inference.engine import Engine
from ossicle.inference.handles import Listener
from ossicle.inference.store import HandleStore
from ossicle.serve.batch import Batch, Said
from ossicle.serve.decoding import Generation, speakable
from ossicle.serve.job import Done, Event, Failed, Job
from ossicle.serve.limits import ApiError, Limits
from ossicle.serve.metrics import Metrics

logger = logging.getLogger(__name__)
RETRY_S = 2
PATIENCE_S = 2.0
HEARD_AHEAD = 8
"""Clips that are heard before their answers have a place, at most."""
BEGUN_AT_ONCE = 4
"""Prompts that join between two turns, at most; making one takes a part of the time of a token."""
PIECE_S = 0.02
"""So long a piece of a long prompt should take: what comes meanwhile waits for it."""


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
        self._waiting: list[Job] = []
        self._heard: deque[Job | Generation] = deque()
        self._calls: deque[tuple[Callable[[Engine], Any], Future[Any]]] = deque()
        self._batch = Batch(engine.model, PIECE_S)
        self._wake = threading.Condition()
        self._hearing = threading.Lock()
        self._closing = False
        metrics.gauge("ossicle_requests_waiting", lambda: len(self._waiting) + len(self._heard))
        metrics.gauge("ossicle_requests_running", lambda: len(self._batch))
        metrics.gauge("ossicle_handles_bytes", lambda: store.num_bytes)
        metrics.gauge("ossicle_handles_hits_total", lambda: store.hits)
        metrics.gauge("ossicle_handles_misses_total", lambda: store.misses)
        metrics.gauge("ossicle_handles_evicted_total", lambda: store.evicted)
        metrics.gauge("ossicle_handles_saved_seconds_total", lambda: store.saved_s)
        loops = {"ossicle-worker": self._loop, "ossicle-ear": self._listen}
        self._threads = [threading.Thread(target=loop, name=name, daemon=True) for name, loop in loops.items()]
        for thread in self._threads:
            thread.start()

    def submit(self, job: Job) -> None:
        """Take a job.

        Raises:
            ApiError: 429 when too many wait, 503 when the server is stopping.
        """
        with self._wake:
            if self._closing:
                raise ApiError("the server is stopping", status=503, code="stopping", retry_s=RETRY_S)
            if self._full():
                self.metrics.count("ossicle_refused_total", reason="busy")
                raise ApiError("too many requests wait; try again", status=429, code="overloaded", retry_s=RETRY_S)
            (self._waiting if job.clips else self._heard).append(job)
            self._wake.notify_all()

    def _full(self) -> bool:
        """Return whether no more may wait; those whose clients went away do not count."""
        if len(self._waiting) + len(self._heard) >= self.limits.waiting:
            self._waiting = [job for job in self._waiting if not job.cancelled.is_set()]
            self._heard = deque(row for row in self._heard if not _job(row).cancelled.is_set())
        return len(self._waiting) + len(self._heard) >= self.limits.waiting

    def call(self, do: Callable[[Engine], Any]) -> Future[Any]:
        """Let the worker's thread do something else with the model, between two tokens."""
        future: Future[Any] = Future()
        with self._wake:
            self._calls.append((do, future))
            self._wake.notify_all()
        return future

    def close(self) -> None:
        """Stop after the token at hand; what is unfinished is told so."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)

    def _listen(self) -> None:
        """Hear clips, one job after another."""
        while True:
            with self._wake:
                while not self._closing and (not self._waiting or len(self._heard) >= HEARD_AHEAD):
                    self._wake.wait()
                if self._closing:
                    return
                job = self._next()
            heard = self._prepared(job) if self._wanted(job) else None
            if heard is not None:
                with self._wake:
                    self._heard.append(heard)
                    self._wake.notify_all()

    def _next(self) -> Job:
        """Take the job whose clips are heard next out of the queue."""
        late = time.monotonic() - PATIENCE_S
        job = self._waiting[0]
        if job.received > late:
            job = min(self._waiting, key=lambda one: sum(clip.num_samples for clip in one.clips))
        self._waiting.remove(job)
        return job

    def _prepared(self, job: Job) -> Generation | None:
        """Return an answer that can begin, or None when the job is told why not."""
        try:
            with self._hearing if job.clips else contextlib.nullcontext():
                return Generation(self.engine, self.listener, job)
        except ApiError as error:
            job.emit(Failed(error=error))
        except Exception as error:  # noqa: BLE001 - one broken answer must not end all others; it is logged and told
            job.emit(Failed(error=_explained(error)))
        return None

    def _loop(self) -> None:
        while True:
            with self._wake:
                while not (self._heard or len(self._batch) or self._calls or self._closing):
                    self._wake.wait()
                if self._closing:
                    break
                calls, self._calls = list(self._calls), deque()
            for do, future in calls:
                self._do(do, future)
            self._admit()
            self._batch.leave([row for row in self._batch.every if not self._wanted(row.job)])
            self._turn()
        self._threads[1].join(timeout=30)
        left = [*self._waiting, *self._heard, *self._batch.every]
        for row in left:
            _job(row).emit(Failed(error=ApiError("the server is stopping", status=503, code="stopping")))

    def _admit(self) -> None:
        """Let answers begin while there are places and memory for their keys and values."""
        for _ in range(BEGUN_AT_ONCE):
            with self._wake:
                if not self._heard or len(self._batch) >= self.limits.running:
                    return
                first = self._heard.popleft()
                self._wake.notify_all()
            job = _job(first)
            row = (self._prepared(first) if isinstance(first, Job) else first) if self._wanted(job) else None
            if row is None:
                continue
            if len(self._batch) and self._batch.bytes_with(row) > self.limits.cache_bytes:
                with self._wake:
                    self._heard.appendleft(row)
                return
            self._batch.join(row)

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

    def _turn(self) -> None:
        """Read the short prompts, then let what has waited longest go on."""
        try:
            self._take(self._batch.read_short())
            self._take(self._batch.advance())
        except Exception as error:  # noqa: BLE001 - these answers end, the server goes on; it is logged and told
            self._fail(error)

    def _take(self, said: Said) -> None:
        """Let answers choose their next token; those that end leave."""
        if not said:
            return
        logits, likeliest = speakable(self.engine, torch.stack([logits for _, logits in said]))
        for index, (row, _) in enumerate(said):
            self._emit(row.job, row.take(logits[index], likeliest[index]))
        self._batch.leave([row for row, _ in said if row.over])

    def _fail(self, error: Exception) -> None:
        """End all answers that run."""
        told = _explained(error)
        for row in self._batch.every:
            row.job.emit(Failed(error=told))
        self._batch = Batch(self.engine.model, PIECE_S)

    def _emit(self, job: Job, events: list[Event]) -> None:
        for event in events:
            job.emit(event)
            if isinstance(event, Done):
                self._count(event)

    def _do(self, do: Callable[[Engine], Any], future: Future[Any]) -> None:
        try:
            with self._hearing:
                future.set_result(do(self.engine))
        except Exception as error:  # noqa: BLE001 - handed to the caller
            future.set_exception(error)

    def _count(self, done: Done) -> None:
        self.metrics.count("ossicle_tokens_total", done.prompt_tokens, kind="prompt")
        self.metrics.count("ossicle_tokens_total", done.completion_tokens, kind="completion")
        self.metrics.count("ossicle_tokens_total", done.audio_tokens, kind="audio")
        self.metrics.time("ossicle_first_token_seconds", done.first_token_s)
        self.metrics.time("ossicle_answer_seconds", done.total_s)


def _job(row: Job | Generation) -> Job:
    return row if isinstance(row, Job) else row.job


def _explained(error: Exception) -> ApiError:
    """Return what a client is told of a failure inside."""
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return ApiError("out of memory; send shorter or fewer clips", status=503, code="out_of_memory", retry_s=RETRY_S)
    logger.error("an answer failed", exc_info=error)
    return ApiError("an internal error", status=500, code="internal_error")
