"""lmms-eval from its own package runs nano, in an environment of its own, because its pins exclude ours.

lmms-eval 0.7.3 asks for av < 16 (we for av >= 16) and for torchvision (built for other torches than a CPU one, and used
by its video models alone): both are overridden, the rest is what the resolver finds inside both packages' ranges.
It also imports `filelock._api`, which filelock 4 no longer has. OSSICLE_LMMS_ENV=FOLDER keeps the environment for the
next run.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
PACKAGE = "lmms-eval==0.7.3"
OVERRIDES = "av>=16\ntorchvision; python_version < '3'\n"
CONSTRAINTS = "filelock<4\n"
QUESTION = "What do you hear?"
TASK = """\
task: ossicle_tiny
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function tiny.sounds
doc_to_text: !function tiny.question
doc_to_target: answer
generation_kwargs: {{max_new_tokens: 16, until: ["\\n\\n"]}}
metric_list:
  - {{metric: exact_match, aggregation: mean, higher_is_better: true, ignore_case: true, ignore_punctuation: true}}
"""
FUNCTIONS = """\
def sounds(doc):
    return [doc["audio"]]


def question(doc, kwargs=None):
    return doc["question"]
"""


def call(*command, **environment):
    """Run a command; what it printed stands in the failure."""
    done = subprocess.run(
        [str(part) for part in command], env={**os.environ, **environment}, cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"


def environment(folder):
    """Return the Python of an environment with lmms-eval and this ossicle in it."""
    uv = shutil.which("uv") or shutil.which("uv", path=Path(sys.executable).parent)
    if uv is None:
        pytest.skip("uv is not installed: it can override what a package asks for, pip cannot")
    home = Path(os.environ.get("OSSICLE_LMMS_ENV") or folder / "env")
    python = home / "bin" / "python"
    call(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder / "dist")
    (wheel,) = (folder / "dist").glob("ossicle-*.whl")
    if not python.is_file():
        call(uv, "venv", "--python", sys.executable, home)
        (folder / "overrides.txt").write_text(OVERRIDES)
        (folder / "constraints.txt").write_text(f"torch=={importlib.metadata.version('torch')}\n{CONSTRAINTS}")
        links = os.environ.get("PIP_FIND_LINKS", "")
        given = ["--override", folder / "overrides.txt", "--constraint", folder / "constraints.txt"]
        call(uv, "pip", "install", "--python", python, *given, PACKAGE, wheel, UV_FIND_LINKS=links)
    else:
        call(uv, "pip", "install", "--python", python, "--no-deps", "--reinstall", wheel)
    return python


@pytest.mark.slow
@pytest.mark.network
def test_lmms_eval_from_its_package_scores_nano(tmp_path):
    from ossicle.inference.engine import load

    python = environment(tmp_path)
    rng = np.random.default_rng(0)
    paths = [tmp_path / f"{index}.wav" for index in range(3)]
    for path in paths:
        soundfile.write(path, 0.1 * rng.standard_normal(16000), 16000)
    engine = load("nano", device="cpu", dtype="fp32")
    said = [engine.answer([(path, QUESTION)], max_new_tokens=16)[0].text for path in paths]
    truths = [said[0], said[1], "nothing of the kind"]
    rows = [{"audio": str(p), "question": QUESTION, "answer": t} for p, t in zip(paths, truths, strict=True)]
    task = tmp_path / "task"
    task.mkdir()
    (task / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (task / "tiny.yaml").write_text(TASK.format(rows=task / "rows.jsonl"))
    (task / "tiny.py").write_text(FUNCTIONS)
    out = tmp_path / "out"
    what = ["--model", "ossicle", "--model_args", "pretrained=nano,device=cpu", "--tasks", "ossicle_tiny"]
    where = ["--include_path", task, "--batch_size", "2", "--output_path", out, "--log_samples"]
    call(python, "-m", "lmms_eval", *what, *where, HF_HUB_OFFLINE="1", PYTHONPATH="")
    (results,) = out.rglob("*results.json")
    scores = json.loads(results.read_text())["results"]["ossicle_tiny"]
    assert scores["exact_match,none"] == pytest.approx(2 / 3)
    (samples,) = out.rglob("*samples*.jsonl")
    answers = [json.loads(line)["filtered_resps"] for line in samples.read_text().splitlines()]
    assert answers == said
