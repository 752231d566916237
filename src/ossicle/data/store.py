"""Finished work that survives everything: append-only shards of checksummed lines, found by the content of the unit.

    unit key = hash of everything the result depends on
    FOLDER/part-00003.jsonl      <checksum> {"unit": key, "kind": "done", …}\\n      one write() a line, never rewritten

A killed process leaves at most one torn line, which is not read; whoever comes next opens a new part. A line whose
checksum is wrong is counted as damaged and its unit is done again. One writer at a time holds the lock. Bringing lines
to the disk takes its time in a thread of its own: nobody waits for it.

Source: our choice.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from ossicle.errors import DataError

SYNC_EVERY_S = 5.0
"""A kill loses nothing; a power cut loses at most this much."""


def unit_key(*parts: Any) -> str:
    """Return a name for a piece of work: a hash of all it depends on.

    Example:
        >>> unit_key({"b": 1, "a": 2}) == unit_key({"a": 2, "b": 1})
        True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


class Store:
    """A folder of finished units.

    Args:
        folder: Made where it is not there.
        write: Take the lock and open a part of one's own.

    Raises:
        DataError: Somebody else writes, or the folder cannot be written.
    """

    def __init__(self, folder: Path, *, write: bool = True) -> None:
        self.folder = folder
        self.damaged = 0
        self.notes: Counter[str] = Counter()
        self._where: dict[str, tuple[int, int, int]] = {}
        self._paths: list[Path] = []
        self._part = -1
        self._synced = time.monotonic()
        self._syncing: threading.Thread | None = None
        self._unsynced: OSError | None = None
        self._lock: Any = None
        try:
            if write:
                folder.mkdir(parents=True, exist_ok=True)
                self._lock = (folder / "lock").open("w")
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DataError(f"{folder}: another run writes here; wait for it, or choose another folder") from None
        except OSError as error:
            raise DataError(f"{folder}: cannot be written ({error.strerror})") from None
        for path in sorted(folder.glob("part-*.jsonl")):
            self._index(path)

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._where

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, key: str) -> dict[str, Any]:
        part, offset, length = self._where[key]
        with self._paths[part].open("rb") as file:
            file.seek(offset)
            return json.loads(file.read(length).partition(b" ")[2])  # type: ignore[no-any-return]

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield every finished unit once, in the order they were finished."""
        for key in list(self._where):
            yield self[key]

    def put(self, key: str, **result: Any) -> None:
        """Keep the result of a unit that has none, so that a unit is never there twice.

        Raises:
            DataError: The disk is full, or the folder has gone.
        """
        if key in self._where:
            return
        self._append({"unit": key, **result}, key)

    def forget(self, key: str) -> None:
        """Let a unit be done again; its old line stays in its part, and the new one counts."""
        self._where.pop(key, None)

    def note(self, kind: str, **facts: Any) -> None:
        """Keep something that happened, for the books: a request that was sent, for example."""
        self._append({"note": kind, **facts}, None)
        self.notes[kind] += 1

    def close(self) -> None:
        """Bring everything to the disk and let go of the lock."""
        if self._syncing is not None:
            self._syncing.join()
        if self._part >= 0:
            os.fsync(self._part)
            os.close(self._part)
            self._part = -1
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _append(self, entry: dict[str, Any], key: str | None) -> None:
        if self._lock is None:
            raise DataError(f"{self.folder}: opened to read only")
        text = json.dumps(entry, ensure_ascii=False).encode()
        line = _checksum(text) + b" " + text + b"\n"
        try:
            if self._part < 0:
                number = int(self._paths[-1].stem[5:]) + 1 if self._paths else 0
                self._paths.append(self.folder / f"part-{number:05d}.jsonl")
                self._part = os.open(self._paths[-1], os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
                self._end = 0
            written = os.write(self._part, line)
            if time.monotonic() - self._synced > SYNC_EVERY_S:
                self._sync()
            if self._unsynced is not None:
                raise self._unsynced
        except OSError as error:
            raise DataError(
                f"{self.folder}: cannot be written ({error.strerror}); what is finished is kept, run it again to go on"
            ) from None
        if written != len(line):
            raise DataError(f"{self.folder}: the disk is full; what is finished is kept, make room and run it again")
        if key is not None:
            self._where[key] = (len(self._paths) - 1, self._end, len(line))
        self._end += len(line)

    def _sync(self) -> None:
        """Bring what is written to the disk, beside the work; what goes wrong is told when the next line is written."""

        def sync(part: int) -> None:
            try:
                os.fsync(part)
            except OSError as error:
                self._unsynced = error

        if self._syncing is None or not self._syncing.is_alive():
            self._synced = time.monotonic()
            self._syncing = threading.Thread(target=sync, args=(self._part,), daemon=True)
            self._syncing.start()

    def _index(self, path: Path) -> None:
        self._paths.append(path)
        offset = 0
        with path.open("rb") as file:
            for line in file:
                mark, _, text = line.rstrip(b"\n").partition(b" ")
                if line.endswith(b"\n") and mark == _checksum(text):
                    entry = json.loads(text)
                    if "note" in entry:
                        self.notes[entry["note"]] += 1
                    else:
                        self._where[entry["unit"]] = (len(self._paths) - 1, offset, len(line))
                elif line.endswith(b"\n"):
                    self.damaged += 1
                offset += len(line)


def _checksum(text: bytes) -> bytes:
    return hashlib.blake2b(text, digest_size=6).hexdigest().encode()
