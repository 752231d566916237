"""Jobs whose clips are not heard yet, and which of them are heard next, together.

    shortest first ──► like lengths together, 20 s of audio at most ──► an ear
    one that has waited for `PATIENCE_S` ──► before all, alone

A clip that is being heard is not begun a second time: who asks about it waits and finds its handle. Several short clips
together cost less than one by one, and no more than one of ten seconds and another stand in a short one's way.

Source: our choice; shortest job first with a bound on waiting.
"""

from __future__ import annotations

import time

from ossicle.inference.running import like_lengths
from ossicle.serve.job import Job
from ossicle.types import SAMPLE_RATE_HZ

PATIENCE_S = 2.0
TOGETHER_S = 20.0
"""Seconds of audio, padding included, that are heard together at most; a longer clip is heard alone."""


class Waiting:
    """Jobs in the order in which they came."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self._taken: list[Job] = []
        self._heard_now: set[tuple[str, str]] = set()

    def __len__(self) -> int:
        return len(self.jobs)

    @property
    def soon(self) -> int:
        """Jobs that will soon be heard: those with short clips, waiting or being heard."""
        return sum(_seconds(job) <= TOGETHER_S for job in (*self.jobs, *self._taken))

    def add(self, job: Job) -> None:
        """Take a job."""
        self.jobs.append(job)

    def drop_gone(self) -> None:
        """Forget those whose clients went away."""
        self.jobs = [job for job in self.jobs if not job.cancelled.is_set()]

    def take(self, most: int) -> list[Job]:
        """Take the jobs out that are heard next; `heard` must be told of them.

        Args:
            most: So many at most.
        """
        ready = [job for job in self.jobs if not self._heard_now & _clips(job)]
        if not ready or most < 1:
            return []
        chosen = ready[:1]
        if chosen[0].received > time.monotonic() - PATIENCE_S:
            ready.sort(key=_seconds)
            chosen = [ready[place] for place in like_lengths([_seconds(job) for job in ready], TOGETHER_S)[0][:most]]
        for job in chosen:
            self._heard_now |= _clips(job)
        taken = set(map(id, chosen))
        self.jobs = [job for job in self.jobs if id(job) not in taken]
        self._taken += chosen
        return chosen

    def heard(self, jobs: list[Job]) -> None:
        """Be told that these are no longer being heard."""
        done = set(map(id, jobs))
        self._taken = [job for job in self._taken if id(job) not in done]
        for job in jobs:
            self._heard_now -= _clips(job)


def _clips(job: Job) -> set[tuple[str, str]]:
    return {(job.scope, clip.audio) for clip in job.clips}


def _seconds(job: Job) -> float:
    return sum(clip.num_samples for clip in job.clips) / SAMPLE_RATE_HZ
