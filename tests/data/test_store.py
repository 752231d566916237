"""Finished work that survives: torn lines, damaged lines, a second writer, a full disk."""

from __future__ import annotations

import os

import pytest

from ossicle.data.store import Store, unit_key
from ossicle.errors import DataError


def test_what_was_put_is_there_again_in_order_and_once(tmp_path):
    with Store(tmp_path) as store:
        for number in range(5):
            store.put(f"u{number}", value=number)
        store.put("u1", value="second time")
        store.note("sent", unit="u1")
    with Store(tmp_path) as again:
        again.put("u9", value=9)
        assert [entry["value"] for entry in again.entries()] == [0, 1, 2, 3, 4, 9]
        assert again.notes["sent"] == 1
    assert len(list(tmp_path.glob("part-*"))) == 2


def test_a_torn_end_is_not_read_and_a_changed_line_is_counted_and_done_again(tmp_path):
    with Store(tmp_path) as store:
        store.put("a", value=1)
        store.put("b", value=2)
        store.put("c", value=3)
    (part,) = tmp_path.glob("part-*")
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(lines[0] + lines[1].replace(b"2", b"7") + lines[2][:-9])
    store = Store(tmp_path)
    assert "a" in store
    assert "b" not in store
    assert "c" not in store
    assert store.damaged == 1
    store.put("b", value=2)
    assert store["b"]["value"] == 2
    store.close()


def test_a_second_writer_is_refused(tmp_path):
    with Store(tmp_path), pytest.raises(DataError, match="another run"):
        Store(tmp_path)
    Store(tmp_path).close()


def test_a_full_disk_is_one_line_and_keeps_what_is_finished(tmp_path, monkeypatch):
    with Store(tmp_path) as store:
        store.put("a", value=1)
        real = os.write
        monkeypatch.setattr(os, "write", lambda file, line: real(file, line[:10]))
        with pytest.raises(DataError, match="disk is full"):
            store.put("b", value=2)
    monkeypatch.undo()
    with Store(tmp_path) as again:
        assert len(again) == 1


def test_a_key_depends_on_content_not_on_order():
    assert unit_key({"a": 1, "b": [2]}) == unit_key({"b": [2], "a": 1})
    assert unit_key({"a": 1}) != unit_key({"a": 2})
