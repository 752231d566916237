"""Manifests of other tools give our samples, and a bad row is named, counted and bounded."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ossicle.data.readers import MessagesConfig, MessagesSource
from ossicle.data.sample import AudioRef, Sample, waveform
from ossicle.data.source import SourceContext
from ossicle.errors import DataError

GOOD = {
    "messages": [{"role": "user", "content": "<audio>What?"}, {"role": "assistant", "content": "Rain."}],
    "audios": ["a.wav"],
}


def source(folder: Path, rows: list[Any], name: str = "m.jsonl", **settings: Any) -> MessagesSource:
    (folder / "a.wav").touch()
    (folder / "b.wav").touch()
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    if name.endswith(".json"):
        text = json.dumps(rows)
    content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (folder / name).write_bytes(content)
    return MessagesSource(MessagesConfig(path=name, **settings), SourceContext(folder=folder))


def turns(sample: Sample) -> list[str]:
    return [turn["content"] for turn in sample.messages]


@pytest.mark.parametrize(
    "row",
    [
        GOOD,
        {"messages": GOOD["messages"], "audio": "a.wav"},
        {
            "conversations": [{"from": "human", "value": "<audio>What?"}, {"from": "gpt", "value": "Rain."}],
            "audios": ["a.wav"],
        },
        {
            "messages": [
                {"role": "user", "content": [{"type": "audio", "path": "a.wav"}, {"type": "text", "text": "What?"}]},
                {"role": "assistant", "content": [{"type": "text", "text": "Rain."}]},
            ]
        },
        {"instruction": "What?", "input": "", "audio_id": "a.wav", "dataset": "d", "task": "t", "output": "Rain."},
        {"key": "k", "source": "a.wav", "target": "Rain.", "prompt": "What?"},
        {
            "id": "1",
            "sound": "a.wav",
            "duration": 2.5,
            "conversations": [{"from": "human", "value": "<sound>\nWhat?"}, {"from": "gpt", "value": "Rain."}],
        },
        {"index": 0, "audio_path": "a.wav", "question": "What?", "answer": "Rain."},
        {"audio_filepath": "a.wav", "duration": 2.5, "text": "Rain.", "question": "What?"},
        {"audio": "a.wav", "question": "What?", "answer": "Rain."},
    ],
)
def test_every_style_gives_the_same_sample(tmp_path: Path, row: dict[str, Any]) -> None:
    read = source(tmp_path, [row])
    sample = read.sample(0)
    assert turns(sample) == ["<audio>What?", "Rain."]
    assert [turn["role"] for turn in sample.messages] == ["user", "assistant"]
    assert sample.audios == (AudioRef(path=tmp_path / "a.wav"),)
    assert sample.id == "m.jsonl:1"
    assert read.duration_s(0) == row.get("duration", 0.0)


def test_an_answer_may_be_the_number_0(tmp_path: Path) -> None:
    read = source(tmp_path, [{"audio": "a.wav", "question": "How many?", "answer": 0, "text": ""}])
    assert turns(read.sample(0)) == ["<audio>How many?", "0"]


@pytest.mark.parametrize("name", ["m.jsonl", "m.json", "m.jsonl.gz"])
def test_rows_are_found_again_in_every_container(tmp_path: Path, name: str) -> None:
    rows = [{"key": str(i), "source": "a.wav", "target": f"Ünit {i}"} for i in range(5)]
    read = source(tmp_path, rows, name)
    assert len(read) == 5
    assert [turns(read.sample(i))[1] for i in (4, 0, 2)] == ["Ünit 4", "Ünit 0", "Ünit 2"]


def test_rows_of_hugging_face_files_bring_their_recordings(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as tables

    soundfile.write(tmp_path / "x.wav", np.zeros(1600, np.float32), 16000)
    audio = [{"bytes": (tmp_path / "x.wav").read_bytes(), "path": "x.wav"}] * 2
    asked = pyarrow.table({"audio": audio, "question": ["What?", "Who?"], "answer": ["Rain.", "Nobody."]})
    tables.write_table(asked, tmp_path / "train.parquet")
    chat = [[{"role": "user", "content": "<audio>What?"}, {"role": "assistant", "content": "Rain."}]]
    tables.write_table(pyarrow.table({"audio": audio[:1], "messages": chat}), tmp_path / "chat.parquet")
    spoken = pyarrow.table({"audio": audio[:1], "sentence": ["hello"]})
    with pyarrow.ipc.new_stream(tmp_path / "data.arrow", spoken.schema) as stream:
        stream.write_table(spoken)
    found = {name: MessagesSource(MessagesConfig(path=name), SourceContext(folder=tmp_path))
             for name in ("train.parquet", "chat.parquet", "data.arrow")}  # fmt: skip
    assert [turns(found["train.parquet"].sample(i)) for i in (1, 0)] == [
        ["<audio>Who?", "Nobody."], ["<audio>What?", "Rain."],
    ]  # fmt: skip
    assert turns(found["chat.parquet"].sample(0)) == ["<audio>What?", "Rain."]
    assert turns(found["data.arrow"].sample(0)) == ["<audio>Write down what is said.", "hello"]
    for read in found.values():
        assert waveform(read.sample(0).audios[0]).duration_s == pytest.approx(0.1)


def test_several_audios_system_prompt_and_spans(tmp_path: Path) -> None:
    row = {
        "system": "Be brief.",
        "messages": [
            {"role": "user", "content": "<audio><audio>Which is louder?"},
            {"role": "assistant", "content": "The first."},
        ],
        "audios": ["a.wav", {"path": "b.wav", "offset": 1.0, "duration": 2.0}],
    }
    sample = source(tmp_path, [row]).sample(0)
    assert sample.messages[0] == {"role": "system", "content": "Be brief."}
    assert sample.audios[1] == AudioRef(path=tmp_path / "b.wav", start_s=1.0, end_s=3.0)


def test_the_input_of_ltu_is_the_transcript(tmp_path: Path) -> None:
    row = {"instruction": "What?", "input": "hello there", "audio_id": "a.wav", "output": "Speech."}
    first = source(tmp_path, [row]).sample(0).messages[0]
    assert first == {"role": "user", "content": "<audio>What?", "transcript": "hello there"}


def test_a_missing_manifest_has_a_stand_in_that_is_read_the_same_way(tmp_path: Path) -> None:
    context = SourceContext(folder=tmp_path, cache_dir=tmp_path / "cache")
    config = MessagesSource.stand_in(MessagesConfig(path="none.jsonl"), context)
    read = MessagesSource(config, context)
    assert len(read) == 10
    assert all(need.present for need in MessagesSource.needs(config, context))
    assert len(waveform(read.sample(3).audios[0]).samples) > 8000


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("{not json", "not JSON"),
        ({**GOOD, "audios": []}, "1 <audio> tags for 0 audios"),
        ({**GOOD, "audios": ["none.wav"]}, "is not there"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "no assistant turn"),
        ({"messages": [{"role": "robot", "content": "hi"}]}, "role 'robot'"),
        ({"messages": [{"content": "hi"}]}, "a turn needs 'role' and 'content'"),
        ({"text": "x"}, "no known style"),
        ([1], "a row is a mapping"),
    ],
)
def test_a_bad_row_stops_the_run_with_file_and_line(tmp_path: Path, row: Any, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        source(tmp_path, [GOOD, GOOD, row])
    assert str(caught.value).startswith(f"{tmp_path / 'm.jsonl'}:3: ")
    assert reason in str(caught.value)


def test_bad_rows_below_the_bound_are_counted_by_reason(tmp_path: Path) -> None:
    bad = [{**GOOD, "audios": ["x.wav"]}, {**GOOD, "audios": ["y.wav"]}, "{"]
    read = source(tmp_path, [GOOD, *bad, GOOD], max_skipped=0.6)
    assert len(read) == 2
    assert read.sample(1).id == "m.jsonl:5"
    assert read.skipped() == {"audio … is not there": 2, "not JSON": 1}
    with pytest.raises(DataError, match=r"3 of 5 items .* \(2 audio … is not there, 1 not JSON\); allowed: 50%"):
        source(tmp_path, [GOOD, *bad, GOOD], max_skipped=0.5)


def test_an_empty_or_missing_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no samples"):
        source(tmp_path, [])
    with pytest.raises(DataError, match="is not there"):
        MessagesSource(MessagesConfig(path="none.jsonl"), SourceContext(folder=tmp_path))


def test_paths_may_name_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path, [GOOD])
    monkeypatch.setenv("SOUNDS", str(tmp_path))
    read = MessagesSource(MessagesConfig(path="${SOUNDS}/m.jsonl"), SourceContext())
    assert read.sample(0).audios == (AudioRef(path=tmp_path / "a.wav"),)


def test_needs_say_whether_the_manifest_is_there(tmp_path: Path) -> None:
    source(tmp_path, [GOOD])
    context = SourceContext(folder=tmp_path)
    there, missing = (MessagesSource.needs(MessagesConfig(path=p), context)[0] for p in ("m.jsonl", "none.jsonl"))
    assert (there.present, missing.present) == (True, False)
    assert there.bytes == (tmp_path / "m.jsonl").stat().st_size
