"""Which words are audio, which is the question, and what happens to files that cannot be read."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
import soundfile

from ossicle.cli.clips import QUESTION, read_clips, split_question
from ossicle.errors import UserError


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many" / "deep").mkdir(parents=True)
    samples = np.sin(np.arange(1600) / 5).astype(np.float32) / 2
    for name in ("a.wav", "b c.flac", "odd-name", "many/1.wav", "many/deep/2.wav"):
        soundfile.write(tmp_path / name, samples, 16000, format="flac" if name.endswith("flac") else "wav")
    (tmp_path / "many" / "notes.txt").write_text("no audio")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "audio", "question"),
    [
        (["a.wav"], ["a.wav"], QUESTION),
        (["a.wav", "How many?"], ["a.wav"], "How many?"),
        (["a.wav", "b c.flac"], ["a.wav", "b c.flac"], QUESTION),
        (["a.wav", "missing.MP3"], ["a.wav", "missing.MP3"], QUESTION),
        (["a.wav", "odd-name"], ["a.wav", "odd-name"], QUESTION),
        (["many"], ["many"], QUESTION),
        (["many/*.wav"], ["many/*.wav"], QUESTION),
        (["many/*.wav", "What [is] it?"], ["many/*.wav"], "What [is] it?"),
        (["-"], ["-"], QUESTION),
        (["-", "What?"], ["-"], "What?"),
        (["a.wav", "long " * 100 + "question?"], ["a.wav"], "long " * 100 + "question?"),
    ],
)
def test_the_last_word_is_the_question_unless_it_is_audio(folder, words, audio, question):
    assert split_question(words) == (audio, question)


@pytest.mark.parametrize("words", [["What do you hear?"], ["a.wav", " "], ["a.wav", ""], [""], ["nothing"]])
def test_no_audio_or_no_question_is_an_error(folder, words):
    with pytest.raises(UserError):
        split_question(words)


def test_files_folders_globs_and_stdin(folder, monkeypatch):
    assert [w.name.rsplit("/", 1)[-1] for w in read_clips(["a.wav", "many"]).waveforms] == ["a.wav", "1.wav", "2.wav"]
    assert len(read_clips(["many/**/*.wav"]).waveforms) == 2
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((folder / "a.wav").read_bytes())))
    (clip,) = read_clips(["-"]).waveforms
    assert clip.name == "-"
    assert len(clip.samples) == 1600


def test_a_named_file_must_be_readable_and_one_among_many_is_reported(folder):
    (folder / "many" / "broken.wav").write_bytes(b"RIFF")
    clips = read_clips(["many"])
    assert len(clips.waveforms) == 2
    assert [row["path"] for row in clips.skipped] == ["many/broken.wav"]
    for words in (["many/broken.wav"], ["missing.wav"], ["a.wav", "missing.wav"], ["no-folder/*.wav"]):
        with pytest.raises(UserError):
            read_clips(words)
    (folder / "empty").mkdir()
    with pytest.raises(UserError, match="holds no recordings"):
        read_clips(["empty"])
