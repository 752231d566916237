"""Beams hear the audio as one answer does: by its mean chance a token, the best of four is no worse than greedy."""

from __future__ import annotations

import numpy as np
import torch

from ossicle.inference.drawing import DRAWINGS, drawn
from ossicle.inference.engine import load
from ossicle.world.scenes import random_scene

QUESTION = "What do you hear?"


def mean_log_chance(engine, wave, answer):
    prompt = engine.processor.prompt_ids(engine.prompt(QUESTION), [len(wave.samples)])
    said = [*engine.processor.ids(answer), engine.processor.tokenizer.eos_token_id]
    heard = engine.processor.audio_inputs([wave])
    with torch.inference_mode():
        logits = engine.model(torch.tensor([[*prompt, *said]]), **heard).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + place - 1, token]) for place, token in enumerate(said)) / len(said)


def test_beams_are_no_worse_than_greedy_and_here_better():
    engine, rng = load("nano", device="cpu"), np.random.default_rng(0)
    gained = []
    for sounds in (1, 2, 3):
        wave = random_scene(rng, sounds).waveform
        ways = (DRAWINGS["greedy"], DRAWINGS["beam"])
        greedy, beam = (dict(drawn(engine, [(wave, QUESTION)], way, [32], 0))[0].text for way in ways)
        gained.append(mean_log_chance(engine, wave, beam) - mean_log_chance(engine, wave, greedy))
    assert min(gained) > -1e-4
    assert max(gained) > 0.01
