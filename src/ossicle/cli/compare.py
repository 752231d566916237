"""`ossicle compare A.json B.json`: two result cards, item by item."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ossicle.cli.options import JsonOption, SeedOption
from ossicle.cli.output import emit

app = typer.Typer()


@app.command()
def command(
    first: Annotated[Path, typer.Argument(help="A card.json that `ossicle eval` wrote.")],
    second: Annotated[Path, typer.Argument(help="Another one; positive deltas mean that it is higher.")],
    seed: SeedOption = 0,
    json: JsonOption = False,
) -> None:
    """Compare two result cards, paired."""
    from ossicle.evaluation.card import read_card
    from ossicle.evaluation.compare import compare_cards, comparison_table

    result = compare_cards(read_card(first), read_card(second), seed=seed)
    emit(result, json=json, text=comparison_table(result))
