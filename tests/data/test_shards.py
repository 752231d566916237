"""Shards: the same bytes for the same rows, spans cut, read by WebDataset itself."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.data.rows import Tally
from ossicle.data.shards import read_shards, write_shards
from ossicle.errors import DataError


@pytest.fixture
def rows(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 16000, dtype=np.float32), 16000)
    whole, span = str(tmp_path / "a.wav"), {"path": str(tmp_path / "a.wav"), "start_s": 0.25, "end_s": 0.5}
    turns = [{"role": "user", "content": "<audio>What?"}, {"role": "assistant", "content": "A ramp."}]
    audios = [[whole], [span], [whole], [whole, whole], [str(tmp_path / "lost.wav")]]
    return [{"id": str(n), "messages": turns, "audios": audio} for n, audio in enumerate(audios)]


def test_written_and_read(rows, tmp_path):
    tally = Tally()
    paths = write_shards(rows, tmp_path / "shards", tally, megabytes=0.001)
    assert (tally.taken, tally.given) == (5, 3)
    assert tally.skipped == {"not one recording": 1, "recording cannot be read": 1}
    assert len(paths) == 2  # the first one is full after one recording
    first = [path.read_bytes() for path in paths]
    assert [path.read_bytes() for path in write_shards(rows, tmp_path / "shards", Tally(), megabytes=0.001)] == first
    back = {row["id"]: row for row in read_shards(tmp_path / "shards", tmp_path / "unpacked")}
    assert set(back) == {"0", "1", "2"}
    assert back["0"]["audios"] == back["2"]["audios"]
    assert soundfile.info(back["1"]["audios"][0]).frames == 4000
    write_shards(rows, tmp_path / "shards", Tally())
    assert len(list((tmp_path / "shards").iterdir())) == 1  # shards of an earlier, finer cut are gone


def test_what_was_cut_short_or_is_of_another_recording_is_unpacked_again(rows, tmp_path):
    def unpacked():
        write_shards(rows[:1], tmp_path / "shards", Tally())
        (row,) = read_shards(tmp_path / "shards", tmp_path / "unpacked")
        return Path(row["audios"][0])

    first = unpacked()
    whole = first.read_bytes()
    first.write_bytes(whole[:100])  # as a process that was killed leaves it
    assert unpacked().read_bytes() == whole
    soundfile.write(tmp_path / "a.wav", np.linspace(0.5, -0.5, 16000, dtype=np.float32), 16000)
    again = unpacked().read_bytes()
    assert again == (tmp_path / "a.wav").read_bytes() != whole
    assert len(again) == len(whole)


def test_webdataset_reads_them(rows, tmp_path):
    pytest.importorskip("webdataset")
    from webdataset.tariterators import group_by_keys, tar_file_iterator

    (path,) = write_shards(rows[:2], tmp_path / "shards", Tally())
    with path.open("rb") as file:
        files = ({**found, "__url__": str(path)} for found in tar_file_iterator(file))
        samples = list(group_by_keys(files))
    assert [json.loads(sample["json"])["samples"][0]["id"] for sample in samples] == ["0", "1"]
    assert {key for sample in samples for key in sample if not key.startswith("__")} == {"wav", "flac", "json"}


def test_foreign_shards_and_nothing_to_write_are_one_line(tmp_path):
    with pytest.raises(DataError, match="nothing to write"):
        write_shards([], tmp_path / "none", Tally())
    with pytest.raises(DataError, match="expected what"):
        list(read_shards(tmp_path, tmp_path))
    (tmp_path / "k.json").write_text("{}")
    with tarfile.open(tmp_path / "shard-00000.tar", "w") as tar:
        tar.add(tmp_path / "k.json", "k.json")
    with pytest.raises(DataError, match="has no recording"):
        list(read_shards(tmp_path, tmp_path))
