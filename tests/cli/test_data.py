"""`ossicle data`, step after step, over recordings made here."""

from __future__ import annotations

import json

import numpy as np
import pytest
import soundfile

from ossicle.cli.app import run
from ossicle.data.rows import read_clips, read_rows
from ossicle.data.source import SourceContext


@pytest.fixture
def sounds(tmp_path):
    """Two labels, 24 tones of rising pitch and level, one file that is no recording."""
    rng = np.random.default_rng(0)
    for number in range(24):
        folder = tmp_path / "sounds" / ("hum", "hiss")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        wave = np.sin(np.arange(12000) * (0.04 + number / 400)) if number % 2 == 0 else rng.normal(0, 0.3, 12000)
        soundfile.write(folder / f"{number}.wav", (wave * 0.03 * (number + 1)).clip(-1, 1), 16000)
    (tmp_path / "sounds/hum/broken.wav").write_bytes(b"RIFFnothing")
    return tmp_path / "sounds"


def command(capsys, *words):
    code = run(["data", *map(str, words), "--json"])
    captured = capsys.readouterr()
    return code, json.loads(captured.out) if code == 0 else captured.err


def test_from_recordings_to_questions(sounds, tmp_path, capsys):
    clips, described, questions = (tmp_path / f"{name}.jsonl" for name in ("clips", "described", "questions"))
    _, result = command(capsys, "import", sounds, "--out", clips)
    assert (result["in"], result["out"]) == (25, 25)
    _, result = command(capsys, "describe", clips, "--out", described)
    assert (result["in"], result["out"], sum(result["skipped"].values())) == (25, 24, 1)
    assert set(result["levels"]) >= {"rms_db"}
    first = described.read_bytes()
    command(capsys, "describe", clips, "--out", described)  # all from the store
    assert described.read_bytes() == first
    clip = next(read_clips(described))
    assert clip.facts["rms_db"] < 0
    _, result = command(capsys, "generate", described, "--out", questions, "--seed", 1)
    made = list(read_rows(questions))
    assert result["out"] == len(made) > 24 * 5
    from ossicle.data.readers import MessagesConfig, MessagesSource

    source = MessagesSource(MessagesConfig(path=str(questions)), SourceContext())
    assert len(source) == len(made)
    _, result = command(capsys, "stats", described)
    assert result["labels"] == {"hiss": 12, "hum": 12}
    assert result["balance"] == 1.0


def test_mistakes_are_one_line_and_exit_two(sounds, tmp_path, capsys):
    out = tmp_path / "out.jsonl"
    for words in (
        ["import", tmp_path / "nowhere", "--out", out],
        ["import", sounds, "--adapter", "esc50", "--out", out],
        ["describe", tmp_path / "nowhere.jsonl", "--out", out],
        ["generate", sounds / "hum/broken.wav", "--out", out],
    ):
        code, error = command(capsys, *words)
        assert code == 2
        assert error.startswith("ossicle: error:")
        assert len(error.strip().splitlines()) == 1
    assert not out.exists()
