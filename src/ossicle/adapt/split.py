"""Train and test, so that no group (recording, speaker, machine) lies on both sides and every label is on both."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ossicle.adapt.folder import Recording
from ossicle.errors import DataError


def split_by_group(
    recordings: Sequence[Recording], *, test_share: float = 0.2, seed: int = 0
) -> tuple[list[Recording], list[Recording]]:
    """Return (train, test).

    Groups go to the test side until each of their labels has its share there; the last group of a label stays in
    training.

    Args:
        recordings: At least two groups.
        test_share: Wanted share of each label's recordings in the test.
        seed: Of the order in which groups are tried.

    Raises:
        DataError: Fewer than two groups.
    """
    groups: dict[str, list[Recording]] = defaultdict(list)
    for recording in recordings:
        groups[recording.group].append(recording)
    if len(groups) < 2:
        raise DataError(f"all {len(recordings)} recordings belong to one group; expected at least two to split by")
    left = Counter(label for members in groups.values() for label in {r.label for r in members})
    total = Counter(recording.label for recording in recordings)
    want = {label: max(1, round(test_share * count)) for label, count in total.items()}
    names = sorted(groups)
    held: set[str] = set()
    have: Counter[str] = Counter()
    for index in np.random.default_rng(seed).permutation(len(names)):
        members = groups[names[index]]
        counts = Counter(recording.label for recording in members)
        if all(left[x] > 1 and have[x] + counts[x] <= max(want[x], counts[x] if not have[x] else 0) for x in counts):
            held.add(names[index])
            have += counts
            left -= Counter(set(counts))
    train = [recording for recording in recordings if recording.group not in held]
    test = [recording for recording in recordings if recording.group in held]
    if not test:
        raise DataError("no group can be held out without leaving a label untaught; expected two groups per label")
    return train, test
