"""Mixes of files: proportions, caps, upsampling, a state to go on from."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from ossicle.data.blend import BlendEntry, blend, entry_named
from ossicle.data.rows import read_rows, write_rows
from ossicle.errors import ConfigError, DataError


@pytest.fixture
def files(tmp_path):
    for name, count in (("a", 40), ("b", 10)):
        write_rows(tmp_path / f"{name}.jsonl", ({"id": f"{name}{n}"} for n in range(count)))
    return [str(tmp_path / f"{name}.jsonl") for name in "ab"]


def ids(path):
    return [row["id"] for row in read_rows(path)]


def test_by_size_every_row_comes_once_and_times_repeats_them(files, tmp_path):
    out = tmp_path / "out.jsonl"
    blend([BlendEntry(path=path) for path in files], out)
    assert sorted(ids(out)) == sorted([f"a{n}" for n in range(40)] + [f"b{n}" for n in range(10)])
    assert ids(out) != sorted(ids(out))
    result = blend([BlendEntry(path=files[0]), BlendEntry(path=files[1], times=4)], out)
    assert result["taken"] == {files[0]: 40, files[1]: 40}
    assert {name: number for name, number in Counter(ids(out)).items() if name[0] == "b"} == dict.fromkeys(
        [f"b{n}" for n in range(10)], 4
    )
    blend([BlendEntry(path=path) for path in files], out, counts=[8, 2])
    assert Counter(name[0] for name in ids(out)) == {"a": 8, "b": 2}
    weights = [BlendEntry(path=files[0], weight=1), BlendEntry(path=files[1], weight=3)]
    assert blend(weights, out)["taken"] == {files[0]: 12, files[1]: 38}


def test_a_file_that_is_given_twice_is_counted_twice(files, tmp_path):
    out = tmp_path / "out.jsonl"
    result = blend([BlendEntry(path=files[0]), BlendEntry(path=files[1]), BlendEntry(path=files[0], times=2)], out)
    assert result["taken"] == {files[0]: 120, files[1]: 10}
    assert len(ids(out)) == 130


def test_a_seed_decides_and_a_stopped_mix_goes_on(files, tmp_path):
    entries = [BlendEntry(path=files[0], weight=1, max_samples=5), BlendEntry(path=files[1], weight=1)]
    whole, part = tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    blend(entries, whole, seed=3, total=60)
    blend(entries, part, seed=3, total=20)
    first = ids(part)
    blend(entries, part, seed=3, total=40, go_on=True)
    assert first + ids(part) == ids(whole)
    assert len({name for name in ids(whole) if name[0] == "a"}) == 5
    assert json.loads((tmp_path / "part.state.json").read_text())["next"] == 60
    with pytest.raises(ConfigError, match="other files"):
        blend(entries, part, seed=4, total=5, go_on=True)


def test_entries_are_named_in_three_ways():
    assert entry_named("a.jsonl").weight is None
    assert entry_named("a.jsonl=2").weight == 2
    assert entry_named("a.jsonl*3").times == 3
    with pytest.raises(ConfigError, match="is no number"):
        entry_named("a.jsonl=many")


def test_a_missing_file_leaves_nothing(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        blend([BlendEntry(path=str(tmp_path / "no.jsonl"))], tmp_path / "out.jsonl")
    assert not list(tmp_path.iterdir())
