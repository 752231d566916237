"""A tiny folder of sets, a model that hears everything right, and one that hears nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from evaluation.doubles import Oracle
from ossicle.evaluation.parse import vocabularies
from ossicle.evaluation.run import Outcome, Setting, build_tasks
from ossicle.evaluation.task import suite_specs


def write_set(folder: Path, records: list[dict]) -> None:
    """Write noise clips, each different, and their manifest."""
    (folder / "audio").mkdir(parents=True)
    for index, record in enumerate(records):
        record["path"] = f"audio/{index}.wav"
        rng = np.random.default_rng([index, len(str(folder))])
        soundfile.write(folder / record["path"], 0.1 * rng.standard_normal(1600 + 80 * index), 16000)
        record["duration_s"] = 0.1 + 0.005 * index
    (folder / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sets")
    sounds = list(vocabularies()["esc10"])
    instruments = ("piano", "guitar", "drum", "water")
    emotions = list(vocabularies()["emodb_emotion"])
    write_set(root / "esc10", [{"label": x, "freesound_id": f"{x}{i}"} for i in range(3) for x in sounds])
    write_set(root / "fsdd", [{"label": d, "speaker": s} for s in ("ann", "bob") for d in range(10)])
    write_set(
        root / "librispeech_gender251",
        [{"gender": ("male", "female")[i % 2], "speaker": str(i)} for i in range(12)],
    )
    write_set(root / "emodb_2s", [{"emotion": e, "speaker": s} for s in ("03", "08") for e in emotions])
    write_set(
        root / "berklee_sounds",
        [{"label": x, "sound_group": f"{x}{i}"} for i in range(3) for x in instruments],
    )
    return root


@pytest.fixture(scope="session")
def setting(tiny_root) -> Setting:
    return Setting(suite="nano", root=tiny_root, limit=12, seed=3)


@pytest.fixture(scope="session")
def built(setting) -> Outcome:
    outcome = Outcome()
    build_tasks(setting, suite_specs("nano"), outcome)
    return outcome


@pytest.fixture
def oracle(built) -> Oracle:
    return Oracle(built.built)


@pytest.fixture
def no_java(monkeypatch):
    """METEOR's program reads its paraphrases for ten seconds at every start; it has a slow test of its own."""
    found = shutil.which
    monkeypatch.setattr(
        shutil, "which", lambda name, *rest, **more: None if name == "java" else found(name, *rest, **more)
    )
