"""A covering set: every axis fully against one default of the others, and every pair of values at least once."""

from __future__ import annotations

from itertools import combinations, product


def covering(axes: dict[str, list[str]]) -> list[dict[str, str]]:
    """Return combinations; the first value of each axis is its default."""
    default = {axis: values[0] for axis, values in axes.items()}
    chosen = [default] + [{**default, axis: value} for axis, values in axes.items() for value in values[1:]]
    missing = {((a, x), (b, y)) for a, b in combinations(axes, 2) for x, y in product(axes[a], axes[b])} - {
        pair for row in chosen for pair in combinations(row.items(), 2)
    }
    while missing:
        row = dict(min(missing))
        for axis in (axis for axis in axes if axis not in row):
            gain = {
                value: sum(p in missing for p in combinations({**row, axis: value}.items(), 2)) for value in axes[axis]
            }
            row[axis] = max(axes[axis], key=lambda value: gain[value])
        row = {axis: row[axis] for axis in axes}
        missing -= set(combinations(row.items(), 2))
        chosen.append(row)
    return chosen
