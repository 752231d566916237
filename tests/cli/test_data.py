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


def test_a_recipe_is_built_once_with_a_card_and_every_row_is_explained(sounds, tmp_path, capsys):
    words = ["build", "folder", f"parts.sounds.root={sounds}", "shards=true", "--out", tmp_path / "built"]
    assert run(["data", *map(str, words), "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert "[2/6] sounds/describe: 25 in, 24 out" in captured.err
    assert "[6/6] shards: " in captured.err
    rows = list(read_rows(tmp_path / "built/questions.jsonl"))
    assert result["out"] == len(rows) > 100
    card = (tmp_path / "built/README.md").read_text()
    assert "| sounds/describe | 25 | 24 |" in card
    assert "hiss" in card
    first = (tmp_path / "built/questions.jsonl").read_bytes()
    assert run(["data", *map(str, words)]) == 0
    assert capsys.readouterr().err.count("done before") == 6
    assert (tmp_path / "built/questions.jsonl").read_bytes() == first
    _, found = command(capsys, "explain", rows[3]["id"], "--in", tmp_path / "built/questions.jsonl",
                       "--clips", tmp_path / "built/sounds/described.jsonl")  # fmt: skip
    assert found["made"]["by"] == "closed"
    assert found["facts"]["facts"]["rms_db"] < 0
    _, result = command(capsys, "shard", tmp_path / "built/shards", "--read", "--out", tmp_path / "again")
    single = [row["id"] for row in rows if len(row["audios"]) == 1]
    again = list(read_rows(tmp_path / "again/questions.jsonl"))
    assert sorted(row["id"] for row in again) == sorted(single)
    assert soundfile.info(again[0]["audios"][0]).frames == 12000
    code, error = command(capsys, "build", "openasqa", "--out", tmp_path / "none")
    assert code == 2
    assert "no part is there" in error


def test_open_questions_from_the_command_line(tmp_path, capsys, monkeypatch):
    pytest.importorskip("openai")
    pytest.importorskip("tenacity")
    from questions.endpoint_double import Double

    clips, out = tmp_path / "clips.jsonl", tmp_path / "open.jsonl"
    clips.write_text("".join(json.dumps({"path": f"{n}.wav", "labels": [f"sound {n}"]}) + "\n" for n in range(3)))
    with Double(naughty=False) as server:
        words = ["generate", clips, "--out", out, "--endpoint", f"{server.url}#double"]
        _, result = command(capsys, *words, "--dry-run", "--price-in", 1, "--price-out", 2)
        assert result["estimate"]["calls"] == 3
        assert result["estimate"]["usd"] > 0
        assert server.calls == 0
        code, error = command(capsys, *words, "--max-tokens", 0)
        assert (code, "budget of nothing" in error) == (2, True)
        _, result = command(capsys, *words)
        assert (result["out"], result["spent"]["calls"], result["stopped"]) == (9, 3, "")
        _, result = command(capsys, *words)
        assert (result["out"], result["spent"]["calls"]) == (9, 0)
        server.status = 401
        monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-key")
        code, error = command(capsys, *words, "--prompt", "joint")
        assert code == 2
        assert "refused" in error
        assert "sk-secret" not in error
    row = next(read_rows(out))
    _, found = command(capsys, "explain", "1", "--in", out)
    assert found["made"]["told"] == row["made"]["told"] == ["Sounds: sound 0"]
