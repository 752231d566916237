"""A page to look at: every row with its interval, confusions, scores by length, and errors that can be heard.

One static HTML file; sounds of wrong answers lie beside it, so that the folder can be sent around.
"""

from __future__ import annotations

import html
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ossicle.evaluation.card import number
from ossicle.evaluation.score import Marked, RowScore
from ossicle.evaluation.task import Task

MOST_ERRORS = 12
LENGTH_EDGES_S = (1.0, 2.0, 4.0, 8.0)
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
            parts.append(f"<h3>{_text(row.name)}</h3>" + _confusion(row) + _by_length(row, built[name]))
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
    lines = [_row(["task", "metric", "value", "95 %", "n", "unparsed", "blind", "shuffled", "majority", "gain"], "th")]
    for name, result in card["tasks"].items():
        if "error" in result:
            lines.append(f"<tr><td>{_text(name)}</td><td colspan=9 class=no>{_text(result['error'])}</td></tr>")
            continue
        spread = "–".join(number(end) for end in result["ci95"])
        controls = [number(result[key]) for key in ("blind", "shuffled", "majority", "gain")]
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


def _by_length(row: RowScore, task: Task) -> str:
    """Return the score of short and of long clips."""
    groups: dict[str, list[Marked]] = defaultdict(list)
    for mark in row.marks:
        seconds = task.sounds[mark.item.audio].duration_s
        edge = next((edge for edge in LENGTH_EDGES_S if seconds <= edge), None)
        groups[f"up to {edge:g} s" if edge else f"over {LENGTH_EDGES_S[-1]:g} s"].append(mark)
    if len(groups) < 2:
        return ""
    lines = [_row(["length", row.spec.metric, "n"], "th")]
    for name in sorted(groups):
        marks = groups[name]
        value = sum(m.credit for m in marks) / max(1e-12, sum(m.weight for m in marks))
        lines.append(_row([name, number(value), len(marks)]))
    return f"<details><summary>by length</summary><table>{''.join(lines)}</table></details>"


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
