"""Writes the committed result cards, docs/cards/: `make cards` or `python docs/cards.py MODEL…`.

Every model (a folder, or one that ships) runs suites `nano` and `clips` over the folder OSSICLE_DATA, seed 0, at most
60 clips a task, unless `--limit` says otherwise (0 = all); answers stay in build/cards, so that a stopped run goes on.
`ossicle eval MODEL --verify docs/cards/NAME-SUITE.json --root DIR` checks a card.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from ossicle.evaluation.card import page, read_card
from ossicle.evaluation.models import open_model, open_rivals
from ossicle.evaluation.run import Setting, run_suite

ROOT = Path(__file__).parents[1]
CARDS = ROOT / "docs/cards"
SUITES = ("nano", "clips")
LIMIT = 60


def main(words: Sequence[str] | None = None) -> None:
    """Run what is asked for and write its cards and their index."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["nano"])
    parser.add_argument("--suites", nargs="*", default=list(SUITES))
    parser.add_argument("--root", type=Path, default=os.environ.get("OSSICLE_DATA"))
    parser.add_argument("--limit", type=int, default=LIMIT)
    parser.add_argument("--beside", nargs="*", default=[])
    parser.add_argument("--note", default="", help="what a reader of the card has to know about the model")
    parser.add_argument("--to", type=Path, default=CARDS)
    chosen = parser.parse_args(words)
    if chosen.root is None:
        parser.error("no recordings: give --root DIR, or set OSSICLE_DATA")
    for model in chosen.models:
        write_cards(model, chosen)
    write_index(chosen.to)


def write_cards(model: str, chosen: argparse.Namespace) -> None:
    """Run one model on every suite and copy its cards."""
    answerer, identity = open_model(model)
    identity |= {"note": chosen.note} if chosen.note else {}
    rivals = open_rivals(chosen.beside)
    for suite in chosen.suites:
        limit = chosen.limit or None
        setting = Setting(
            suite=suite, root=Path(chosen.root), limit=limit, rivals=rivals, text_only=True, progress=True
        )
        name = f"{identity['name']}-{suite}"
        out = ROOT / "build/cards" / f"{name}-{identity['hash'][:8]}"
        result = run_suite(setting, answerer, out=out, model=identity, report=True)
        chosen.to.mkdir(parents=True, exist_ok=True)
        for suffix in ("json", "md"):
            text = Path(result["card"]).with_suffix(f".{suffix}").read_text(encoding="utf-8")
            (chosen.to / f"{name}.{suffix}").write_text(text, encoding="utf-8")


def write_index(folder: Path) -> None:
    """Write the page that holds the tables of all cards."""
    parts = [
        "# Result cards\n",
        "Written by `make cards`. Each JSON beside this page holds prompts, parsers, hashes, versions and the mark of",
        "every question; `ossicle eval MODEL --verify CARD --root DIR` reruns one and says whether it reproduces.\n",
        "The sets are taken whole, so a model may have been taught some of these recordings: nano was, of every set",
        "that its card names as taught. Its scores on recordings that it never met are in [nano](../nano.md).\n",
    ]
    for path in sorted(folder.glob("*.json")):
        body = page(read_card(path)).replace("\n# ", "\n## ", 1)
        parts.append(f"#{body}" if body.startswith("# ") else body)
    (folder / "README.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
