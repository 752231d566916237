"""Layouts of datasets: each reader on a miniature of the official layout, and what is counted when it does not fit."""

from __future__ import annotations

import json
import tarfile

import numpy as np
import pytest
import soundfile

from ossicle.data.adapters.generic import guess
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


MINIATURES = {
    "audiocaps": (
        {"train.csv": "audiocap_id,youtube_id,start_time,caption\n1,v,30,A dog barks.\n"}, "audio/v.wav",
        {"captions": ("A dog barks.",), "split": "train", "recording": "youtube v"},
    ),
    "audioset": (
        {"eval_segments.csv": '# YTID\nv, 30.000, 40.000, "/m/a"\n',
         "class_labels_indices.csv": "index,mid,display_name\n0,/m/a,Speech\n"}, "audio/v.flac",
        {"labels": ("Speech",), "recording": "youtube v"},
    ),
    "clotho": (
        {"clotho_captions_development.csv": "file_name,caption_1,caption_2,caption_3,caption_4,caption_5\n"
         "a b.wav,One.,Two.,Three.,Four.,Five.\n"}, "development/a b.wav",
        {"captions": ("One.", "Two.", "Three.", "Four.", "Five.")},
    ),
    "cmu_mosei": (
        {"labels.csv": "video,start,end,text,sentiment,emotion\nv,0.02,0.08,I like it,2.0,happiness\n"},
        "audio/v.wav",
        {"transcript": "I like it", "sentiment": "2.0", "emotion": "happiness", "start_s": 0.02, "duration_s": 0.06},
    ),
    "esc50": (
        {"meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\na.wav,1,0,sea_waves,True,100,A\n"},
        "audio/a.wav", {"labels": ("sea waves",), "group": "fold 1", "recording": "freesound 100"},
    ),
    "freesound": (
        {"fsd_final.json": '{"num_captions": 1, "data": [{"id": "7", "caption": "Rain."}]}'}, "audio/7.flac",
        {"captions": ("Rain.",), "recording": "freesound 7"},
    ),
    "fsd50k": (
        {"FSD50K.ground_truth/dev.csv": 'fname,labels,mids,split\n64760,"Electric_guitar,Music","/m/a,/m/b",train\n'},
        "FSD50K.dev_audio/64760.wav",
        {"labels": ("Electric guitar", "Music"), "split": "train", "recording": "freesound 64760"},
    ),
    "fsdd": ({}, "recordings/7_jackson_3.wav", {"transcript": "seven", "speaker": "jackson", "language": "en"}),
    "gtzan": ({}, "genres/hiphop/hiphop.00000.au", {"genres": ("hip-hop",)}),
    "libritts": (
        {"speakers.tsv": "READER\tGENDER\tSUBSET\tNAME\n14\tF\ttrain-clean-360\tK\n",
         "dev-clean/14/208/14_208_1.normalized.txt": "Hello there."}, "dev-clean/14/208/14_208_1.wav",
        {"transcript": "Hello there.", "gender": "female", "speaker": "14", "split": "dev-clean"},
    ),
    "ravdess": (
        {}, "Actor_12/03-01-05-02-01-01-12.wav",
        {"emotion": "anger", "transcript": "Kids are talking by the door", "speaker": "actor_12"},
    ),
    "soundbible": (
        {"sb_final.json": '{"data": [{"id": "9", "caption": "A bell.", "title": "Bell"}]}'}, "audio/9.wav",
        {"captions": ("A bell.",), "title": "Bell", "recording": "soundbible 9"},
    ),
    "vggsound": (
        {"vggsound.csv": "v,30,dog barking,train\n"}, "audio/v_30.wav",
        {"labels": ("dog barking",), "split": "train", "recording": "youtube v"},
    ),
    "vocalsound": ({}, "audio_16k/f0003_0_throatclearing.wav", {"labels": ("throat clearing",), "gender": "female"}),
    "voxceleb2": (
        {"vox2_meta.csv": "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid00012 ,n000012 ,m ,dev \n",
         "final_dataframe_extended.csv": "Name,video_id,VoxCeleb_ID,speaker_age\nX,vid,id00012,41.0\n"},
        "dev/aac/id00012/vid/00001.wav",
        {"gender": "male", "age": "41", "speaker": "id00012", "split": "dev", "recording": "youtube vid"},
    ),
}  # fmt: skip
"""Layout → tables as the owner publishes them, one recording, and what its clip says."""


@pytest.mark.parametrize("name", MINIATURES)
def test_a_miniature_of_the_official_layout(name, tmp_path):
    tables, recording, expected = MINIATURES[name]
    for place, content in tables.items():
        text(tmp_path / place, content)
    (tmp_path / recording).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(tmp_path / recording, np.zeros(1600, np.float32), 16000)
    (clip,), tally = clips_of(name, tmp_path)
    assert {field: getattr(clip, field) for field in expected} == expected
    assert clip.source == name
    assert (clip.path.is_file(), tally.taken, tally.given) == (True, 1, 1)


def test_every_shipped_layout_has_a_miniature():
    in_code = {"emodb", "esc10", "fma", "iemocap", "librispeech", "audioset_strong"}  # in the tests above
    assert set(MINIATURES) | in_code == set(shipped())


def test_voxceleb2_without_ages_and_ages_that_are_none(tmp_path):
    text(tmp_path / "vox2_meta.csv", "VoxCeleb2 ID ,VGGFace2 ID ,Gender ,Set \nid1 ,n ,f ,test \n")
    for video in ("a", "b"):
        sound(tmp_path / f"test/aac/id1/{video}/00001.wav")
    assert [clip.age for clip in clips_of("voxceleb2", tmp_path)[0]] == [None, None]
    rows = "Name,video_id,VoxCeleb_ID,speaker_age\nX,a,id1,nan\nX,b,id1,63.0\n"
    text(tmp_path / "final_dataframe_extended.csv", rows)
    assert [clip.age for clip in clips_of("voxceleb2", tmp_path)[0]] == [None, "63"]
    import_clips(tmp_path, tmp_path / "out.jsonl", adapter="voxceleb2")
    clips = list(read_clips(tmp_path / "out.jsonl"))
    assert len({clip.key for clip in clips}) == 2  # both files are called 00001
    assert {clip.source for clip in clips} == {"voxceleb2"}


def test_generic_places_are_told_apart(tmp_path):
    sound(tmp_path / "folders/dog_bark/a.wav")
    sound(tmp_path / "folders/rain/a.wav")
    table = tmp_path / "folders/table.csv"
    table.write_text("path,labels,age\ndog_bark/a.wav,dog; loud,5\nlost.wav,x,1\n")
    out = tmp_path / "out.jsonl"
    layout, _ = import_clips(tmp_path / "folders", out, licence="CC0")
    assert layout.name == "folders"
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
    (clip,), _ = clips_of(guess(tmp_path / "hf"), tmp_path / "hf")
    assert (clip.transcript, clip.gender, clip.split) == ("hi", "male", "train")
    assert clip.read().duration_s == pytest.approx(0.1)

    names = {"info": {"features": {"label": {"names": ["cat", "dog"], "_type": "ClassLabel"}}}}
    table = pyarrow.table({"audio": [*audio, None], "label": [1, 0]})
    table = table.replace_schema_metadata({"huggingface": json.dumps(names)})
    (tmp_path / "saved").mkdir()
    with pyarrow.ipc.new_stream(tmp_path / "saved/data-00000-of-00001.arrow", table.schema) as stream:
        stream.write_table(table)  # as `Dataset.save_to_disk` leaves it
    (clip,), tally = clips_of(guess(tmp_path / "saved"), tmp_path / "saved")
    assert (clip.labels, clip.read().duration_s) == (("dog",), pytest.approx(0.1))
    assert tally.skipped == {"no audio bytes in the row, and no such file": 1}

    for split, seconds in (("train", 0.1), ("test", 0.2)):  # two splits whose shards have one name
        data = sound(tmp_path / "x.wav", seconds).read_bytes()
        rows = pyarrow.table({"audio": [{"bytes": data, "path": "x.wav"}], "label": [split]})
        (tmp_path / "both" / split).mkdir(parents=True)
        parquet.write_table(rows, tmp_path / f"both/{split}/0000.parquet")
    clips, _ = clips_of("hf", tmp_path / "both")
    assert sorted((clip.split, clip.labels[0], round(clip.read().duration_s, 3)) for clip in clips) == [
        ("test", "test", 0.2),
        ("train", "train", 0.1),
    ]

    for split in ("train", "test"):
        sound(tmp_path / f"folder/{split}/a.wav")
        text(tmp_path / f"folder/{split}/metadata.csv", "file_name,transcription\na.wav,hello\n")
    clips, _ = clips_of(guess(tmp_path / "folder"), tmp_path / "folder")
    assert [(clip.split, clip.transcript) for clip in clips] == [("test", "hello"), ("train", "hello")]

    with tarfile.open(tmp_path / "shard.tar", "w") as tar:
        text(tmp_path / "k.json", json.dumps({"label": "rain", "start_s": 0}))
        tar.add(tmp_path / "x.wav", "k.wav")
        tar.add(tmp_path / "k.json", "k.json")
    (clip,), _ = clips_of("webdataset", tmp_path / "shard.tar")
    assert clip.labels == ("rain",)
    with tarfile.open(tmp_path / "speakers.tar", "w") as tar:
        tar.add(tmp_path / "x.wav", "spk1/001.wav")
        tar.add(tmp_path / "x.wav", "spk2/001.wav")
        tar.add(tmp_path / "k.json", "spk2/001.json")
    clips, _ = clips_of("webdataset", tmp_path / "speakers.tar")
    assert [clip.labels for clip in clips] == [(), ("rain",)]

    cut = {"id": "c", "start": 0.02, "duration": 0.05, "supervisions": [{"text": "yes", "speaker": "s"}],
           "recording": {"duration": 0.1, "sources": [{"type": "file", "source": "x.wav"}]}}  # fmt: skip
    text(tmp_path / "cuts.jsonl", json.dumps(cut))
    assert guess(tmp_path / "shard.tar") == "webdataset"
    (clip,), _ = clips_of(guess(tmp_path / "cuts.jsonl"), tmp_path / "cuts.jsonl")
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
