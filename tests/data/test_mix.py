"""The stream of samples: in proportion, complete in every epoch, the same from every starting point."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from ossicle.data.mix import BLOCK, Mix, MixEntry, num_batches
from ossicle.data.sample import Sample, question
from ossicle.data.source import Source, SourceConfig, SourceContext
from ossicle.errors import ConfigError


class Numbers(Source):
    """Samples whose answer is their number, and whose length is a scrambled one."""

    def __init__(self, size: int) -> None:
        super().__init__(SourceConfig(kind="numbers"), SourceContext())
        self.size = size

    def __len__(self) -> int:
        return self.size

    def sample(self, index: int) -> Sample:
        return question("?", str(index), [])

    def duration_s(self, index: int) -> float:
        return index * 37 % 101


class Forever(Numbers):
    endless = True

    def __len__(self) -> int:
        raise AssertionError("an endless source was asked for its length")


def mix(*entries: Any, seed: int = 0, stage: int = 0, **sources: Source) -> Mix:
    return Mix(sources, [MixEntry(**entry) for entry in entries], seed=seed, stage_index=stage)


def test_one_epoch_holds_every_sample_once_and_the_next_in_another_order() -> None:
    stream = mix({"source": "a"}, a=Numbers(300))
    first = [stream.place(p)[1] for p in range(300)]
    second = [stream.place(p)[1] for p in range(300, 600)]
    assert sorted(first) == sorted(second) == list(range(300))
    assert first != second


def test_a_position_is_the_same_whatever_was_asked_before() -> None:
    entries = [{"source": "a", "weight": 1}, {"source": "b", "weight": 2}]
    walked = mix(*entries, a=Numbers(50), b=Numbers(7))
    places = [walked.place(p) for p in range(3000)]
    assert mix(*entries, a=Numbers(50), b=Numbers(7)).place(2777) == places[2777]
    other = mix(*entries, a=Numbers(50), b=Numbers(7), seed=1)
    assert [other.place(p) for p in range(3000)] != places


def test_weights_are_shares_and_without_them_sizes_are() -> None:
    weighted = mix({"source": "a", "weight": 1}, {"source": "b", "weight": 3}, a=Numbers(50), b=Numbers(50))
    counts = Counter(weighted.place(p)[0] for p in range(4 * BLOCK))
    assert counts == {0: BLOCK, 1: 3 * BLOCK}
    plain = mix({"source": "a"}, {"source": "b"}, a=Numbers(3), b=Numbers(5))
    assert Counter(plain.place(p) for p in range(BLOCK)) == {
        **{(0, i): BLOCK // 8 for i in range(3)},
        **{(1, i): BLOCK // 8 for i in range(5)},
    }
    assert plain.num_samples == 8


def test_even_a_tiny_source_is_drawn() -> None:
    stream = mix({"source": "a"}, {"source": "b"}, a=Numbers(10**6), b=Numbers(1))
    assert 1 in {stream.place(p)[0] for p in range(BLOCK)}


def test_max_samples_keeps_the_same_subset_in_every_epoch() -> None:
    stream = mix({"source": "a", "max_samples": 20}, a=Numbers(100))
    epochs = [{stream.place(p)[1] for p in range(20 * e, 20 * e + 20)} for e in range(3)]
    assert len(epochs[0]) == 20
    assert epochs[0] == epochs[1] == epochs[2]


def test_an_endless_source_goes_on_and_is_never_asked_its_length() -> None:
    stream = mix({"source": "a"}, a=Forever(0))
    assert sorted(stream.place(p)[1] for p in range(2 * BLOCK)) == list(range(2 * BLOCK))
    assert stream.endless


def test_batches_hold_like_lengths_and_lose_nothing() -> None:
    stream = mix({"source": "a"}, a=Numbers(1000))
    pool = stream.pool_batches(8)
    assert pool == 64
    batches = [stream.batch_positions(n, 8) for n in range(2 * pool)]
    assert sorted(p for batch in batches for p in batch) == list(range(2 * pool * 8))
    source = stream.sources[0]
    lengths = [[source.duration_s(stream.place(p)[1]) for p in batch] for batch in batches]
    waste = sum(max(row) * len(row) - sum(row) for row in lengths) / sum(max(row) * len(row) for row in lengths)
    assert waste < 0.1
    tops = [max(row) for row in lengths[:pool]]
    assert tops != sorted(tops)
    assert mix({"source": "a"}, a=Numbers(1000)).batch_positions(19, 8) == batches[19]
    assert mix({"source": "a"}, a=Numbers(20)).pool_batches(8) == mix({"source": "a"}, a=Forever(0)).pool_batches(8)


@pytest.mark.parametrize(
    ("count", "size", "epochs", "times"),
    [(100, 4, 1, {1}), (101, 4, 1, {1, 2}), (20, 8, 1, {1, 2}), (3, 8, 1, {2, 3}), (100, 4, 2.5, {2, 3})],
)
def test_a_stage_of_epochs_draws_what_they_hold(count: int, size: int, epochs: float, times: set[int]) -> None:
    """Every sample once an epoch; only what fills up the last batch comes once more."""

    def batches() -> list[list[int]]:
        stream = Mix({"a": Numbers(count)}, [MixEntry(source="a")], epochs=epochs)
        numbers = reversed(range(num_batches(epochs, count, size)))  # in whatever order they are asked for
        return [stream.batch_positions(number, size) for number in numbers][::-1]

    found, whole = batches(), mix({"source": "a"}, a=Numbers(count))
    assert sorted(p for batch in found for p in batch) == list(range(len(found) * size))
    drawn = Counter(whole.place(p)[1] for batch in found for p in batch)
    assert (len(drawn), set(drawn.values())) == (count, times)
    assert 0 <= sum(drawn.values()) - epochs * count < size
    full = len(found) // whole.pool_batches(size) * whole.pool_batches(size)
    assert found[:full] == [whole.batch_positions(number, size) for number in range(full)]  # as with `steps`
    assert found == batches()


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([{"source": "b"}], "unknown source 'b'"),
        ([{"source": "a", "weight": 1}, {"source": "c"}], "source 'c' has no weight"),
        ([{"source": "a", "weight": 0}], "with one above 0"),
        ([{"source": "empty"}], "source 'empty' has no samples"),
    ],
)
def test_mistakes_in_a_mix(entries: list[dict[str, Any]], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        mix(*entries, a=Numbers(5), c=Numbers(5), empty=Numbers(0))
