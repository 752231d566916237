"""What a file of clips or of questions holds: counts, hours, labels and their balance, licences; a table and a picture.

balance = entropy of the labels / log(number of labels)        1 = all equally often

Source: our choice.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ossicle.errors import require

TOP = 20


def count(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the numbers of rows of clips (`labels`, `duration_s`) or questions (`task`, `messages`)."""
    total, seconds, timed = 0, 0.0, 0
    counters: dict[str, Counter[str]] = {
        name: Counter() for name in ("sources", "labels", "licences", "tasks", "genders", "languages", "splits")
    }
    clips, with_facts, words = set(), 0, Counter[str]()
    for row in rows:
        total += 1
        length = row.get("duration_s", row.get("duration"))
        if isinstance(length, int | float):
            seconds, timed = seconds + length, timed + 1
        for name, value in _named(row):
            counters[name][value] += 1
        with_facts += bool(row.get("facts"))
        clips.add(row.get("clip", row.get("path")))
        for turn in row.get("messages", ()):
            words[turn["role"]] += len(str(turn["content"]).split())
    result: dict[str, Any] = {"rows": total, "clips": len(clips), "hours": round(seconds / 3600, 4), "timed": timed}
    result |= {name: dict(found.most_common()) for name, found in counters.items() if found}
    result["balance"] = round(balance(counters["labels"]), 4) if counters["labels"] else None
    if with_facts:
        result["described"] = with_facts
    if words:
        result["words"] = {"questions": words["user"], "answers": words["assistant"]}
    return result


def _named(row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    yield "sources", str(row.get("source", "unknown"))
    yield "licences", str(row.get("licence", "unknown"))
    labels = row.get("labels", [row["label"]] if row.get("label") else [])
    for label in labels:
        yield "labels", str(label)
    for name, key in (("tasks", "task"), ("genders", "gender"), ("languages", "language"), ("splits", "split")):
        if row.get(key):
            yield name, str(row[key])


def balance(counts: Mapping[str, int]) -> float:
    """Return how evenly things occur: 1 = all equally often, 0 = one alone.

    Example:
        >>> balance({"rain": 5, "bell": 5})
        1.0
    """
    total = sum(counts.values())
    if len(counts) < 2:
        return 0.0
    return -sum(n / total * math.log(n / total) for n in counts.values()) / math.log(len(counts))


def table(found: Mapping[str, Any]) -> str:
    """Return the numbers as lines to read."""
    lines = [
        f"{found['rows']} rows about {found['clips']} clips, {found['hours']:.2f} hours in {found['timed']} of them"
    ]
    for name in ("sources", "tasks", "labels", "licences", "genders", "languages", "splits"):
        counts = found.get(name, {})
        if counts:
            shown = ", ".join(f"{key} {number}" for key, number in list(counts.items())[:TOP])
            rest = f", and {len(counts) - TOP} more" if len(counts) > TOP else ""
            lines.append(f"{name} ({len(counts)}): {shown}{rest}")
    if found.get("balance") is not None:
        lines.append(f"balance of labels: {found['balance']:.2f} (1 = all equally often)")
    return "\n".join(lines)


def picture(found: Mapping[str, Any], path: Path) -> Path:
    """Draw how often the most frequent labels, tasks and sources occur.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "eval").use("Agg")
    from matplotlib import pyplot

    shown = [name for name in ("sources", "tasks", "labels") if found.get(name)]
    figure, axes = pyplot.subplots(1, len(shown), figsize=(5 * len(shown), 6), squeeze=False)
    for axis, name in zip(axes[0], shown, strict=True):
        counts = list(found[name].items())[:TOP][::-1]
        axis.barh([key[:28] for key, _ in counts], [number for _, number in counts], color="#3b6ea5")
        axis.set_title(f"{name}: {len(found[name])}")
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=90)
    pyplot.close(figure)
    return path
