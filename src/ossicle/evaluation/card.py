"""Result cards: everything a score depends on, as JSON and as a page.

A card holds the prompts, parsers, label lists, normaliser, hashes of model, data and answers, versions, seed, every
score with its interval and controls, and the mark of every single item, so that two cards can be compared pair by pair.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ossicle.errors import DataError
from ossicle.evaluation import rivals
from ossicle.evaluation.normalise import DEFAULT
from ossicle.evaluation.score import RowScore
from ossicle.evaluation.task import Item, Task, TaskSpec

FORMAT = 1
GREEDY = "greedy, whole vocabulary"
PACKAGES = ("ossicle", "torch", "transformers", "numpy", "jiwer")


def dataset_hash(tasks: Iterable[Task]) -> str:
    """Return a hash of every question, truth and sound of some tasks."""
    digest = hashlib.sha256()
    for task in sorted(tasks, key=lambda task: task.spec.task):
        for item in sorted(task.items, key=lambda item: item.key):
            digest.update(repr((item.key, *_told(item, task))).encode())
    return digest.hexdigest()


def _told(item: Item, task: Task) -> tuple[str, Any, str]:
    """Return what makes an item: question, truth and sound."""
    return item.question, item.truth, task.sounds[item.audio].digest


def model_hash(folder: Path) -> str:
    """Return a hash of a model folder: settings, tokenizer and weights."""
    digest = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".json", ".safetensors", ".jinja", ".txt")):
        digest.update(path.relative_to(folder).as_posix().encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Return the versions of what scores depend on."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def make_card(
    facts: Mapping[str, Any], model: Mapping[str, Any], specs: Iterable[TaskSpec], outcome: Any
) -> dict[str, Any]:
    """Return the card of a run.

    Args:
        facts: Setting of the run (suite, seed, limit, …).
        model: Name and hash of the model.
        specs: Task files.
        outcome: Results and marks (`run.Outcome`).
    """
    known = {spec.task: spec for spec in specs}
    return {
        "ossicle_card": FORMAT,
        "model": dict(model),
        "setting": dict(facts),
        "versions": versions(),
        "dataset": dataset_hash(outcome.built.values()),
        "answers": answers_hash(outcome.scores),
        "normaliser": DEFAULT,
        "parser_embedding": outcome.near.facts() if outcome.near else None,
        "judge": outcome.judge,
        "rivals": outcome.rivals,
        "text_only": outcome.text_only,
        "decoding": _decoding(facts.get("decoding", "greedy")),
        "tasks": outcome.tasks,
        "refusal": outcome.refusal,
        "contamination": outcome.contamination,
        "absent": [_absence(name, known) for name in outcome.absent],
        "asked": {name: _asked(known[name], rows) for name, rows in outcome.scores.items()},
        "counted": {name: [row.name for row in rows if row.spec.counts] for name, rows in outcome.scores.items()},
        "items": {
            name: {row.name: _items(row, outcome.built[name]) for row in rows} for name, rows in outcome.scores.items()
        },
        "marks": {name: {row.name: _marks(row) for row in rows} for name, rows in outcome.scores.items()},
    }


def answers_hash(scores: Mapping[str, Iterable[RowScore]]) -> str:
    """Return a hash of all raw answers."""
    said = sorted((mark.item.key, mark.answer) for rows in scores.values() for row in rows for mark in row.marks)
    return hashlib.sha256(json.dumps(said, ensure_ascii=False).encode()).hexdigest()


def _decoding(name: str) -> str:
    """Return how answers were drawn, in words."""
    from ossicle.inference.drawing import drawing

    settings = drawing(name).model_dump(exclude_defaults=True)
    return f"{name}: {', '.join(f'{key} {value}' for key, value in settings.items())}" if settings else GREEDY


def _absence(name: str, specs: Mapping[str, TaskSpec]) -> dict[str, str]:
    """Return what is missing, where it comes from and under what licence."""
    spec = next((s for s in specs.values() if name in (s.source.set, s.source.manifest)), None)
    return {"set": name, "origin": spec.origin if spec else "", "licence": spec.licence if spec else ""}


def _asked(spec: TaskSpec, rows: Iterable[RowScore]) -> dict[str, Any]:
    return {
        row.name: {
            "prompts": sorted({mark.item.question for mark in row.marks})[:20],
            "parser": row.spec.parser,
            "vocabulary": row.spec.vocabulary or "labels of the set",
            "max_new_tokens": row.spec.max_new_tokens,
            "unparsed_rate": sum(mark.said is None for mark in row.marks) / len(row.marks),
            "origin": spec.origin,
            "licence": spec.licence,
        }
        for row in rows
    }


def _marks(row: RowScore) -> list[list[Any]]:
    """Return [item, credit, weight, cluster] of each mark."""
    prefix = len(f"{row.marks[0].item.task}/{row.name}/")
    return [[m.item.key[prefix:], round(m.credit, 6), round(m.weight, 6), m.item.cluster] for m in row.marks]


def _items(row: RowScore, task: Task) -> list[str]:
    """Return a hash of what each mark's item asks: keys of composed tasks are numbers, the same for any seed."""
    told = [repr(_told(mark.item, task)).encode() for mark in row.marks]
    return [hashlib.blake2b(one, digest_size=6).hexdigest() for one in told]


def write_card(out: Path, card: Mapping[str, Any]) -> Path:
    """Write `card.json` and `card.md` into a folder; returns the path of the JSON."""
    out.mkdir(parents=True, exist_ok=True)
    slim = json.dumps({**card, "items": None, "marks": None}, ensure_ascii=False, indent=1)
    for key in ("items", "marks"):
        packed = json.dumps(card[key], ensure_ascii=False, separators=(",", ":"))
        slim = slim.replace(f'\n "{key}": null', f'\n "{key}": {packed}', 1)
    _replace(out / "card.json", slim + "\n")
    _replace(out / "card.md", page(card))
    return out / "card.json"


def _replace(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


def read_card(path: Path) -> dict[str, Any]:
    """Return a card; what `ossicle eval --json` printed leads to it too.

    Raises:
        DataError: Not a file, not JSON, or no card.
    """
    try:
        card = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(
            f"{path}: cannot read the card: {error}; expected a card.json that `ossicle eval` wrote"
        ) from None
    if isinstance(card, dict) and "ossicle_card" not in card and isinstance(card.get("card"), str):
        beside = Path(card["card"])
        return read_card(beside if beside.is_file() or beside.is_absolute() else path.parent / beside)
    if not isinstance(card, dict) or card.get("ossicle_card") != FORMAT:
        raise DataError(f"{path}: not a result card of format {FORMAT}; expected a card.json that `ossicle eval` wrote")
    return card


def page(card: Mapping[str, Any]) -> str:
    """Return a card as Markdown."""
    setting, model = card["setting"], card["model"]
    lines = [
        f"# {model.get('name', 'model')} on suite {setting['suite']}",
        "",
        *([model["note"], ""] if model.get("note") else []),
        table(card["tasks"]),
        "",
        "Value with its 95 % interval; gain = value − the best of blind, shuffled, majority. "
        "A task that does not listen is not clearly better with its own sound than without, with another one, or than "
        "what clips of like length answer. "
        "Cascade: a transcriber, then a text model; tags: a text model that is told the labels; – = not run.",
        "",
    ]
    if card.get("refusal"):
        outside, within = card["refusal"], card["refusal"]["within_skills"]
        lines += [
            f"Questions outside its skills declined: {number(outside['value'])} of {outside['n']}; "
            f"within its skills wrongly declined: {number(within['value'])} of {within['n']}.",
            "",
        ]
    lines += text_only_lines(card.get("text_only"))
    for task, result in card["tasks"].items():
        if result.get("skipped"):
            reasons = ", ".join(f"{count} × {reason}" for reason, count in result["skipped"].items())
            lines += [f"{task}: left out {reasons}.", ""]
    for task, found in (card.get("contamination") or {}).items():
        if found["seen"]:
            lines += [f"**{task}: {found['seen']} of {found['of']} recordings were trained on.**", ""]
    if card["absent"]:
        lines += ["Not there: " + "; ".join(f"{a['set']} ({a['origin']}, {a['licence']})" for a in card["absent"]), ""]
    lines += [f"- model {model.get('hash', '')[:12]}, data {card['dataset'][:12]}, answers {card['answers'][:12]}"]
    lines += [f"- {key}: {value}" for key, value in {**setting, **card["versions"]}.items()]
    judged = "in the JSON" if card["judge"] else "none"
    lines += [f"- decoding: {card['decoding']}; normaliser: {card['normaliser']}; judge: {judged}", ""]
    return "\n".join(lines)


def text_only_lines(found: Mapping[str, Any] | None) -> list[str]:
    """Return what the page says about the skill in text alone, before and after training."""
    if not found:
        return ["Skill in text alone: not measured.", ""]
    now = f"Skill in text alone: {number(found['value'])} of {found['n']} questions"
    before = found.get("before")
    if before is None:
        return [f"{now}; before training: not measured (--before MODEL).", ""]
    return [f"{now}; before training {number(before['value'])}; forgotten {number(found['forgotten'])}.", ""]


def table(tasks: Mapping[str, Mapping[str, Any]]) -> str:
    """Return results as a Markdown table, rows of a task under it."""
    controls = "blind | shuffled | majority | length | cascade | tags | gain | listens"
    head = f"| task | metric | value | 95 % | n | unparsed | {controls} |"
    lines = [head, "|---" * 14 + "|"]
    for name, result in tasks.items():
        if "error" in result:
            lines.append(f"| {name} | error: {result['error']} |" + " |" * 12)
            continue
        lines.append(_line(name, result))
        lines += [_line(f"· {row}", inner) for row, inner in result.get("rows", {}).items()]
        lines += [
            _kind_line(f"· {name}: {value}", result["metric"], inner)
            for name, values in result.get("by", {}).items()
            for value, inner in values.items()
        ]
    return "\n".join(lines)


def _line(name: str, result: Mapping[str, Any]) -> str:
    spread = "–".join(number(end) for end in result["ci95"]) + ("*" if result["interval"]["too_few_clusters"] else "")
    cells = [result["metric"], number(result["value"]), spread, str(result["n"]), str(result["unparsed"])]
    cells += [number(result.get(key)) for key in ("blind", "shuffled", "majority", "length")]
    cells += [*map(number, rivals.cells(result)), number(result["gain"])]
    listens = result.get("listens")
    return f"| {name} | " + " | ".join([*cells, "–" if listens is None else "yes" if listens else "**no**"]) + " |"


def _kind_line(name: str, metric: str, result: Mapping[str, Any]) -> str:
    spread = "–".join(number(end) for end in result["ci95"])
    return f"| {name.replace('|', '/')} | {metric} | {number(result['value'])} | {spread} | {result['n']} |" + " |" * 9


def number(value: float | None) -> str:
    """Return a score with three decimals, or a dash."""
    return "–" if value is None else f"{value:.3f}"
