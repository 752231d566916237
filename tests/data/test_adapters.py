"""Layouts of datasets: each reader on a miniature of the official layout, and what is counted when it does not fit."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import soundfile

from ossicle.data.adapters.table import find, read, shipped
from ossicle.data.imports import import_clips
from ossicle.data.rows import Tally, read_clips
from ossicle.errors import ConfigError, DataError


def sound(path, seconds=0.1):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.zeros(int(16000 * seconds), np.float32), 16000)
    return path


def text(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def clips_of(name, root):
    tally = Tally()
    return list(read(root, find(name), tally)), tally


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_layout_names_its_page_and_says_whether_it_was_read(name):
    layout = find(name)
    assert layout.name == name
    assert layout.about
    assert layout.page.startswith("http")
    assert layout.layout in ("verified", "unverified")


def test_esc10_takes_the_ten_classes_and_counts_a_lost_recording(tmp_path):
    header = "filename,fold,target,category,esc10,src_file,take\n"
    rows = "a.wav,1,0,dog,True,100,A\nb.wav,2,1,sea_waves,True,101,A\n"
    rows += "c.wav,1,2,cow,False,102,A\nd.wav,1,0,dog,True,103,A\n"
    text(tmp_path / "meta/esc50.csv", header + rows)
    for name in "abc":
        sound(tmp_path / f"audio/{name}.wav")
    clips, tally = clips_of("esc10", tmp_path)
    assert [clip.labels for clip in clips] == [("dog",), ("sea waves",)]
    assert clips[1].group == "fold 2"
    assert clips[0].recording == "freesound 100"
    assert clips[0].licence == "CC BY 3.0"
    assert tally.report()["skipped"] == {"no recording": 1}


def test_audioset_labels_are_looked_up_and_any_suffix_is_found(tmp_path):
    text(tmp_path / "balanced_train_segments.csv", '# YTID\n# a\nxyz, 30.000, 40.000, "/m/a,/m/b"\n')
    text(tmp_path / "class_labels_indices.csv", 'index,mid,display_name\n0,/m/a,"Speech"\n1,/m/b,"Dog, bark"\n')
    sound(tmp_path / "audio/xyz.flac")
    (clip,), _ = clips_of("audioset", tmp_path)
    assert clip.labels == ("Speech", "Dog, bark")
    assert clip.recording == "youtube xyz"


def test_readers_in_code_on_miniatures(tmp_path):
    text(tmp_path / "l/SPEAKERS.TXT", ";ID |SEX\n84 | F | dev-clean | 8 | A B\n")
    sound(tmp_path / "l/dev-clean/84/1/84-1-0000.flac")
    text(tmp_path / "l/dev-clean/84/1/84-1.trans.txt", "84-1-0000 HELLO THERE\n84-1-0001 LOST\n")
    clips, tally = clips_of("librispeech", tmp_path / "l")
    assert (clips[0].transcript, clips[0].gender, clips[0].speaker) == ("HELLO THERE", "female", "84")
    assert tally.skipped == {"no recording": 1}

    sound(tmp_path / "e/wav/03a01Fa.wav")
    sound(tmp_path / "e/wav/nonsense.wav")
    clips, tally = clips_of("emodb", tmp_path / "e")
    assert (clips[0].emotion, clips[0].age, clips[0].gender) == ("happiness", "31", "male")
    assert tally.skipped == {"name does not fit the layout": 1}

    session = tmp_path / "i/Session1"
    sound(session / "sentences/wav/Ses01F_impro01/Ses01F_impro01_F000.wav")
    judged = (
        "[6.29 - 8.23]\tSes01F_impro01_F000\tneu\t[2.5, 2.5, 2.5]\n[9.0 - 9.5]\tSes01F_impro01_M000\txxx\t[1, 1, 1]\n"
    )
    text(session / "dialog/EmoEvaluation/Ses01F_impro01.txt", judged)
    text(session / "dialog/transcriptions/Ses01F_impro01.txt", "Ses01F_impro01_F000 [006.2901-008.2357]: Excuse me.\n")
    clips, tally = clips_of("iemocap", tmp_path / "i")
    assert (clips[0].emotion, clips[0].transcript, clips[0].group) == ("neutral", "Excuse me.", "Session1")
    assert tally.skipped == {"emotion not agreed": 1}

    text(
        tmp_path / "f/fma_metadata/tracks.csv",
        ",artist,set,track,track,track\n,id,split,genre_top,title,license\n"
        "track_id,,,,,\n2,7,training,Rock,Song,CC BY\n",
    )
    sound(tmp_path / "f/fma_small/000/000002.wav")
    (clip,), _ = clips_of("fma", tmp_path / "f")
    assert (clip.genres, clip.title, clip.licence, clip.group) == (("Rock",), "Song", "CC BY", "7")

    text(tmp_path / "s/audioset_train_strong.tsv", "segment_id\tstart_time_seconds\tend_time_seconds\tlabel\n"
         "v_30000\t2.0\t3.0\t/m/b\nv_30000\t0.5\t1.0\t/m/a\n")  # fmt: skip
    text(tmp_path / "s/mid_to_display_name.tsv", "/m/a\tDog\n/m/b\tBell\n")
    sound(tmp_path / "s/audio/v_30000.wav")
    (clip,), _ = clips_of("audioset_strong", tmp_path / "s")
    assert clip.events == (("Dog", 0.5, 1.0), ("Bell", 2.0, 3.0))
    assert clip.recording == "youtube v"


def test_generic_places_are_told_apart(tmp_path):
    sound(tmp_path / "folders/dog_bark/a.wav")
    sound(tmp_path / "folders/rain/a.wav")
    table = tmp_path / "folders/table.csv"
    table.write_text("path,labels,age\ndog_bark/a.wav,dog; loud,5\nlost.wav,x,1\n")
    out = tmp_path / "out.jsonl"
    import_clips(tmp_path / "folders", out, licence="CC0")
    clips = list(read_clips(out))
    assert [clip.labels for clip in clips] == [("dog bark",), ("rain",)]
    assert len({clip.key for clip in clips}) == 2  # both files are called a.wav
    assert clips[0].licence == "CC0"
    _, tally = import_clips(table, out, source="mine")
    (clip,) = read_clips(out)
    assert (clip.labels, clip.age, clip.source) == (("dog", "loud"), "5", "mine")
    assert tally.report()["skipped"] == {"no recording": 1}


def test_formats_of_other_tools(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    data = sound(tmp_path / "x.wav").read_bytes()
    shard = tmp_path / "hf/train.parquet"
    shard.parent.mkdir()
    audio = [{"bytes": data, "path": "x.wav"}]
    parquet.write_table(pyarrow.table({"audio": audio, "sentence": ["hi"], "gender": ["male"]}), shard)
    (clip,), _ = clips_of("hf", tmp_path / "hf")
    assert (clip.transcript, clip.gender, clip.read().duration_s) == ("hi", "male", pytest.approx(0.1))

    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        text(tmp_path / "k.json", json.dumps({"label": "rain", "start_s": 0}))
        tar.add(tmp_path / "x.wav", "k.wav")
        tar.add(tmp_path / "k.json", "k.json")
    (clip,), _ = clips_of("webdataset", tmp_path / "shard.tar")
    assert clip.labels == ("rain",)

    cut = {"id": "c", "start": 0.02, "duration": 0.05, "supervisions": [{"text": "yes", "speaker": "s"}],
           "recording": {"duration": 0.1, "sources": [{"type": "file", "source": "x.wav"}]}}  # fmt: skip
    text(tmp_path / "cuts.jsonl", json.dumps(cut))
    (clip,), _ = clips_of("lhotse", tmp_path / "cuts.jsonl")
    assert (clip.transcript, clip.speaker, clip.start_s, clip.read().duration_s) == ("yes", "s", 0.02, 0.05)


def test_bad_places_are_one_line_and_leave_nothing(tmp_path):
    out = tmp_path / "out.jsonl"
    with pytest.raises(DataError, match="no such file or folder"):
        import_clips(tmp_path / "nowhere", out)
    text(tmp_path / "t.csv", "file_id,label\n1,dog\n")
    with pytest.raises(DataError, match="no column with the path"):
        import_clips(tmp_path / "t.csv", out)
    text(tmp_path / "meta/esc50.csv", "name,fold\na,1\n")
    with pytest.raises(DataError, match="no column 'filename'"):
        import_clips(tmp_path, out, adapter="esc50")
    with pytest.raises(ConfigError, match="did you mean 'esc50'"):
        import_clips(tmp_path, out, adapter="esc5")
    assert not list(tmp_path.glob("out*"))
