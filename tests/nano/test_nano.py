"""The bundled model: small, with a card, answers in words; its recipe still gives the losses it was made with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from ossicle.inference.engine import bundled, load
from ossicle.types import Waveform

FOLDER = bundled("nano")
pytestmark = pytest.mark.skipif(not (FOLDER / "model.safetensors").is_file(), reason="nano is not in this checkout")


def test_it_fits_in_the_wheel() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 15_000_000


def test_the_card_says_what_a_card_must() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    for needed in ("CC BY-SA 4.0", "seed", "ossicle train nano", "esc10", "fsdd", "emodb_2s", "librispeech", "Wilson"):
        assert needed in card, needed
    for forbidden in ("ravdess", "nonverbal_vocal", "audiocaps"):
        assert f"trained on {forbidden}" not in card


def test_the_loss_curve_falls() -> None:
    curve = json.loads((FOLDER / "loss_curve.json").read_text())
    assert curve["seed"] == 0 and list(curve["stages"]) == ["sound", "speech", "decoder"]
    for losses in curve["stages"].values():
        assert np.mean(losses["first_50"][:10]) > 1.5 * np.mean(losses["every_10"][-10:])


def test_it_answers_in_words_and_two_questions_differ() -> None:
    from ossicle.world.sounds import SOURCES

    silence = np.zeros(8000, np.float32)
    siren, bell = (SOURCES[name].render({}, 1.5) * 0.3 for name in ("siren", "bell"))
    scene = Waveform(samples=np.concatenate([siren, silence, bell]))
    engine = load("nano", device="cpu")
    asked = ["Which sound comes first?", "Which sound comes last?", "Who wrote this song?"]
    first, last, refused = [answer.text for answer in engine.answer([(scene, question) for question in asked])]
    assert "siren" in first.lower() and "bell" in last.lower()
    assert "cannot" in refused


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_it_hears_the_one_event_near_the_end_of_a_long_clip(noise: float) -> None:
    from ossicle.world.sounds import SOURCES

    samples = noise * np.random.default_rng(0).standard_normal(65 * 16_000).astype(np.float32)
    samples[63 * 16_000 : 65 * 16_000] += 0.3 * SOURCES["siren"].render({}, 2.0)
    clip = Waveform(samples=samples.astype(np.float32))
    answer = load("nano", device="cpu").answer([(clip, "What do you hear?")])[0]
    assert "siren" in answer.text.lower()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("espeak-ng") is None, reason="espeak-ng is not installed")
@pytest.mark.parametrize("stage", ["sound", "speech"])
def test_the_first_50_steps_are_those_of_the_curve(
    stage: str, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ossicle.training import recipe, run
    from ossicle.training.build import build
    from ossicle.training.loop import StageRun
    from ossicle.training.objectives.base import StageContext

    monkeypatch.setenv("OSSICLE_DATA", str(data_root))
    loaded = recipe.load("nano")
    number = [known.name for known in loaded.recipe.stages].index(stage)
    made = build(loaded.recipe, {})  # encoders start from the same numbers whatever the tokenizer was trained on
    run.prepare(made.model, loaded.recipe.stages[number])
    context = StageContext(
        model=made.model,
        processor=made.processor,
        recipe=loaded.recipe,
        stage=loaded.recipe.stages[number],
        stage_index=number,
        cache_dir=tmp_path,
    )
    objective = run.build_objective(context.stage, context)
    training = StageRun(context, objective, context.stage.num_steps(None), tmp_path)
    losses = [training.step(step).loss for step in range(50)]
    curve = json.loads((FOLDER / "loss_curve.json").read_text())["stages"][stage]["first_50"]
    np.testing.assert_allclose(losses[:5], curve[:5], rtol=0.02)
    np.testing.assert_allclose(np.mean(losses[40:]), np.mean(curve[40:50]), rtol=0.1)
