"""What each verb imports: none waits for a library it does not use; what was put off arrives when it is used."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from ossicle import deferred
from ossicle.cli import app
from ossicle.deferred import put_off, undrawn

DEMO = Path(__file__).parents[2] / "src/ossicle/world/demo/2_beeps_siren_digit.ogg"
HEAVY = (
    *("torch", "transformers", "scipy", "sklearn", "matplotlib", "pandas", "pyarrow", "ray", "gradio", "fastapi"),
    *("uvicorn", "peft", "accelerate", "bitsandbytes", "tensorboard", "parselmouth", "jiwer", "sacrebleu", "openai"),
)
COMPILERS = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "torch.distributed.fsdp", "sympy")
VERB = """
import importlib, json, sys
verbs, heavy = json.loads(sys.argv[1])
print(json.dumps({verb: (importlib.import_module(f"ossicle.cli.{verb}"), [m for m in heavy if m in sys.modules])[1]
                  for verb in verbs}))
"""
ASK = """
import json, sys
from ossicle.cli.app import run
code = run(["ask", sys.argv[1]])
loaded = [m for m in json.loads(sys.argv[2]) if m in sys.modules]
from transformers.loss.loss_for_object_detection import linear_sum_assignment
rows, columns = linear_sum_assignment([[1.0, 0.0], [0.0, 1.0]])
print(json.dumps([code, loaded, columns.tolist()]))
"""
MARKS = """
import sys, torch
from ossicle.compiler import marks_noted
def framed(x):
    return (sys._getframe(), x)[1]
with marks_noted():
    alone = torch.compiler.disable(lambda x: x + 1, reason="a test")
    whole = torch.compiler.allow_in_graph(framed)
    print("torch._dynamo" in sys.modules, alone(1))
print("torch._dynamo" in sys.modules)
x, compiled = torch.ones(2), lambda f: torch.compile(lambda x: f(x) * 2, backend="eager", fullgraph=True)
print(compiled(whole)(x).tolist(), compiled(torch.sin)(x).shape, alone(x).tolist())
try:
    compiled(alone)(x)
except torch._dynamo.exc.Unsupported as error:
    print("a test" in str(error))
print(torch._dynamo.config is sys.modules["torch._dynamo.config"])
"""


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != "TORCHDYNAMO_DISABLE"}  # set in conftest.py
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=env)


def test_no_verb_imports_a_model_library_before_it_starts():
    done = _run(VERB, json.dumps([sorted(app.available()), HEAVY]))
    assert done.returncode == 0, done.stderr[-2000:]
    assert {verb: found for verb, found in json.loads(done.stdout).items() if found} == {}


@pytest.mark.slow
@pytest.mark.alone
def test_ask_waits_for_nothing_but_torch_and_transformers():
    pytest.importorskip("scipy")
    done = _run(ASK, str(DEMO), json.dumps([*HEAVY, *COMPILERS]))
    assert done.returncode == 0, done.stderr[-2000:]
    code, loaded, columns = json.loads(done.stdout.splitlines()[-1])
    assert code == 0
    assert set(loaded) <= {"torch", "transformers", "accelerate"}, "transformers itself imports accelerate"
    assert columns == [1, 0], "what was put off arrives when it is called"


def test_what_is_put_off_comes_when_it_is_called():
    sys.modules.pop("colorsys", None)
    with put_off("colorsys", "rgb_to_hsv"):
        from colorsys import rgb_to_hsv
    assert "colorsys" not in sys.modules
    assert rgb_to_hsv(1.0, 1.0, 1.0) == (0.0, 0.0, 1.0)
    assert "colorsys" in sys.modules
    with put_off("colorsys", "rgb_to_hsv"):
        from colorsys import rgb_to_yiq  # noqa: F401  (the real module: one that is there is left alone)


@pytest.mark.slow
def test_marks_for_the_compiler_are_made_when_it_comes():
    done = _run(MARKS)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines() == [
        *("True 2", "False", "[2.0, 2.0] torch.Size([2]) [2.0, 2.0]", "True", "True"),
    ]


def test_only_a_process_that_was_started_alone_works_alone(monkeypatch):
    monkeypatch.setattr(deferred, "_alone", False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    deferred.work_alone()
    assert not deferred._alone
    monkeypatch.delenv("WORLD_SIZE")
    deferred.work_alone()
    assert deferred._alone
    told = torch.distributed.is_available
    deferred.forget_other_processes()
    assert torch.distributed.is_available is told, "torch itself is left as it is"


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.arange(5),
        lambda: torch.arange(1, 8, 2, dtype=torch.float16),
        lambda: 1.0 / (1e4 ** (torch.arange(0, 8, 2).to(torch.float) / 8)),
        lambda: torch.arange(6) / 3,
        lambda: torch.empty_like(torch.ones(2, 3).t(), dtype=torch.float64),
        lambda: torch.empty_like(torch.ones(2, 3), device="cpu"),
        lambda: torch.nn.Embedding(4, 3).weight,
        lambda: torch.nn.init.normal_(torch.empty(2), std=0.1),
    ],
)
def test_a_weight_without_values_is_like_one_of_torch(make):
    with torch.device("meta"):
        expected = make()
        with undrawn():
            found = make()
    assert (found.shape, found.dtype, found.device, found.stride()) == (
        *(expected.shape, expected.dtype, expected.device, expected.stride()),
    )


def test_what_has_values_is_drawn_as_ever():
    torch.manual_seed(3)
    expected = torch.nn.Linear(3, 2).weight
    torch.manual_seed(3)
    with undrawn():
        assert torch.equal(torch.nn.Linear(3, 2).weight, expected)
