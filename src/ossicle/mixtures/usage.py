"""Which weak encoders a mixture uses for what: mean weight by group (a task, a class), as a table and a heat map.

    usage = Usage()
    usage.add(["rain", "speech"], encoder.trace)          after a forward pass over these two clips

Source: our choice (MoWE-Audio reports that encoders specialise, after a digest).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ossicle.errors import DataError, require
from ossicle.mixtures.routers import Route


class Usage:
    """Sums of weights by router and group."""

    def __init__(self) -> None:
        self._sums: dict[str, dict[str, Tensor]] = {}
        self._counts: dict[str, int] = {}
        self._members: tuple[str, ...] = ()

    def add(self, groups: Sequence[str], routes: Sequence[Route]) -> None:
        """Count one forward pass.

        Args:
            groups: Group of each clip.
            routes: What each router decided (`Mowe.trace`).

        Raises:
            DataError: Another number of groups than of clips.
        """
        for route in routes:
            if len(route.weights) != len(groups):
                raise DataError(f"usage: {len(groups)} groups for {len(route.weights)} clips")
            self._members = route.members
            sums = self._sums.setdefault(route.router, {})
            for group, weights in zip(groups, route.weights.detach().float().cpu(), strict=True):
                sums[group] = sums.get(group, torch.zeros(len(weights))) + weights
        for group in groups if routes else ():
            self._counts[group] = self._counts.get(group, 0) + 1

    def table(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return router → group → weak encoder → mean weight, groups sorted."""
        return {
            router: {
                group: dict(zip(self._members, (sums[group] / self._counts[group]).tolist(), strict=True))
                for group in sorted(sums)
            }
            for router, sums in self._sums.items()
        }

    def text(self) -> str:
        """Return the table for people."""
        width = max((len(group) for group in self._counts), default=0)
        lines = []
        for router, groups in self.table().items():
            lines.append(f"{router:<{width}}  {'  '.join(f'{member:>8}' for member in self._members)}")
            for group, weights in groups.items():
                columns = zip(self._members, weights.values(), strict=True)
                lines.append(f"{group:<{width}}  {'  '.join(f'{w:>{max(8, len(m))}.2f}' for m, w in columns)}")
        return "\n".join(lines)

    def picture(self, path: Path) -> None:
        """Write the table as a heat map: a panel for each router, a row for each group with its number of clips.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        figure_class = require("matplotlib.figure", "eval").Figure
        tables = self.table()
        count, names = max(1, len(tables)), [f"{group} ({self._counts[group]})" for group in sorted(self._counts)]
        columns = 0.9 * max(1, len(self._members))
        size = (2.0 + 0.08 * max(map(len, names), default=0) + count * columns, 1.6 + 0.3 * max(1, len(names)))
        figure = figure_class(figsize=size, layout="constrained")
        panels = figure.subplots(1, count, squeeze=False)[0]
        for axes, (router, groups) in zip(panels, tables.items(), strict=False):
            rows = [list(weights.values()) for weights in groups.values()]
            image = axes.imshow(rows, vmin=0, vmax=1, aspect="auto", cmap="viridis")
            for y, row in enumerate(rows):
                for x, weight in enumerate(row):
                    axes.text(
                        x, y, f"{weight:.2f}", ha="center", va="center", color="black" if weight > 0.6 else "white"
                    )
            axes.set_title(f"{router} router")
            axes.set_xticks(range(len(self._members)), self._members, rotation=45, ha="right")
            axes.set_yticks(range(len(names)), names if axes is panels[0] else [""] * len(names))
            if axes is panels[-1]:
                figure.colorbar(image, ax=axes, label="mean weight")
        figure.savefig(path)
