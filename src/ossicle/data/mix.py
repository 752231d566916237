"""Sources in proportion, as one endless numbered stream, and batches of samples of like length drawn from it.

    position p ──► block of 1024 with fixed quotas, shuffled ──► source s, its j-th draw
               ──► its epoch j // n, shuffled ──► sample

Everything is a pure function of (seed, stage, position): nothing has to be saved to go on exactly where a run stopped.
Source: our choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache

import numpy as np

from ossicle.config import Section
from ossicle.data.sample import Sample
from ossicle.data.source import Source
from ossicle.errors import ConfigError, suggest

BLOCK = 1024
POOLS = (16, 64, 256, 1024)
"""Batches of like length are cut from a pool of this many: the most that an epoch fills, the least without an end."""
TOKENS_PER_S = 12.5
TOKENS_PER_CHARACTER = 0.25
"""What a second of audio and a character of text are taken to weigh beside each other."""


class MixEntry(Section):
    """One source of a stage.

    Attributes:
        source: Its name under `data`.
        weight: Its share of the samples, relative to the others'; None for all = in proportion to their sizes.
        max_samples: Use only so many of its samples, the same ones in every epoch.
    """

    source: str
    weight: float | None = None
    max_samples: int | None = None


class Mix:
    """The stream of one stage.

    Args:
        sources: Open sources by name.
        entries: What the stage draws from.
        seed: The recipe's seed.
        stage_index: Place of the stage in the curriculum.
        epochs: Passes after which the stage ends, and its last pool with it; None = every pool is whole.

    Raises:
        ConfigError: An unknown or empty source, weights for some but not all, or no share at all.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        entries: Sequence[MixEntry],
        *,
        seed: int = 0,
        stage_index: int = 0,
        epochs: float | None = None,
    ) -> None:
        self.key = (seed, stage_index)
        self.epochs = epochs
        self.sources = [_source(sources, entry.source) for entry in entries]
        self.sizes = [_size(source, entry) for source, entry in zip(self.sources, entries, strict=True)]
        self.names = [entry.source for entry in entries]
        self.quotas = _quotas(_weights(entries, self.sizes))
        self._order = lru_cache(maxsize=4 * len(entries))(self._order_of)
        self._block = lru_cache(maxsize=8)(self._block_of)

    @property
    def endless(self) -> bool:
        """Some source has no end, so that there are no epochs."""
        return 0 in self.sizes

    @property
    def num_samples(self) -> int:
        """Samples of one epoch: the sum of the finite sources' sizes."""
        return sum(self.sizes)

    def place(self, position: int) -> tuple[int, int]:
        """Return which source, and which of its samples, stands at a position of the stream."""
        block, offset = divmod(position, BLOCK)
        chosen, ranks = self._block(block)
        which = int(chosen[offset])
        draw = block * self.quotas[which] + int(ranks[offset])
        size = self.sizes[which]
        if size == 0:
            return which, draw
        epoch, index = divmod(draw, size)
        return which, int(self._order(which, epoch)[index])

    def sample(self, position: int) -> Sample:
        """Return the sample at a position of the stream."""
        which, index = self.place(position)
        return self.sources[which].sample(index)

    def pool_batches(self, size: int) -> int:
        """Return how many batches of `size` are cut from one pool."""
        filled = 0 if self.endless else self.num_samples // size
        return max([pool for pool in POOLS if pool <= filled], default=POOLS[0])

    def pool(self, number: int, size: int) -> range:
        """Return the batches of `size` that are cut from one pool; those of the last one end with the last epoch."""
        whole = self.pool_batches(size)
        batches = range(number * whole, (number + 1) * whole)
        if self.epochs is None or self.endless:
            return batches
        return range(batches.start, min(batches.stop, num_batches(self.epochs, self.num_samples, size)))

    def batch_positions(self, number: int, size: int) -> list[int]:
        """Return the positions of effective batch `number`: of like length, cut from a pool.

        The pool is sorted by seconds of audio and cut into groups; each group is sorted by its text and cut into
        batches. Of all numbers of groups the one with the least padding is taken. Every position is in exactly one
        batch; micro-batches are neighbours, so they are alike too.
        """
        pool, offset = divmod(number, self.pool_batches(size))
        return list(_pooled(self, pool, size)[offset])

    def batch(self, number: int, size: int) -> list[Sample]:
        """Return effective batch `number` of `size` samples."""
        return [self.sample(position) for position in self.batch_positions(number, size)]

    def _block_of(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Return (1024,) sources in shuffled order and (1024,) how often each has occurred in the block before."""
        chosen = np.repeat(np.arange(len(self.quotas)), self.quotas)
        np.random.default_rng([*self.key, 1, block]).shuffle(chosen)
        ranks = np.zeros(BLOCK, dtype=np.int64)
        for which, quota in enumerate(self.quotas):
            ranks[chosen == which] = np.arange(quota)
        return chosen, ranks

    def _order_of(self, which: int, epoch: int) -> np.ndarray:
        """Return the shuffled sample numbers of one source in one epoch."""
        size = self.sizes[which]
        total = len(self.sources[which])
        kept = np.arange(total)
        if size < total:
            kept = np.sort(np.random.default_rng([self.key[0], 2, which]).permutation(total)[:size])
        return np.random.default_rng([*self.key, 3, which, epoch]).permutation(kept)

    def _pool_of(self, pool: int, size: int) -> list[list[int]]:
        batches = self.pool(pool, size)
        count, positions = len(batches), range(batches.start * size, batches.stop * size)
        audio = TOKENS_PER_S * np.array([self._seconds(p) for p in positions])
        text = TOKENS_PER_CHARACTER * np.array([self._characters(p) for p in positions])
        by_audio = np.argsort(audio, kind="stable")
        ways = [
            _cut(by_audio, text, groups).reshape(count, size) for groups in _powers_of_two(count) if count % groups == 0
        ]
        best = min(ways, key=lambda way: float((audio[way].max(1) + text[way].max(1)).sum()))
        order = np.random.default_rng([*self.key, 4, pool]).permutation(count)
        return (best[order] + positions.start).tolist()  # type: ignore[no-any-return]

    def _seconds(self, position: int) -> float:
        which, index = self.place(position)
        return self.sources[which].duration_s(index)

    def _characters(self, position: int) -> int:
        return sum(len(turn["content"]) for turn in self.sample(position).messages)


def num_batches(epochs: float, num_samples: int, size: int) -> int:
    """Return the batches of `size` that so many passes over the samples fill; the next pass fills up the last one.

    Example:
        >>> num_batches(1, 101, 4)
        26
    """
    return max(1, math.ceil(epochs * num_samples / size))


def _cut(by_audio: np.ndarray, text: np.ndarray, groups: int) -> np.ndarray:
    """Return the places of a pool, each group of neighbours in audio sorted by text."""
    rows = by_audio.reshape(groups, -1)
    return np.take_along_axis(rows, np.argsort(text[rows], axis=1, kind="stable"), 1)


def _powers_of_two(most: int) -> list[int]:
    return [2**power for power in range(most.bit_length())]


@lru_cache(maxsize=4)
def _pooled(mix: Mix, pool: int, size: int) -> list[list[int]]:
    return mix._pool_of(pool, size)


def _source(sources: Mapping[str, Source], name: str) -> Source:
    if name not in sources:
        raise ConfigError(f"mix: unknown source '{name}'; {suggest(name, list(sources))}")
    return sources[name]


def _size(source: Source, entry: MixEntry) -> int:
    """Return how many samples of a source are used, 0 = endless."""
    if source.endless:
        return entry.max_samples or 0
    size = min(len(source), entry.max_samples or len(source))
    if size == 0:
        raise ConfigError(f"mix: source '{entry.source}' has no samples")
    return size


def _weights(entries: Sequence[MixEntry], sizes: Sequence[int]) -> list[float]:
    given = [entry.weight for entry in entries if entry.weight is not None]
    if not given:
        return [1.0] * len(sizes) if 0 in sizes else [float(size) for size in sizes]
    if len(given) < len(entries):
        silent = next(entry.source for entry in entries if entry.weight is None)
        raise ConfigError(f"mix: source '{silent}' has no weight and others have; give all or none of them one")
    if min(given) < 0 or not math.isfinite(sum(given)) or sum(given) <= 0:
        raise ConfigError(f"mix: weights {given} must be 0 or more, with one above 0")
    return given


def _quotas(weights: Sequence[float]) -> list[int]:
    """Return how many of a block's places each source has, by largest remainders; at least 1 with any weight."""
    shares = [weight / sum(weights) * BLOCK for weight in weights]
    quotas = [max(int(share), 1 if share > 0 else 0) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda i: int(shares[i]) - shares[i])
    for i in range(BLOCK - sum(quotas)):
        quotas[by_remainder[i % len(quotas)]] += 1
    while sum(quotas) > BLOCK:
        quotas[int(np.argmax(quotas))] -= 1
    return quotas
