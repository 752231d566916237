"""Batches against one question at a time, on suite nano in one run: at least five times the questions a second."""

from __future__ import annotations

import os
import time

import numpy as np
import pytest

from ossicle.evaluation.answers import AnswerStore, collect
from ossicle.evaluation.run import Outcome, Setting, build_tasks
from ossicle.evaluation.score import task_requests
from ossicle.evaluation.task import suite_specs

LIMIT = int(os.environ.get("OSSICLE_SPEED_LIMIT", "24"))
SINGLES = int(os.environ.get("OSSICLE_SPEED_SINGLES", "48"))
"""Random questions that are asked one at a time; their mean stands for all."""


def seconds(ask) -> np.ndarray:
    """Return (by the clock, of the processor); the clock is what a user waits, but other work on the machine counts."""
    began = np.array([time.perf_counter(), time.process_time()])
    ask()
    return np.array([time.perf_counter(), time.process_time()]) - began


@pytest.mark.slow
@pytest.mark.alone
def test_batches_answer_five_times_as_many_questions_a_second(data_root):
    from ossicle.inference.engine import load

    engine = load("nano", device="cpu", dtype="fp32")
    setting = Setting(suite="nano", root=data_root, limit=LIMIT)
    outcome = Outcome()
    build_tasks(setting, suite_specs("nano"), outcome)
    engine.answer([(None, "What?")] * 4, max_new_tokens=8, batch_size=4)
    wanted = [request for task in outcome.built.values() for request in task_requests(task, seed=0)]
    wanted = list({request.key: request for request in wanted}.values())
    sounds = {name: task.sounds for name, task in outcome.built.items()}
    for task in sounds.values():
        next(iter(task.values())).load()
    some = [wanted[i] for i in sorted(np.random.default_rng(0).permutation(len(wanted))[:SINGLES])]
    said = {}

    def ask(request):
        wave = sounds[request.task][request.audio].load() if request.audio else None
        said[request.key] = engine.answer([(wave, request.question)], max_new_tokens=request.max_new_tokens)[0].text

    half = len(some) // 2
    alone = seconds(lambda: [ask(request) for request in some[:half]])
    store = AnswerStore(None, {})
    together = seconds(lambda: collect(engine, wanted, sounds, store)) / len(wanted)
    alone = (alone + seconds(lambda: [ask(request) for request in some[half:]])) / len(some)
    for name, apart, at_once in zip(("the clock", "processor time"), alone, together, strict=True):
        print(f"{len(wanted)} questions, by {name}: {at_once:.4f} s each together, {apart:.4f} s alone", end="")
        print(f" (mean of {len(some)}), x {apart / at_once:.2f}")
    assert said == {key: store.replies[key] for key in said}, "the answers are the same"
    assert alone[0] >= 5 * together[0]
