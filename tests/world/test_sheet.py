"""The sheet, the verb and the bundled scenes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.world import demo, sheet, speech, throughput
from ossicle.world.demo import make
from ossicle.world.scenes import random_scene
from ossicle.world.sheet import spectrogram_db
from world.world_measures import f0_hz, rms_db

FOLDER = Path(demo.__file__).parent


def test_sheet_has_a_player_a_picture_and_truth_for_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(sheet, "_scenes", lambda rng: [("One <scene>", random_scene(rng, 2, 3.0))])
    bundled = demo.scenes()[:2]
    monkeypatch.setattr(demo, "scenes", lambda: bundled)
    page = sheet.render_sheet(tmp_path / "sheet", seed=1, names=["tone", "rain", "beeps"])
    text = page.read_text()
    sounds, pictures = list((tmp_path / "sheet/audio").iterdir()), list((tmp_path / "sheet/pictures").iterdir())
    assert len(sounds) == len(pictures) == text.count("<audio") == text.count("<img")
    for path in [*sounds, *pictures]:
        assert f'src="{path.parent.name}/{path.name}"' in text
    samples, rate_hz = soundfile.read(tmp_path / "sheet/audio/tone.wav")
    assert "One &lt;scene&gt;" in text and "<scene>" not in text
    told_hz = float(re.findall(r"F0 ([0-9.]+) Hz", text)[-1])
    assert f0_hz(samples, rate_hz) == pytest.approx(told_hz, rel=0.03)
    assert all(scene.questions[0][0] in text for scene in bundled)


def test_spectrogram_shows_the_pitch_where_it_is() -> None:
    tone = np.sin(2 * np.pi * 2000 * np.arange(16_000) / 16_000).astype(np.float32)
    image = spectrogram_db(tone)
    assert image.shape[1] == 257 and image.max() == pytest.approx(0.0)
    assert (np.argmax(image[10:100], axis=1) * 16_000 / 512 == pytest.approx(2000, abs=32)) is True


def test_verb_prints_one_object(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from ossicle.cli.app import run

    assert run(["world", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert len(told["items"]) >= 25 and told["throughput"]["times_real_time"] > 0
    assert told["items"][0]["ranges"]["pitch_hz"]["unit"] == "Hz"
    assert told["throughput"]["times_real_time"] == pytest.approx(
        told["throughput"]["audio_s"] / told["throughput"]["processor_s"]
    )


def test_throughput_is_a_ratio_of_what_it_reports() -> None:
    speed = throughput(processor_s=0.05)
    assert speed.times_real_time == pytest.approx(speed.audio_s / speed.processor_s)
    assert speed.processor_s >= 0.05 and speed.scenes >= 1


def test_bundled_scenes_are_small_and_their_truth_is_heard() -> None:
    assert sum(path.stat().st_size for path in FOLDER.glob("*.*")) <= 300_000
    assert len(demo.scenes()) == 4
    for bundled in demo.scenes():
        scene = bundled.load()
        assert scene.waveform.sample_rate_hz == 16_000
        assert scene.duration_s == pytest.approx(bundled.truth["duration_s"], abs=0.01)
        assert bundled.questions and scene.text()
        for event in scene.events:
            heard = scene.waveform.samples[round(event.start_s * 16_000) : round(event.end_s * 16_000)]
            assert rms_db(heard) == pytest.approx(event.level_db, abs=1.0)
            start = round(event.start_s * 16_000)
            before = scene.waveform.samples[max(0, start - 1200) : start - 400]
            assert scene.background or np.abs(heard[:800]).max() > 3 * np.abs(before).max(initial=0.0)


def test_bundled_answers_follow_from_the_truth() -> None:
    digits = dict(
        zip(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"], range(10), strict=True)
    )
    for bundled in demo.scenes():
        scene = bundled.load()
        for question, answer in bundled.questions:
            if question.startswith("Is there a "):
                assert answer == ("yes" if scene.contains(question.removeprefix("Is there a ").rstrip("?")) else "no")
            elif question.startswith(("Which digit is", "Which digits")):
                assert answer == scene.text() and all(word in digits for word in answer.split())
            elif question.startswith("How many digits"):
                assert digits[answer] == len(scene.text().split())
            elif question.startswith("Is the speaker"):
                assert answer == f"a {next(event.gender for event in scene.events if event.gender)}"
            elif question.endswith("first?"):
                assert answer == scene.events[0].spoken
            elif question.endswith("last?"):
                assert answer == scene.events[-1].spoken
            else:
                assert scene.background is not None and answer == scene.background.spoken, question


@pytest.mark.skipif(not speech.available(), reason="espeak-ng is not installed")
def test_bundled_scenes_can_be_made_again(tmp_path: Path) -> None:
    assert len(make.make(tmp_path)) == 4
    for bundled in demo.scenes():
        told = json.loads((tmp_path / f"{bundled.name}.json").read_text())
        for now, shipped in zip(told["truth"]["events"], bundled.truth["events"], strict=True):
            assert (now["label"], now["text"], now["count"]) == (shipped["label"], shipped["text"], shipped["count"])
            assert now["parameters"] == shipped["parameters"], "run python -m ossicle.world.demo.make"
        assert told["title"] == bundled.title
