"""The wheel in an environment with the core dependencies only: the command is there, and nano answers offline."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[2]
LARGEST_NANO_BYTES = 15_000_000


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The built wheel; built without isolation, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(command, check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel, core_site, tmp_path_factory) -> Path:
    """An empty environment with the wheel in it; the core dependencies are linked from here."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "core.pth").write_text(f"{core_site}\n")
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install", "-q", "--no-deps"]
    subprocess.run([*pip, "--no-index", wheel], check=True, capture_output=True)
    return folder


def _run(installed, folder, *words, **named):
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "OSSICLE"))}
    clean |= {"HF_HUB_OFFLINE": "1", "HOME": str(folder), **named}
    command = [installed / "bin" / "ossicle", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)


def test_the_wheel_holds_what_the_command_needs_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    sizes = {info.filename: info.file_size for info in zipfile.ZipFile(wheel).infolist()}
    assert not [name for name in names if not name.startswith("ossicle")]
    assert not [name for name in names if name.endswith((".pyc", ".npy", ".tmp"))]
    for here in ("py.typed", "nano/config.json", "nano/model.safetensors", "world/demo/__init__.py"):
        assert f"ossicle/{here}" in names
    assert [name for name in names if name.startswith("ossicle/recipes/") and name.endswith(".yaml")]
    assert sum(size for name, size in sizes.items() if name.startswith("ossicle/nano/")) <= LARGEST_NANO_BYTES


def test_nano_answers_from_another_folder(installed, tmp_path):
    soundfile.write(tmp_path / "tone.wav", np.sin(np.arange(32000) / 9).astype(np.float32) / 3, 16000)
    done = _run(installed, tmp_path, "ask", "tone.wav", "What do you hear?", "--json", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    imported = {line.rsplit("|", 1)[1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "transformers.cache_utils" in imported
    assert not imported & {"torch._dynamo", "torch.distributed.tensor", "sympy"}, "an answer waits for none"
    result = json.loads(done.stdout)
    assert result["model"] == "nano"
    assert result["answer"]


def test_a_missing_extra_names_its_install_command(installed, tmp_path):
    done = _run(installed, tmp_path, "serve", "nano")
    assert done.returncode == 2
    assert "pip install 'ossicle[serve]'" in done.stderr
    assert done.stderr.count("\n") == 1
