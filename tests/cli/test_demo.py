"""The demonstration end to end on a tiny model and two steps, and how an answer is held against the truth."""

from __future__ import annotations

import json

import pytest

from ossicle import demo
from ossicle.cli.app import run


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("A siren.", "a siren", True),
        ("I hear an alarm, then a siren.", "a siren", True),
        ("A woman.", "a man", False),
        ("Yes, there is a dog.", "yes", True),
        ("No, there is no dog.", "yes", False),
        ("There is no dog.", "no", True),
        ("3, 7", "three seven", True),
        ("Three seven five.", "three seven", False),
        ("Seven three.", "three seven", False),
        ("", "rain", False),
        ("", "no", False),
        ("Something.", "three", False),
    ],
)
def test_an_answer_is_held_against_the_truth(answer, truth, right):
    assert demo.agrees(answer, truth) is right


def test_the_demonstration_runs_whole(tiny_model, clip, tmp_path, capsys):
    quick = ["--set", "stages.0.steps=2", "--set", "data.sounds.samples=24", "--set", "stages.0.batch_size=4"]
    picture = tmp_path / "picture.png"
    code = run(["demo", str(clip), "--model", str(tiny_model), "--out", str(picture), "--json", *quick])
    out, err = capsys.readouterr()
    assert code == 0, err
    result = json.loads(out)
    assert set(result) >= {"answers", "training", "picture"}
    known = [row for row in result["answers"] if row["truth"] is not None]
    assert len(known) >= 12
    assert all({"question", "answer", "truth", "right"} <= set(row) for row in result["answers"])
    assert [row["clip"] for row in result["answers"] if row["truth"] is None] == [str(clip)] * 2
    assert {"first_loss", "last_loss", "before", "after"} <= set(result["training"])
    assert len(result["training"]["losses"]) == 2
    assert result["picture"] == str(picture)
    assert picture.read_bytes()[:4] == b"\x89PNG"


def test_what_to_type_next_is_the_last_thing_said(tiny_model, clip, tmp_path, capsys, monkeypatch):
    trained = demo.Trained(
        first_loss=3.0, last_loss=0.5, before="?", after="Rain.", question="Which?", truth="rain",
        right_before=0.0, right_after=0.9, seconds=1.0, losses=[3.0, 0.5],
    )  # fmt: skip
    monkeypatch.setattr(demo, "train_a_minute", lambda **_: trained)
    assert run(["demo", "--model", str(tiny_model), "--out", str(tmp_path / "p.png")]) == 0
    out = capsys.readouterr().out
    assert "✗" in out
    assert "(truth: " in out
    assert "0% → 90%" in out
    assert out[out.index("Next:") :].count("ossicle") >= 3


def test_a_recording_that_is_not_there_stops_before_any_work(tmp_path, capsys):
    assert run(["demo", str(tmp_path / "missing.wav")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
