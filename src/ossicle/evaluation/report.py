"""A page to look at: every row with its interval, confusions, scores by class, length and noise, errors to hear.

One static HTML file; sounds of wrong answers lie beside it, so that the folder can be sent around.
"""

from __future__ import annotations

import html
import itertools
import math
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.audio.acoustics import measure
from ossicle.errors import AudioError
from ossicle.evaluation import rivals
from ossicle.evaluation.card import number
from ossicle.evaluation.metrics import wilson
from ossicle.evaluation.score import Marked, RowScore
from ossicle.evaluation.task import Task

MOST_ERRORS = 12
LEAST_IN_BIN = 4
MOST_BINS = 5
STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0}td,th{border:1px solid #ccc;padding:.2em .5em;text-align:right}
th:first-child,td:first-child{text-align:left}.no{color:#b00}details{margin:.5em 0}audio{height:2em}"""


def write_report(
    out: Path, card: Mapping[str, Any], scores: Mapping[str, Sequence[RowScore]], built: Mapping[str, Task]
) -> Path:
    """Write `report.html` and the sounds of some errors into a folder; return its path."""
    parts = [
        f"<h1>{_text(card['model'].get('name', 'model'))} on {_text(card['setting']['suite'])}</h1>",
        _overview(card),
    ]
    for name, rows in scores.items():
        parts.append(f"<h2>{_text(name)}</h2>")
        for row in rows:
            parts.append(f"<h3>{_text(row.name)}</h3>" + _confusion(row) + _by_class(row))
            parts.append(_curves(row, built[name]))
            parts.append(_errors(out, row, built[name]))
    page = f"<!doctype html><meta charset=utf-8><title>ossicle report</title><style>{STYLE}</style>{''.join(parts)}"
    path = out / "report.html"
    partial = path.with_name(".report.html.part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(path)
    return path


def _text(value: object) -> str:
    return html.escape(str(value))


def _row(cells: Sequence[object], tag: str = "td") -> str:
    return "<tr>" + "".join(f"<{tag}>{_text(cell)}</{tag}>" for cell in cells) + "</tr>"


def _overview(card: Mapping[str, Any]) -> str:
    head = ["task", "metric", "value", "95 %", "n", "unparsed", "blind", "shuffled", "majority", "length"]
    lines = [_row([*head, *rivals.COLUMNS, "gain"], "th")]
    for name, result in card["tasks"].items():
        if "error" in result:
            lines.append(f"<tr><td>{_text(name)}</td><td colspan=12 class=no>{_text(result['error'])}</td></tr>")
            continue
        spread = "–".join(number(end) for end in result["ci95"])
        controls = [number(result.get(key)) for key in ("blind", "shuffled", "majority", "length")]
        controls += [*map(number, rivals.cells(result)), number(result["gain"])]
        lines.append(
            _row([name, result["metric"], number(result["value"]), spread, result["n"], result["unparsed"], *controls])
        )
    return f"<table>{''.join(lines)}</table>"


def _confusion(row: RowScore) -> str:
    """Return the table of truth by answer, for rows whose truth is one label."""
    if row.spec.parser not in ("label", "digit", "count", "yes_no", "first", "last"):
        return ""
    pairs = Counter((str(m.item.truth), "–" if m.said is None else str(m.said)) for m in row.marks)
    truths = sorted({truth for truth, _ in pairs})
    said = sorted({answer for _, answer in pairs})
    if len(truths) > 30:
        return ""
    lines = [_row(["truth \\ said", *said], "th")]
    lines += [_row([truth, *(pairs[truth, answer] or "" for answer in said)]) for truth in truths]
    return f"<details open><summary>confusions</summary><table>{''.join(lines)}</table></details>"


def _by_class(row: RowScore) -> str:
    """Return score and number of clips of every true label."""
    groups: dict[str, list[Marked]] = defaultdict(list)
    for mark in row.marks:
        if isinstance(mark.item.truth, str | int | bool) and row.spec.parser != "text":
            groups[str(mark.item.truth)].append(mark)
    if not 2 <= len(groups) <= 60:
        return ""
    lines = [_row(["class", row.spec.metric, "95 %", "n"], "th")]
    for label in sorted(groups):
        value, low, high = _share(groups[label])
        spread = f"{number(low)}–{number(high)}" if low is not None else "–"
        lines.append(_row([label, number(value), spread, len(groups[label])]))
    return f"<details><summary>by class</summary><table>{''.join(lines)}</table></details>"


def _share(marks: Sequence[Marked]) -> tuple[float, float | None, float | None]:
    """Return the score of some marks, with a Wilson interval where every mark is right or wrong."""
    weight = sum(m.weight for m in marks)
    value = sum(m.credit for m in marks) / max(1e-12, weight)
    if any(m.credit not in (0.0, m.weight) for m in marks):
        return value, None, None
    return value, *wilson(sum(m.credit > 0 for m in marks), len(marks))


def _curves(row: RowScore, task: Task) -> str:
    """Return how the score changes with the length of clips, and with how far they lie above their background."""
    used = {mark.item.audio for mark in row.marks}
    lengths = {key: task.sounds[key].duration_s for key in used if task.sounds[key].duration_s > 0}
    drawn = [_curve(row, lengths, "length, s", log=True)]
    drawn.append(_curve(row, {key: snr for key in used if (snr := _snr_db(task, key)) is not None}, "SNR, dB"))
    return "".join(drawn)


def _snr_db(task: Task, key: str) -> float | None:
    """Return the manifest's SNR of a sound, else an estimate from its quietest tenth."""
    sound = task.sounds[key]
    if sound.snr_db is not None:
        return sound.snr_db
    try:
        return measure(sound.load()).snr_db
    except AudioError:
        return None


def bins(values: Sequence[float]) -> list[float]:
    """Return edges that split values into at most `MOST_BINS` groups of about equal size, none below `LEAST_IN_BIN`.

    Example:
        >>> bins([1, 2, 3, 4, 5, 6, 7, 8])
        [1.0, 4.5, 8.0]
    """
    count = min(MOST_BINS, len(values) // LEAST_IN_BIN)
    if count < 2:
        return []
    edges = np.unique(np.quantile(np.asarray(values, dtype=float), np.linspace(0, 1, count + 1)))
    return [float(edge) for edge in edges] if len(edges) > 2 else []


def _curve(row: RowScore, by_sound: Mapping[str, float], name: str, *, log: bool = False) -> str:
    """Return a drawn curve with intervals and the same as a table; nothing where there are too few clips."""
    marks = [(by_sound[m.item.audio], m) for m in row.marks if m.item.audio in by_sound]
    edges = bins([value for value, _ in marks])
    if not edges:
        return ""
    points, lines = [], [_row([name, row.spec.metric, "n"], "th")]
    for index, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = [m for v, m in marks if low <= v < high or (index == len(edges) - 2 and v == high)]
        if inside:
            points.append(((low * high) ** 0.5 if log else (low + high) / 2, *_share(inside)))
            lines.append(_row([f"{low:.2f}–{high:.2f}", number(points[-1][1]), len(inside)]))
    table = f"<table>{''.join(lines)}</table>"
    return f"<details><summary>by {_text(name)}</summary>{_drawing(points, name, log=log)}{table}</details>"


def _drawing(points: Sequence[tuple[float, float, float | None, float | None]], name: str, *, log: bool) -> str:
    """Return points over their middles as SVG, a bar for each interval."""
    width, height, edge = 360, 160, 30
    middles = [math.log(max(p[0], 1e-6)) if log else p[0] for p in points]
    left, right = min(middles), max(middles)
    top = max(1.0, *(p[1] for p in points))

    def place(middle: float, value: float) -> tuple[float, float]:
        across = (middle - left) / ((right - left) or 1.0)
        return edge + across * (width - 2 * edge), height - edge - value / top * (height - 2 * edge)

    places = [place(middle, point[1]) for middle, point in zip(middles, points, strict=True)]
    parts = [f"<polyline fill=none stroke=#246 points='{' '.join(f'{x:.1f},{y:.1f}' for x, y in places)}'/>"]
    for middle, (_, value, low, high) in zip(middles, points, strict=True):
        x, y = place(middle, value)
        parts.append(f"<circle cx={x:.1f} cy={y:.1f} r=3 fill=#246 />")
        if low is not None and high is not None:
            ends = place(middle, low)[1], place(middle, high)[1]
            parts.append(f"<line x1={x:.1f} x2={x:.1f} y1={ends[0]:.1f} y2={ends[1]:.1f} stroke=#246 />")
    parts += [
        f"<text x=2 y={edge} font-size=11>{top:g}</text><text x=2 y={height - edge} font-size=11>0</text>",
        f"<text x={edge} y={height - 8} font-size=11>{points[0][0]:.3g}</text>",
        f"<text x={width - edge} y={height - 8} font-size=11 text-anchor=end>{points[-1][0]:.3g} {_text(name)}</text>",
    ]
    return f"<svg width={width} height={height} role=img aria-label='score by {_text(name)}'>{''.join(parts)}</svg>"


def _errors(out: Path, row: RowScore, task: Task) -> str:
    """Return wrong answers with players."""
    worst = [m for m in row.marks if (m.credit > 0 if row.lower_is_better else m.credit < m.weight)][:MOST_ERRORS]
    lines = []
    for mark in worst:
        file = _sound_file(out, task, mark.item.audio)
        said = "unparsed" if mark.said is None else mark.said
        lines.append(
            f"<tr><td><audio controls preload=none src='{_text(file)}'></audio></td>"
            f"<td>{_text(mark.item.question)}</td>"
            f"<td>{_text(mark.item.truth)}</td><td>{_text(mark.answer)}</td><td>{_text(said)}</td></tr>"
        )
    head = _row(["sound", "question", "truth", "answer", "read as"], "th")
    return f"<details><summary>errors</summary><table>{head}{''.join(lines)}</table></details>" if lines else ""


def _sound_file(out: Path, task: Task, key: str) -> str:
    """Put a sound beside the page; return its relative path."""
    import soundfile

    sound = task.sounds[key]
    name = f"{sound.digest[:16]}{sound.path.suffix if sound.path else '.flac'}"
    target = out / "sounds" / name
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        if sound.path is not None:
            shutil.copyfile(sound.path, target)
        else:
            soundfile.write(target, sound.load().samples, 16000)
    return f"sounds/{name}"
