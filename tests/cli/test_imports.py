"""What each verb imports: none waits for a library it does not use."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from ossicle.cli import app
from ossicle.deferred import put_off

DEMO = Path(__file__).parents[2] / "src/ossicle/world/demo/2_beeps_siren_digit.ogg"
HEAVY = (
    *("torch", "transformers", "scipy", "sklearn", "matplotlib", "pandas", "pyarrow", "ray", "gradio", "fastapi"),
    *("uvicorn", "peft", "accelerate", "bitsandbytes", "tensorboard", "parselmouth", "jiwer", "sacrebleu", "openai"),
)
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


def _run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=600)


def test_no_verb_imports_a_model_library_before_it_starts():
    done = _run(VERB, json.dumps([sorted(app.available()), HEAVY]))
    assert done.returncode == 0, done.stderr[-2000:]
    assert {verb: found for verb, found in json.loads(done.stdout).items() if found} == {}


@pytest.mark.slow
def test_ask_waits_for_nothing_but_torch_and_transformers():
    pytest.importorskip("scipy")
    done = _run(ASK, str(DEMO), json.dumps(HEAVY))
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
