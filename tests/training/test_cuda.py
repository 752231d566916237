"""On a GPU: a recipe learns what it learns on the CPU, and the shipped model answers alike."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from tiny_recipe import TINY, tiny

from ossicle.training.run import Run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def losses(folder):
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("cached", [False, True], ids=["heard", "cached"])
def test_a_recipe_runs_as_on_the_cpu(precision, cached, tmp_path):
    recipe = copy.deepcopy(TINY)
    recipe["model"]["language_model"]["architecture"]["attention_dropout"] = 0.0
    for stage in recipe["stages"]:
        stage["precision"] = precision
        stage["train"] = [part for part in stage["train"] if part != "encoder"]
        stage["feature_cache"] = cached
    found = {}
    for name, device in (("here", "cpu"), ("there", "cuda")):
        loaded = tiny(tmp_path, **{key: recipe[key] for key in ("model", "stages")})
        Run(loaded, tmp_path / name, device=torch.device(device), tell=lambda _: None).train()
        found[name] = losses(tmp_path / name)
    assert len(found["here"]) == len(found["there"]) > 5
    within = 2e-3 if precision == "fp32" else 5e-2
    assert found["there"] == pytest.approx(found["here"], rel=within)


def test_nano_answers_as_on_the_cpu():
    from ossicle.inference.engine import load
    from ossicle.world.demo import scenes

    answers = {}
    for name, device in (("here", "cpu"), ("there", "cuda")):
        engine = load("nano", device=device, dtype="fp32")
        asked = [(str(scene.path), question) for scene in scenes() for question, _ in scene.questions]
        answers[name] = [answer.text for answer in engine.answer(asked)]
    assert answers["here"] == answers["there"]
