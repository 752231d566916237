"""What is remembered of clips: a store bounded by bytes, least recently used out first, shared by threads.

    Key(tier, scope, audio, made by) ──► tensors, their bytes, the seconds they cost
    (scope, client's uuid)           ──► which recording it is

Source: our choice.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ossicle.types import Waveform


class Key(NamedTuple):
    """What a handle is found by: its tier, who may use it, the audio, and the weights that made it."""

    tier: str
    scope: str
    audio: str
    made_by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A clip to be heard.

    Attributes:
        audio: Hash of its samples at 16 kHz.
        num_samples: Its length at 16 kHz.
        samples: (S,) float32, or None where only a handle is left of it.
    """

    audio: str
    num_samples: int
    samples: np.ndarray | None = None


def recording(wave: Waveform) -> Recording:
    """Return a waveform at 16 kHz as a recording.

    Example:
        >>> recording(Waveform(samples=np.zeros(4, np.float32))).num_samples
        4
    """
    samples = np.ascontiguousarray(wave.samples, dtype=np.float32)
    digest = hashlib.blake2b(memoryview(samples).cast("B"), digest_size=16).hexdigest()
    return Recording(audio=digest, num_samples=len(samples), samples=samples)


@dataclass(slots=True)
class _Entry:
    value: Any
    num_bytes: int
    cost_s: float


class HandleStore:
    """Handles in memory: least recently used first out, bounded by bytes, shared by threads.

    Args:
        max_bytes: Bytes of tensors kept at most; 0 keeps nothing.
    """

    def __init__(self, max_bytes: int = 1 << 30) -> None:
        self.max_bytes = max_bytes
        self.num_bytes = self.hits = self.misses = self.evicted = 0
        self.saved_s = 0.0
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._names: OrderedDict[tuple[str, str], Recording] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> tuple[Any, float] | None:
        """Return what is kept and the seconds it cost to make, or None; counts a hit or a miss."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self.misses += 1
                return None
            self._entries.move_to_end(key)
            self.hits += 1
            self.saved_s += entry.cost_s
            return entry.value, entry.cost_s

    def holds(self, key: Key) -> bool:
        """Return whether a value is kept; neither a hit nor a miss."""
        with self._lock:
            return key in self._entries

    def put(self, key: Key, value: Any, *, num_bytes: int, cost_s: float) -> None:
        """Keep a value; the least recently used go until it fits. One that never fits is not kept."""
        with self._lock:
            self._drop(key)
            if num_bytes > self.max_bytes:
                return
            self._entries[key] = _Entry(value, num_bytes, cost_s)
            self.num_bytes += num_bytes
            while self.num_bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))
                self.evicted += 1

    def forget(self, unwanted: Callable[[Key], bool]) -> int:
        """Drop every handle whose key is unwanted; return how many there were."""
        with self._lock:
            keys = [key for key in self._entries if unwanted(key)]
            for key in keys:
                self._drop(key)
            return len(keys)

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        self.num_bytes -= entry.num_bytes if entry is not None else 0

    def name(self, scope: str, uuid: str, known: Recording, most: int = 65_536) -> None:
        """Let a client's name stand for a recording within a scope; the samples themselves are not kept."""
        with self._lock:
            self._names[scope, uuid] = Recording(audio=known.audio, num_samples=known.num_samples)
            self._names.move_to_end((scope, uuid))
            if len(self._names) > most:
                self._names.popitem(last=False)

    def named(self, scope: str, uuid: str) -> Recording | None:
        """Return the recording behind a client's name, without samples, or None."""
        with self._lock:
            return self._names.get((scope, uuid))
