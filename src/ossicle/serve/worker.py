"""The threads that run the model: ears hear, one thread answers; answers join and leave at any token.

    waiting ──ear: template, encoder, keys and values──► heard ──place free──► Batch: short prompts, then a token of
    text alone ─────────────────────────────────────────►                      some answers or a piece of a longer one

So a short question waits neither for a long answer to end nor for a long prompt to be read, and no answer stops while a
clip is encoded. Of many short clips that come at once most are heard before their answers begin, together. On a CPU a
second ear helps as long as more clips wait than answers run: it takes time from few answers that many are waiting for.
A queue that is full refuses; deadlines and clients that went away end an answer at its next token.

Source: iteration-level scheduling as in Orca (OSDI 2022), §3.1; the ears are our choice.
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
from torch import Tensor

from ossicle.inference.engine import Engine
from ossicle.inference.handles import Ahead, Listener
from ossicle.inference.store import HandleStore
from ossicle.serve.batch import Batch, Said
from ossicle.serve.cores import half_of_the_cores
from ossicle.serve.decoding import Generation, speakable
from ossicle.serve.job import Done, Event, Failed, Job
from ossicle.serve.limits import ApiError, Limits
from ossicle.serve.metrics import Metrics
from ossicle.serve.waiting import Waiting

logger = logging.getLogger(__name__)
RETRY_S = 2
HEARD_AHEAD = 16
"""Clips that are heard before their answers have a place, at most."""
HEARD_FIRST = 3
"""So many answers run or are ready for each short clip still to be heard before another begins: of many clips that come
at once the answers begin together, and take fewer steps."""
HELD_S = 1.0
"""So long an answer waits for that, at most."""
BEGUN_AT_ONCE = 4
"""Prompts that join between two turns, at most; making one takes a part of the time of a token."""
PIECE_S = 0.02
"""So long a piece of a long prompt should take: what comes meanwhile waits for it."""


class Worker:
    """Answers jobs with a model, in threads of its own.

    Args:
        engine: The model.
        store: Handles.
        limits: How many may run and wait.
        metrics: Where numbers go.
        ears: Threads that hear; None = two on a CPU of several cores, else one.
    """

    def __init__(
        self, engine: Engine, store: HandleStore, limits: Limits, metrics: Metrics, ears: int | None = None
    ) -> None:
        self.engine, self.limits, self.metrics = engine, limits, metrics
        self.listener = Listener(engine.model, store)
        self._waiting = Waiting()
        self._heard: deque[Job | Generation] = deque()
        self._calls: deque[tuple[Callable[[Engine], Any], Future[Any], bool]] = deque()
        self._batch = Batch(engine.model, PIECE_S)
        self._wake = threading.Condition()
        on_cpu = engine.model.device.type == "cpu"
        self._cores = torch.get_num_threads() if on_cpu else 0
        self._ears = [threading.Lock() for _ in range(ears or (2 if self._cores > 1 else 1))]
        self._closing = False
        metrics.gauge("ossicle_requests_waiting", lambda: len(self._waiting) + len(self._heard))
        metrics.gauge("ossicle_requests_running", lambda: len(self._batch))
        metrics.gauge("ossicle_handles_bytes", lambda: store.num_bytes)
        metrics.gauge("ossicle_handles_hits_total", lambda: store.hits)
        metrics.gauge("ossicle_handles_misses_total", lambda: store.misses)
        metrics.gauge("ossicle_handles_evicted_total", lambda: store.evicted)
        metrics.gauge("ossicle_handles_saved_seconds_total", lambda: store.saved_s)
        self._threads = [threading.Thread(target=self._loop, name="ossicle-worker", daemon=True)]
        for number in range(len(self._ears)):
            named = {"name": f"ossicle-ear-{number}", "daemon": True}
            self._threads.append(threading.Thread(target=self._listen, args=(number,), **named))
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
            if job.clips:
                self._waiting.add(job)
            else:
                self._heard.append(job)
            self._wake.notify_all()

    def _full(self) -> bool:
        """Return whether no more may wait; those whose clients went away do not count."""
        if len(self._waiting) + len(self._heard) >= self.limits.waiting:
            self._waiting.drop_gone()
            self._heard = deque(row for row in self._heard if not _job(row).cancelled.is_set())
            self._wake.notify_all()  # what was dropped may have been what the ears waited for
        return len(self._waiting) + len(self._heard) >= self.limits.waiting

    def call(self, do: Callable[[Engine], Any], *, alone: bool = False) -> Future[Any]:
        """Let the worker's thread do something else with the model, between two tokens.

        Args:
            do: What is done.
            alone: It changes the model while it lasts, so that no ear may use it.

        Raises:
            ApiError: 429 when too many wait, 503 when the server is stopping.
        """
        future: Future[Any] = Future()
        with self._wake:
            if self._closing:
                raise ApiError("the server is stopping", status=503, code="stopping", retry_s=RETRY_S)
            self._calls = deque(waiting for waiting in self._calls if not waiting[1].cancelled())
            if len(self._calls) >= self.limits.waiting:
                self.metrics.count("ossicle_refused_total", reason="busy")
                raise ApiError("too many requests wait; try again", status=429, code="overloaded", retry_s=RETRY_S)
            self._calls.append((do, future, alone))
            self._wake.notify_all()
        return future

    def close(self) -> None:
        """Stop after the token at hand; what is unfinished is told so."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        for thread in self._threads:
            thread.join(timeout=30)

    def _listen(self, ear: int) -> None:
        """Hear clips, some jobs at a time."""
        if self._cores:
            half_of_the_cores(self._cores)
        while True:
            with self._wake:
                while not (jobs := self._to_hear(ear)):
                    if self._closing:
                        return
                    self._wake.wait()
            with self._ears[ear]:
                heard = self._hear([job for job in jobs if self._wanted(job)])
            with self._wake:
                self._waiting.heard(jobs)
                self._heard.extend(heard)
                self._wake.notify_all()

    def _to_hear(self, ear: int) -> list[Job]:
        """Take the jobs that an ear hears next out of the queue."""
        if self._closing or (ear and len(self._waiting) <= len(self._batch)):
            return []
        return self._waiting.take(self._room_ahead())

    def _hear(self, jobs: list[Job]) -> list[Generation]:
        """Return the answers that can begin; the other jobs are told why not."""
        ahead = None
        if len(jobs) > 1:
            try:
                ahead = self.listener.encode([(job.scope, clip) for job in jobs for clip in job.clips])
            except Exception as error:
                logger.warning("%d jobs could not be heard together", len(jobs), exc_info=error)
        rows = [self._prepared(job, ahead) for job in jobs]
        return [row for row in rows if row is not None]

    def _prepared(self, job: Job, ahead: Ahead | None = None) -> Generation | None:
        """Return an answer that can begin, or None when the job is told why not."""
        try:
            return Generation(self.engine, self.listener, job, ahead)
        except ApiError as error:
            job.emit(Failed(error=error))
        except Exception as error:  # noqa: BLE001 - one broken answer must not end all others; it is logged and told
            job.emit(Failed(error=_explained(error)))
        return None

    def _loop(self) -> None:
        if self._cores:
            half_of_the_cores(self._cores)
        while True:
            with self._wake:
                while not (self._ready() or len(self._batch) or self._calls or self._closing):
                    self._wake.wait(HELD_S if self._heard else None)
                if self._closing:
                    break
                call = self._calls.popleft() if self._calls else None
            if call is not None:  # one at a time: answers go on between two of them
                self._do(*call)
            self._turn()
        for thread in self._threads[1:]:
            thread.join(timeout=30)
        for _, future, _ in self._calls:
            if future.set_running_or_notify_cancel():
                future.set_exception(ApiError("the server is stopping", status=503, code="stopping"))
        left = [*self._waiting.jobs, *self._heard, *self._batch.every]
        for row in left:
            _job(row).emit(Failed(error=ApiError("the server is stopping", status=503, code="stopping")))

    def _ready(self) -> Job | Generation | None:
        """Return what begins next; what has no clip does not wait for those that others are asked about."""
        if self._held():
            return next((row for row in self._heard if isinstance(row, Job)), None)
        return next(iter(self._heard), None)

    def _held(self) -> bool:
        """Return whether answers about clips wait until more are heard: not for long, nor where no more can be."""
        first = next((row for row in self._heard if isinstance(row, Generation)), None)
        if first is None or not self._room_ahead() or time.monotonic() > first.heard_at + HELD_S:
            return False
        return self._waiting.soon * HEARD_FIRST > len(self._heard) + len(self._batch)

    def _room_ahead(self) -> int:
        """Return how many more clips may be heard before those that are have a place."""
        ahead = [row for row in self._heard if isinstance(row, Generation)]
        full = sum(map(self._batch.bytes_of, ahead)) > self.limits.cache_bytes
        return 0 if full else HEARD_AHEAD - len(ahead)

    def _admit(self) -> None:
        """Let answers begin while there are places and memory for their keys and values."""
        for _ in range(BEGUN_AT_ONCE):
            with self._wake:
                first = self._ready()
                if first is None or len(self._batch) >= self.limits.running:
                    return
                self._heard.remove(first)
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
        """Let answers begin and end, read the short prompts, then let what has waited longest go on."""
        try:
            self._admit()
            self._batch.leave([row for row in self._batch.every if not self._wanted(row.job)])
            self._take(self._batch.read_short())
            self._take(self._batch.advance())
        except Exception as error:  # noqa: BLE001 - these answers end, the server goes on; it is logged and told
            self._fail(error)

    def _take(self, said: Said) -> None:
        """Let answers choose their next token; those that end leave."""
        if not said:
            return
        logits, likeliest = speakable(self.engine, torch.stack([logits for _, logits in said]))
        taken = [(row.job, self._chosen(row, logits[i], likeliest[i])) for i, (row, _) in enumerate(said)]
        for job, events in taken:  # one after the other, so that the event loop is woken once
            self._emit(job, events)
        self._batch.leave([row for row, _ in said if row.over])

    def _chosen(self, row: Generation, logits: Tensor, likeliest: int) -> list[Event]:
        """Return what an answer's next token gives; one that cannot choose ends, and no other with it."""
        try:
            return row.take(logits, likeliest)
        except Exception as error:  # noqa: BLE001 - it is logged and told
            row.over = True
            return [Failed(error=_explained(error))]

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

    def _do(self, do: Callable[[Engine], Any], future: Future[Any], alone: bool) -> None:
        if not future.set_running_or_notify_cancel():  # whoever asked has given up
            return
        try:
            with contextlib.ExitStack() as stack:
                for ear in self._ears if alone else ():
                    stack.enter_context(ear)
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
