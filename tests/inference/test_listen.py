"""Occlusion: the log-probability is the model's own, and a stretch that carries the answer weighs most."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ossicle.inference import listen
from ossicle.types import Waveform


def _wave(seconds=4, loud=2):
    samples = np.full(16000 * seconds, 1e-3, np.float32)
    samples[16000 * loud : 16000 * (loud + 1)] = 0.5
    return Waveform(samples=samples)


def test_the_stretch_that_carries_the_answer_weighs_most(monkeypatch):
    def loud(engine, clips, question, answer):
        return torch.tensor([-10.0 + 9.0 * float(np.abs(clip.samples).max() > 0.1) for clip in clips])

    monkeypatch.setattr(listen, "log_chances", loud)
    seconds = listen.occlusion(SimpleNamespace(), _wave(), "what", "loud")["seconds"]
    assert [round(row["weight"], 6) for row in seconds] == [0, 0, 1, 0]
    assert seconds[2]["drop"] == pytest.approx(9.0)
    assert [row["start_s"] for row in seconds] == [0, 1, 2, 3]


def test_nothing_mattered_is_zero_everywhere_and_the_clip_is_left_alone(monkeypatch):
    monkeypatch.setattr(listen, "log_chances", lambda engine, clips, *_: torch.zeros(len(clips)))
    wave = _wave()
    before = wave.samples.copy()
    assert {row["weight"] for row in listen.occlusion(SimpleNamespace(), wave, "q", "a")["seconds"]} == {0.0}
    assert np.array_equal(wave.samples, before)


def test_a_long_clip_has_longer_stretches(monkeypatch):
    monkeypatch.setattr(listen, "log_chances", lambda engine, clips, *_: torch.zeros(len(clips)))
    wave = Waveform(samples=np.zeros(16000 * 600, np.float32))
    seconds = listen.occlusion(SimpleNamespace(), wave, "q", "a")["seconds"]
    assert len(seconds) == listen.MOST_STRETCHES
    assert seconds[-1]["end_s"] == 600.0
