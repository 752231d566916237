"""`ask` and `chat` on a tiny random model: what reaches stdout and what `--json` holds."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.cli.app import run


def _ask(capsys, *words):
    code = run(["ask", *map(str, words), "--max-new-tokens", "4"])
    out, err = capsys.readouterr()
    return code, out, err


def test_json_holds_what_the_contract_names(tiny_model, clip, capsys):
    code, out, err = _ask(capsys, clip, "what is it", "--model", tiny_model, "--json", "--device", "cpu")
    assert code == 0, err
    result = json.loads(out)
    assert {"answer", "model", "audio", "timing_s"} <= set(result)
    assert "answers" not in result
    (audio,) = result["audio"]
    assert audio["path"] == str(clip)
    assert audio["duration_s"] == 1.0
    assert audio["tokens"] > 0
    assert audio["truncated"] is False
    assert set(result["timing_s"]) == {"load", "encode", "prefill", "decode"}
    assert err.count("device cpu") == 1


def test_several_clips_give_several_answers(tiny_model, clip, capsys):
    shutil.copy(clip, clip.with_name("b.wav"))
    clip.with_name("c.wav").write_bytes(b"no audio at all")
    code, out, err = _ask(capsys, clip.parent, "--model", tiny_model, "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [row["path"].rsplit("/", 1)[-1] for row in result["answers"]] == ["b.wav", "tone.wav"]
    assert result["answers"][0]["answer"] == result["answers"][1]["answer"]
    assert len(result["audio"]) == 2
    assert len(result["skipped"]) == 1
    assert "skipped" in err


def test_text_is_the_answer_alone(tiny_model, clip, capsys):
    code, out, _ = _ask(capsys, clip, "--model", tiny_model)
    assert code == 0
    assert out.count("\n") == 1
    shutil.copy(clip, clip.with_name("b.wav"))
    _, out, _ = _ask(capsys, clip, clip.with_name("b.wav"), "--model", tiny_model)
    assert [line.split(": ")[0].rsplit("/", 1)[-1] for line in out.splitlines()] == ["tone.wav", "b.wav"]


def test_a_truncated_file_is_answered_with_one_warning(tiny_model, clip, capsys):
    damaged = clip.with_name("damaged.wav")
    damaged.write_bytes(clip.read_bytes()[:16044])
    code, out, err = _ask(capsys, damaged, "--model", tiny_model, "--json")
    assert code == 0
    assert json.loads(out)["audio"][0]["truncated"] is True
    assert sum("damaged" in line for line in err.splitlines()) == 1


@pytest.mark.parametrize("what", ["missing.wav", "text.wav", "empty.wav"])
def test_what_is_no_recording_is_one_line_and_two(tiny_model, tmp_path, capsys, what):
    (tmp_path / "text.wav").write_text("this is no audio " * 50)
    (tmp_path / "empty.wav").write_bytes(b"")
    code, out, err = _ask(capsys, tmp_path / what, "What?", "--model", tiny_model)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert what in err


@pytest.mark.parametrize("option", [["--model", "no-such-folder"], ["--device", "abacus"], ["--dtype", "fp3"]])
def test_wrong_options_are_one_line_and_two(clip, tiny_model, capsys, option):
    model = [] if "--model" in option else ["--model", tiny_model]
    code, out, err = _ask(capsys, clip, "What?", *model, *option)
    assert code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert option[1] in err


def test_a_conversation_is_streamed_turn_by_turn(tiny_model, clip, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("what is it\nand then\n\nnever asked\n"))
    assert run(["chat", str(clip), "--model", str(tiny_model), "--max-new-tokens", "4"]) == 0
    out, err = capsys.readouterr()
    assert out.count("\n") == 2
    assert "tone.wav (1.0 s)" in err


def test_trace_and_when_are_in_the_json_and_readable(tiny_model, clip, capsys):
    code, out, err = _ask(capsys, clip, "what", "--model", tiny_model, "--trace", "--when", "--json")
    assert code == 0, err
    result = json.loads(out)
    assert [row["name"] for row in result["trace"]["streams"]] == ["sound", "gist"]
    assert sum(row["tokens"] for row in result["trace"]["streams"]) == result["audio"][0]["tokens"]
    (second,) = result["when"]["seconds"]
    assert (second["start_s"], second["end_s"]) == (0.0, 1.0)
    _, out, _ = _ask(capsys, clip, "what", "--model", tiny_model, "--trace", "--when")
    assert "sound: cnn → mlp → attend" in out


def test_a_folder_is_answered_into_a_file_and_taken_up_where_it_ended(tiny_model, clip, capsys):
    into = clip.parent / "out" / "answers.jsonl"
    for name in ("b.wav", "d.wav"):
        shutil.copy(clip, clip.with_name(name))
    clip.with_name("c.wav").write_bytes(b"no audio at all")
    words = (clip.parent, "what is it", "--model", tiny_model, "--output", into)
    code, out, err = _ask(capsys, *words)
    assert code == 0 and out.startswith("3 answers written") and "1 skipped" in out, err
    rows = [json.loads(line) for line in into.read_text().splitlines()]
    assert [row["path"].rsplit("/", 1)[-1] for row in rows] == ["b.wav", "d.wav", "tone.wav"]
    assert all(row["question"] == "what is it" and "answer" in row for row in rows)
    # killed in the middle of the third line: two stand, the third is asked again
    whole = into.read_bytes()
    rows_of_two = b"".join(whole.splitlines(keepends=True)[:2]).decode()
    into.write_bytes(whole[:-25])
    code, out, _ = _ask(capsys, *words, "--json")
    told = json.loads(out)
    assert code == 0 and (told["answered"], told["before"], len(told["skipped"])) == (1, 2, 1)
    assert {"answer", "model", "audio", "timing_s"} <= set(told) and into.read_bytes() == whole
    # another question is another answer; what is no file of answers is left alone
    assert json.loads(_ask(capsys, clip, "how long", *words[2:], "--json")[1])["answered"] == 1
    into.write_text("mine\n")
    code, out, err = _ask(capsys, *words)
    assert code == 2 and "line 1" in err.splitlines()[-1] and into.read_text() == "mine\n"
    for text in ("mine", rows_of_two + "mine"):  # a last line without an end is cut off only where it is an answer's
        into.write_text(text)
        code, out, err = _ask(capsys, *words)
        assert code == 2 and "its last line is not an answer" in err.splitlines()[-1] and into.read_text() == text
    for place in (clip.parent, Path("/dev/null")):
        code, out, err = _ask(capsys, *words[:-1], place)
        assert code == 2 and "is no file" in err.splitlines()[-1]
    assert _ask(capsys, *words, "--when")[0] == 2


def test_when_draws_a_picture_of_one_clip(tiny_model, clip, tmp_path, capsys):
    picture = tmp_path / "when.svg"
    code, out, err = _ask(capsys, clip, "--model", tiny_model, "--when", "--picture", str(picture), "--json")
    assert code == 0 and json.loads(out)["picture"] == str(picture), err
    drawn = picture.read_text()
    assert drawn.startswith("<svg") and "muting it costs" in drawn and "data:image/png" in drawn
    for words in ([clip], [clip, clip, "--when"], [clip, "--when", "--picture", "x.png"]):
        words = words if "--picture" in words else [*words, "--picture", str(picture)]
        code, _, err = _ask(capsys, *words, "--model", tiny_model)
        assert code == 2 and len(err.strip().splitlines()) == 1 and "--picture" in err


def test_of_a_long_recording_it_is_told_what_was_heard(clip, tmp_path, capsys):
    noise = np.random.default_rng(0).normal(0, 0.01, 16000 * 70)
    noise[16000 * 65 : 16000 * 66] = np.sin(np.arange(16000) / 3)
    soundfile.write(tmp_path / "long.wav", noise, 16000)
    code, out, err = _ask(capsys, tmp_path / "long.wav", "what is it", "--device", "cpu")
    assert code == 0, err
    assert "heard what stands out: " in out
    code, out, _ = _ask(capsys, tmp_path / "long.wav", clip, "what is it", "--json", "--device", "cpu")
    long, short = json.loads(out)["audio"]
    assert any(start <= 65 and end >= 66 for start, end in long["heard_s"])
    assert sum(end - start for start, end in long["heard_s"]) == 12.0
    assert "heard_s" not in short


def test_a_name_that_is_not_utf8_is_answered_and_found_again(tiny_model, tmp_path, capsys):
    """Names of files are any bytes; from an old zip they are often Latin-1."""
    folder = tmp_path / "clips"
    folder.mkdir()
    soundfile.write(folder / "plain.wav", np.zeros(4000), 16000)
    shutil.copy(folder / "plain.wav", folder / os.fsdecode(b"caf\xe9.wav"))
    asked = ["ask", str(folder), "What is it?", "--model", str(tiny_model), "--max-new-tokens", "2"]
    assert run([*asked, "--json"]) == 0
    names = {Path(row["path"]).name for row in json.loads(capsys.readouterr().out)["answers"]}
    assert names == {os.fsdecode(b"caf\xe9.wav"), "plain.wav"}
    for _ in range(2):  # the second time it knows both
        assert run([*asked, "--output", str(tmp_path / "a.jsonl")]) == 0
    rows = [json.loads(line) for line in (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {Path(row["path"]).name for row in rows} == names and len(rows) == 2
