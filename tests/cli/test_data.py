"""`ossicle data`, step after step, over recordings made here."""

from __future__ import annotations

import json
import resource
from contextlib import contextmanager

import numpy as np
import pytest
import soundfile

from ossicle.cli.app import run
from ossicle.data.rows import read_clips, read_rows
from ossicle.data.set_levels import read_levels
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
    told = ["--levels", "volume=peak_db", "--levels", "cuts.rms_db=[-50,-40,-30,-20]"]
    _, result = command(capsys, "describe", clips, "--out", described, *told)
    assert result["levels"]["rms_db"] == [-50, -40, -30, -20] and "peak_db" in result["levels"]
    assert read_levels(described).config.volume == "peak_db"
    code, error = command(capsys, "describe", clips, "--out", described, "--levels", "volum=peak_db")
    assert code == 2 and "did you mean 'volume'" in error
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
    assert "is a folder" in command(capsys, "stats", sounds)[1], "recordings are imported first"
    assert "data import" in command(capsys, "stats", sounds)[1]


@contextmanager
def full_disk(largest):
    """No file may grow beyond so many bytes, as the operating system sees to: writing more fails as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_one_line_leaves_nothing_half_written_and_is_gone_on_from(
    sounds, tmp_path, capsys, monkeypatch, tiny_model
):
    monkeypatch.chdir(tmp_path)
    for words in (["import", sounds, "--out", "c.jsonl"], ["describe", "c.jsonl", "--out", "d.jsonl"],
                  ["generate", "d.jsonl", "--out", "q.jsonl"]):  # fmt: skip
        assert command(capsys, *words)[0] == 0
    there = {path for path in tmp_path.rglob("*") if path.is_file()}
    for verb, out, *words in (
        ("import", "new/c.jsonl", sounds),
        ("describe", "new/d.jsonl", "c.jsonl"),
        ("generate", "new/q.jsonl", "d.jsonl"),
        ("filter", "new/f.jsonl", "q.jsonl"),
        ("mix", "new/m.jsonl", "q.jsonl*2"),
        ("shard", "new/shards", "q.jsonl"),
        ("cache", "new/features", "q.jsonl", "--model", tiny_model),
        ("build", "new/built", "folder", f"parts.sounds.root={sounds}"),
    ):
        with full_disk(600):
            code, error = command(capsys, verb, *words, "--out", out)
        told = [line for line in error.splitlines() if line.startswith("ossicle: error:")]
        assert (verb, code, error.splitlines()[-1:]) == (verb, 2, told), error
        assert "Traceback" not in error
        assert "cannot be written" in error or "full" in error
        made = {path for path in tmp_path.rglob("*") if path.is_file()} - there
        kept = {path for path in made if path.name == "lock" or path.name.startswith("part-")}  # finished units
        assert made - kept == set(), verb
        code, _ = command(capsys, verb, *words, "--out", out)
        assert (verb, code) == (verb, 0)
        there = {path for path in tmp_path.rglob("*") if path.is_file()}


def test_wrong_columns_no_budget_and_clips_that_cannot_be_read(sounds, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("file_id,label\n1,dog\n")
    (tmp_path / "c.jsonl").write_text(json.dumps({"path": str(sounds / "hum/broken.wav"), "labels": ["hum"]}) + "\n")
    (tmp_path / "no-path.jsonl").write_text('{"labels": ["hum"]}\n')
    (tmp_path / "rows.jsonl").write_text('{"question": "?"}\n')
    before = sorted(path.name for path in tmp_path.iterdir())
    ask = ["generate", "c.jsonl", "--endpoint", "http://127.0.0.1:9/v1#m"]
    for words, what in (
        (["import", "t.csv"], "no column with the path; found: file_id, label"),
        (["describe", "no-path.jsonl"], "row 1 has no text 'path'"),
        (["describe", "c.jsonl"], "no clip can be measured"),
        (["filter", "rows.jsonl"], "no messages"),
        (["generate", "c.jsonl", "--task", "gander"], "did you mean 'gender'"),
        ([*ask, "--max-usd", "0", "--price-in", "1"], "budget of nothing"),
        ([*ask, "--max-tokens", "0"], "budget of nothing"),
        ([*ask, "--max-seconds", "0"], "budget of nothing"),
        ([*ask, "--prompt", "sownd"], "did you mean 'sound'"),
        (["mix", "lost.jsonl"], "no such file"),
        (["shard", "c.jsonl", "--read"], "shard"),
        (["explain", "9", "--in", "rows.jsonl"], "no row '9'"),
        (["stats", "lost.jsonl"], "no such file"),
        (["build", "fodler"], "did you mean 'folder'"),
    ):
        out = [] if words[0] in ("explain", "stats") else ["--out", "out.jsonl"]
        code, error = command(capsys, *words, *out)
        assert (words, code, len(error.strip().splitlines())) == (words, 2, 1)
        assert what in error, error
    left = {path.name for path in tmp_path.iterdir()} - set(before)
    assert left <= {"out.work"}  # what was found out about clips, to go on from


def test_options_of_open_questions_are_refused_without_a_model_and_nothing_is_overwritten(tmp_path, capsys):
    clips, out = tmp_path / "c.jsonl", tmp_path / "q.jsonl"
    clips.write_text(json.dumps({"path": "a.wav", "labels": ["hum"]}) + "\n")
    out.write_text("paid for\n")
    words = ["generate", clips, "--out", out]
    for more, named in (
        (["--dry-run"], "--dry-run"),
        (["--again"], "--again"),
        (["--prompt", "sound", "--pairs", 2], "--prompt, --pairs"),
        (["--max-usd", 1, "--max-tokens", 2, "--max-seconds", 3], "--max-usd, --max-tokens, --max-seconds"),
        (["--price-in", 1, "--price-out", 2], "--price-in, --price-out"),
        (["--at-once", 2, "--tries", 1, "--timeout", 1], "--at-once, --tries, --timeout"),
    ):
        code, error = command(capsys, *words, *more)
        assert (code, error) == (
            2,
            f"ossicle: error: {named} would change nothing without --endpoint; add it, or take them out\n",
        )
        assert out.read_text() == "paid for\n"
    assert command(capsys, *words, "--prompt", "auto", "--tries", 6)[0] == 0


def test_stats_count_and_draw(sounds, tmp_path, capsys):
    matplotlib = pytest.importorskip("matplotlib.image")
    clips, picture = tmp_path / "clips.jsonl", tmp_path / "pictures/labels.png"
    command(capsys, "import", sounds, "--out", clips, "--licence", "CC0")
    _, result = command(capsys, "stats", clips, "--picture", picture)
    assert result["licences"] == {"CC0": 25}
    assert result["labels"] == {"hum": 13, "hiss": 12}
    drawn = matplotlib.imread(picture)
    assert drawn.shape[0] > 300
    blue = (abs(drawn[..., :3] - (0.231, 0.431, 0.647)).max(-1) < 0.02).sum(1)  # the bars
    rows = np.flatnonzero(blue)
    assert len(rows) > 100
    assert run(["data", "stats", str(clips)]) == 0
    told = capsys.readouterr().out
    assert "labels (2): hum 13, hiss 12" in told
    assert "balance of labels: 1.00" in told


def test_features_are_kept_counted_and_checked(sounds, tmp_path, capsys, tiny_model):
    clips, questions = tmp_path / "c.jsonl", tmp_path / "q.jsonl"
    command(capsys, "import", sounds, "--out", clips)
    command(capsys, "describe", clips, "--out", tmp_path / "d.jsonl")
    command(capsys, "generate", tmp_path / "d.jsonl", "--out", questions, "--task", "label")
    words = ["cache", questions, "--model", tiny_model, "--out", tmp_path / "features", "--dtype", "int8"]
    _, planned = command(capsys, *words, "--dry-run")
    assert (planned["recordings"], planned["seconds"]) == (24, 18.0)
    assert planned["bytes"] > 1000
    assert not (tmp_path / "features").exists()
    _, made = command(capsys, *words)
    assert (made["kept"], made["new"], made["damaged"]) == (24, 24, 0)
    assert 0 < made["loss"]["sound"] < 0.02
    (shard,) = (tmp_path / "features").rglob("shard-*.safetensors")
    assert shard.stat().st_size == made["bytes"]
    _, again = command(capsys, *words)
    assert (again["kept"], again["new"]) == (24, 0)
    data = bytearray(shard.read_bytes())
    data[-20] ^= 0xFF
    shard.write_bytes(data)
    _, mended = command(capsys, *words, "--verify")
    assert (mended["damaged"], mended["new"], mended["kept"]) == (1, 1, 24)
    assert command(capsys, *words, "--verify")[1]["damaged"] == 0


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
