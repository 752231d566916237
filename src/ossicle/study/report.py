"""A study as a page: what was spent, every row, paired tests, claims, and the picture of score against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ossicle.errors import require
from ossicle.study.budget import si
from ossicle.study.verdicts import ALL, pareto


def page(result: Mapping[str, Any], *, title: str, picture: str | None = None) -> str:
    """Return a study's result as Markdown.

    Args:
        result: `rows`, `tests`, `claims`, `unfinished`.
        title: Heading.
        picture: File of the picture, relative to the page.
    """
    lines = [f"# {title}", "", *table(result["rows"]), ""]
    if result["unfinished"]:
        lines += [f"Not measured yet: {', '.join(result['unfinished'])}.", ""]
    if picture:
        lines += [f"![Score against operations of a question]({picture})", ""]
    if result["tests"]:
        lines += ["## Against the first row", "", *tests_table(result["tests"]), ""]
    if result["claims"]:
        lines += ["## Claims", "", *claims_table(result["claims"]), ""]
    return "\n".join(lines)


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the rows of a study as lines of a Markdown table."""
    lines = [
        "| row | seeds | n | score | 95 % | gain | parameters | tokens | training | a question | memory | train | "
        "samples/s | data |",
        "|" + "---|" * 14,
    ]
    for row in rows:
        cost, found = row["cost"], row["score"]
        tokens = ", ".join(f"{count} {kind}" for kind, count in cost["tokens"].items())
        cells = [
            row["row"],
            " ".join(map(str, row["seeds"])),
            str(len(row["seeds"]) * sum(task.get("n", 0) for task in row["tasks"].values())),
            number(found["value"]),
            "–".join(number(end) for end in found["ci95"]),
            number(row["gain"]),
            f"{cost['parameters'] / 1e6:.2f} M",
            tokens,
            f"{si(cost['train_flops'])}FLOP",
            f"{si(cost['ask_flops'])}FLOP",
            f"{cost['memory_bytes'] / 2**30:.2f} GiB",
            f"{row['train_s']:.0f} s",
            f"{cost['samples'] / max(row['train_s'], 0.1):.0f}",
            f"`{row['data'][:6]}`",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def tests_table(tests: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return paired tests as lines of a Markdown table."""
    lines = [
        "| row − first row | task | difference | 95 % | p | p, all rows | smallest detectable | n |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for test in tests:
        for name, task in test["tasks"].items():
            spread = "–".join(f"{end:+.3f}" for end in task["ci95"])
            corrected = f"{task['p_rows']:.3f}" if "p_rows" in task else ""
            lines.append(
                f"| {test['second']} | {name} | {task['delta']:+.3f} | {spread} | {task['p']:.3f} | {corrected} | "
                f"{task['smallest_detectable']:.3f} | {task['n']} |"
            )
    return lines


def claims_table(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return claims and verdicts as lines of a Markdown table."""
    lines = ["| paper | claim | rows | found | at this size |", "|---|---|---|---|---|"]
    for claim in claims:
        lines.append(
            f"| {claim['paper']} | {claim['says']} | {claim['better']} against {claim['than']} | {_found(claim)} | "
            f"**{claim['verdict']}** |"
        )
    return lines


def _found(claim: Mapping[str, Any]) -> str:
    if claim.get("missing"):
        return f"not measured: {', '.join(claim['missing'])}"
    if "measured_share" in claim:
        return f"{claim['measured_share']:.2f} of the operations"
    return "; ".join(
        f"{task['delta']:+.3f} ({task['ci95'][0]:+.3f} to {task['ci95'][1]:+.3f}), detectable "
        f"{task['smallest_detectable']:.3f}"
        for task in claim.get("on", [])
    )


def number(value: float | None) -> str:
    """Return a score with three digits, or a dash."""
    return "–" if value is None else f"{value:.3f}"


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """Draw score against operations of a question, the front marked.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    matplotlib = require("matplotlib", "eval")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    points = {
        row["row"]: (float(row["cost"]["ask_flops"]), float(row["score"]["value"]))
        for row in rows
        if row["score"]["value"] is not None
    }
    front = pareto(points)
    figure, axes = pyplot.subplots(figsize=(7, 4.5))
    for row in rows:
        if row["row"] in points:
            x, y = points[row["row"]]
            low, high = row["score"]["ci95"]
            colour = "#c0392b" if row["row"] in front else "#7f8c8d"
            axes.errorbar(x, y, yerr=[[max(0.0, y - low)], [max(0.0, high - y)]], fmt="o", color=colour, capsize=2)
            axes.annotate(row["row"], (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7)
    axes.plot(*zip(*(points[name] for name in front), strict=True), "-", color="#c0392b", linewidth=1)
    axes.set_xlabel("operations of a question")
    axes.set_ylabel("mean score")
    axes.set_xscale("log")
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path


def text_of(result: Mapping[str, Any]) -> str:
    """Return a result for people at a terminal."""
    lines = []
    width = max((len(row["row"]) for row in result["rows"]), default=3)
    for row in result["rows"]:
        found = row["score"]
        spread = "–".join(number(end) for end in found["ci95"])
        lines.append(
            f"{row['row']:<{width}}  score {number(found['value'])} ({spread}), gain {number(row['gain'])}, "
            f"{si(row['cost']['train_flops'])}FLOP to train, {si(row['cost']['ask_flops'])}FLOP a question"
        )
    for test in result["tests"]:
        task = test["tasks"].get(ALL)
        if task:
            lines.append(
                f"{test['second']} − {test['first']}: {task['delta']:+.3f} ({task['ci95'][0]:+.3f} to "
                f"{task['ci95'][1]:+.3f}), p {task['p_rows']:.3f}, detectable {task['smallest_detectable']:.3f}"
            )
    lines += [f"{claim['verdict']}: {claim['says']} ({claim['paper']})" for claim in result["claims"]]
    return "\n".join([*lines, f"report: {result['report']}"])
