"""Beams hear the audio as one answer does: by its mean chance a token, the best of four is no worse than greedy."""

from __future__ import annotations

import numpy as np
import torch

from ossicle.inference.drawing import DRAWINGS, DrawingConfig, drawn
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


def test_a_folder_that_samples_otherwise_changes_no_way_of_drawing():
    engine = load("nano", device="cpu")
    way = DrawingConfig(do_sample=True, temperature=3.0, max_new_tokens=12)
    before = dict(drawn(engine, [(None, QUESTION)], way, [8], 0))[0].text
    engine.model.generation_config.top_k = 1
    engine.model.generation_config.repetition_penalty = 1.5
    assert dict(drawn(engine, [(None, QUESTION)], way, [8], 0))[0].text == before
    hot = DrawingConfig(do_sample=True, top_p=0.9, max_new_tokens=12)
    before = dict(drawn(engine, [(None, QUESTION)], hot, [8], 0))[0].text
    engine.model.generation_config.temperature = 5.0
    assert dict(drawn(engine, [(None, QUESTION)], hot, [8], 0))[0].text == before
