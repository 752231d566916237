"""Which clips are heard next: the shortest, like lengths together, nobody for ever, no clip twice at once."""

from __future__ import annotations

import time

import numpy as np

from ossicle.inference.store import Recording
from ossicle.serve.job import Job, Sampling
from ossicle.serve.waiting import PATIENCE_S, Waiting


def job(seconds, audio=None, scope="", came=None):
    samples = np.zeros(int(seconds * 16000), np.float32)
    clip = Recording(audio=audio or f"{seconds}", num_samples=len(samples), samples=samples)
    made = Job(messages=[], clips=[clip], sampling=Sampling(), emit=lambda event: None, scope=scope)
    made.received = time.monotonic() if came is None else came
    return made


def taken(waiting, most=8):
    """Take the next jobs; return their seconds."""
    jobs = waiting.take(most)
    waiting.heard(jobs)
    return [one.clips[0].num_samples / 16000 for one in jobs]


def filled(*jobs):
    waiting = Waiting()
    for one in jobs:
        waiting.add(one)
    return waiting


def test_the_shortest_come_first_and_like_lengths_together():
    waiting = filled(*(job(seconds) for seconds in (30.0, 10.0, 1.0, 9.5, 1.1, 10.5, 3600.0, 1.05)))
    told = []
    while len(waiting):
        told.append(taken(waiting))
    assert told == [[1.0, 1.05, 1.1], [9.5, 10.0], [10.5], [30.0], [3600.0]]


def test_no_more_are_taken_than_there_is_room_for():
    waiting = filled(*(job(1.0, audio=str(i)) for i in range(5)))
    assert taken(waiting, 0) == [] and len(taken(waiting, 3)) == 3 and len(waiting) == 2


def test_who_has_waited_long_is_next_and_alone():
    now = time.monotonic()
    waiting = filled(job(20.0, came=now - PATIENCE_S - 1), job(1.0), job(19.0))
    assert taken(waiting) == [20.0] and taken(waiting) == [1.0]


def test_a_clip_that_is_being_heard_is_not_begun_again():
    waiting = filled(job(1.0, "a"), job(1.0, "a"), job(2.0, "b"))
    first = waiting.take(1)
    waiting.add(job(1.0, "a", scope="another key's"))
    assert [one.clips[0].audio for one in waiting.take(1)] == ["a"], "another key's clip is another clip"
    assert [one.clips[0].audio for one in waiting.take(8)] == ["b"]
    assert waiting.take(8) == [] and len(waiting) == 1
    waiting.heard(first)
    assert [one.clips[0].audio for one in waiting.take(8)] == ["a"]


def test_short_clips_are_soon_heard_until_they_are_and_long_ones_never():
    waiting = filled(job(1.0), job(19.0), job(21.0), job(3600.0))
    assert waiting.soon == 2
    first = waiting.take(8)
    assert waiting.soon == 2, "the first is being heard"
    waiting.heard(first)
    assert waiting.soon == 1
