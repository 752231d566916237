"""Where the rows of a run go: a log of JSON lines always, TensorBoard and Weights & Biases when asked."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from ossicle.errors import MissingExtraError, require


class Tracker(Protocol):
    """Takes rows: `stage`, `step`, numbers."""

    def write(self, row: dict[str, Any]) -> None:
        """Take one row."""


class Log:
    """The log of a run, one JSON object per line; each line is flushed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")

    def rows(self, stage: str | None = None) -> list[dict[str, Any]]:
        """Return the rows, of one stage or of all; a last line that was cut off is left out."""
        if not self.path.is_file():
            return []
        rows = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                rows.append(json.loads(line))
        return [row for row in rows if stage is None or row["stage"] == stage]

    def cut(self, order: Sequence[str], stage: int, step: int) -> None:
        """Drop what a resumed run is going to do again: rows of later stages, and of this one from `step` on."""
        place = {name: index for index, name in enumerate(order)}
        kept = [
            row
            for row in self.rows()
            if (place[row["stage"]], row.get("step", row.get("finished", 0) - 1)) < (stage, step)
        ]
        temporary = self.path.with_suffix(".writing")
        temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
        temporary.replace(self.path)


class TensorBoard:
    """Rows as curves in TensorBoard, one run on one axis."""

    def __init__(self, folder: Path) -> None:
        require("tensorboard", "train")
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(folder))

    def write(self, row: dict[str, Any]) -> None:
        """Write every number under `stage/name`."""
        for name, value in row.items():
            if isinstance(value, int | float) and name != "step" and "step" in row:
                self.writer.add_scalar(f"{row['stage']}/{name}", value, row["step"])

    def close(self) -> None:
        """Flush."""
        self.writer.close()


class WeightsAndBiases:
    """Rows to a run of wandb."""

    def __init__(self, folder: Path, recipe: str) -> None:
        import yaml

        try:
            import wandb
        except ModuleNotFoundError:
            raise MissingExtraError("'wandb' is not installed, and report_to names it: pip install wandb") from None
        self.run = wandb.init(dir=str(folder), name=folder.name, config=yaml.safe_load(recipe))

    def write(self, row: dict[str, Any]) -> None:
        """Send the numbers."""
        self.run.log({f"{row['stage']}/{name}": value for name, value in row.items() if isinstance(value, int | float)})

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


@contextlib.contextmanager
def open_trackers(names: Sequence[str], folder: Path, recipe: str) -> Iterator[list[Any]]:
    """Yield the trackers that were asked for, and close them.

    Args:
        names: `tensorboard`, `wandb`.
        folder: Of the run.
        recipe: Resolved recipe as YAML.
    """
    with contextlib.ExitStack() as stack:
        makers = {
            "tensorboard": lambda: TensorBoard(folder / "tensorboard"),
            "wandb": lambda: WeightsAndBiases(folder, recipe),
        }
        trackers = [makers[name]() for name in names]
        for tracker in trackers:
            stack.callback(tracker.close)
        yield trackers
