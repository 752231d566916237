"""Folders with a `manifest.jsonl`: what is read, licences, and one clear line for each mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ossicle.data.manifest import clip_of, digest, may_train, read_set, read_sets, sets
from ossicle.data.rows import read_appended, read_rows
from ossicle.errors import DataError


def folder(tmp_path: Path, *rows: object, name: str = "esc10") -> Path:
    path = tmp_path / name
    path.mkdir()
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    (path / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    return path


def test_columns_become_facts(tmp_path: Path) -> None:
    row = {"path": "audio/a.ogg", "label": "rain", "fold": 3, "duration_s": 5.0, "clip_author": "x", "start_s": 1.5}
    clip = read_set(folder(tmp_path, row, "", {"path": "b.ogg", "labels": ["a", "b"]}))[0]
    assert clip.path == tmp_path / "esc10" / "audio" / "a.ogg"
    assert (clip.labels, clip.group, clip.source, clip.duration_s) == (("rain",), "3", "esc10", 5.0)
    assert clip.extra == {"fold": 3, "clip_author": "x"}
    assert clip.name == "a@1.5"
    assert read_sets(tmp_path, ["esc10"])[1].labels == ("a", "b")
    assert sets(tmp_path) == ["esc10"]


@pytest.mark.parametrize(
    ("name", "row", "allowed"),
    [
        ("esc10", {}, True),
        ("fsdd", {}, True),
        ("ravdess", {}, False),
        ("nonverbal_vocal", {}, False),
        ("mine", {}, False),
        ("mine", {"licence": "CC0 1.0"}, True),
        ("esc10", {"license": "CC BY-NC 4.0"}, False),
    ],
)
def test_only_open_licences_may_train(tmp_path: Path, name: str, row: dict, allowed: bool) -> None:
    assert may_train(read_set(folder(tmp_path, {"path": "a.wav", **row}, name=name))[0]) is allowed


@pytest.mark.parametrize("line", ["{", "[1]", '{"file": "a.wav"}', '{"path": 3}'])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"manifest\.jsonl:2: "):
        read_set(folder(tmp_path, {"path": "a.wav"}, line))


def test_only_a_newline_ends_a_line(tmp_path: Path) -> None:
    title = "one\u2028two\u2029three\x85four"
    lines = [json.dumps({"path": name, "title": title}, ensure_ascii=False) for name in ("a.wav", "b.wav")]
    path = folder(tmp_path, lines[0], "", lines[1])
    assert [clip.title for clip in read_set(path)] == [title, title]
    assert [row["title"] for row in read_rows(path / "manifest.jsonl")] == [title, title]
    (path / "manifest.jsonl").write_bytes(b"\xff\n")
    with pytest.raises(DataError, match=r"manifest\.jsonl:1: not UTF-8"):
        read_set(path)


def test_a_torn_last_row_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    assert read_appended(path) == []
    path.write_text('{"a": "1\u2028"}\n{"a": "2')
    assert read_appended(path) == read_appended(path) == [{"a": "1\u2028"}]
    assert path.read_text() == '{"a": "1\u2028"}\n'


@pytest.mark.parametrize(
    ("row", "labels"),
    [
        ({"labels": ["rain", None, 3]}, ("rain", "3")),
        ({"labels": None}, ()),
        ({"label": "rain"}, ("rain",)),
        ({"label": None}, ()),
        ({}, ()),
    ],
)
def test_labels_are_one_or_a_list_and_null_is_none(tmp_path: Path, row: dict, labels: tuple[str, ...]) -> None:
    assert clip_of({"path": "a.wav", **row}, tmp_path, source="mine").labels == labels


def test_a_folder_without_manifest_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no manifest\.jsonl"):
        read_set(tmp_path)


def test_real_sets_are_read(data_root: Path) -> None:
    clips = read_set(data_root / "esc10")
    assert len(clips) == 318 and len({clip.labels for clip in clips}) == 10
    assert all(clip.path.is_file() and may_train(clip) for clip in clips)
    assert {clip.group for clip in read_set(data_root / "emodb_2s")} > {"03"}


def test_what_is_made_of_a_set_is_kept_under_another_name_once_a_recording_changes(tmp_path: Path) -> None:
    (tmp_path / "manifest.jsonl").write_text('{"path": "a.wav"}\n{"path": "absent.wav"}\n')
    names = [digest(tmp_path)]
    for content in ("one", "another"):
        (tmp_path / "a.wav").write_text(content)
        names.append(digest(tmp_path))
    assert len(set(names)) == 3
    (tmp_path / "notes.txt").write_text("not one of its recordings")
    assert digest(tmp_path) == names[-1]
