"""One row of a study: trained, asked, and written down.

    Job ──train (resumed where it stopped)──► model ──suite──► card ──► one line of rows.jsonl

Training goes on after its last checkpoint and asking after its last answer, so a killed study loses little.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ossicle import config
from ossicle.data.rows import read_appended
from ossicle.evaluation.models import open_model
from ossicle.evaluation.run import Setting, run_suite
from ossicle.evaluation.task import suite_specs
from ossicle.study.budget import Cost
from ossicle.study.plan import Job, Measure, data_mark, recipe_mark
from ossicle.training.run import Run, same_recipe

KEPT = ("metric", "value", "ci95", "n", "blind", "shuffled", "majority", "gain", "error")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and how the rows of a study are run.

    Attributes:
        out: Folder of the study.
        root: Folder of sets that rows are scored on.
        measure: How they are scored.
        device: Where they are computed.
        shrink: The recipes were shrunk.
    """

    out: Path
    root: Path
    measure: Measure
    device: str
    shrink: bool = False

    def folder(self, key: str) -> Path:
        """Return the folder of one row's run."""
        return self.out / "runs" / key


def run_job(job: Job, cost: Cost, place: Place, tell: Callable[[str], None]) -> dict[str, Any]:
    """Run one row with one seed, from where it stopped; return its record.

    Raises:
        UserError: The recipe, its data or the suite does not fit.
    """
    folder = place.folder(job.key)
    stages = _trained(job, place, folder, tell)
    began = time.perf_counter()
    engine, identity = open_model(str(folder / "model"), device=place.device)
    setting = Setting(
        suite=place.measure.suite,
        root=place.root,
        limit=place.measure.limit,
        controls=place.measure.controls,
    )
    specs = [spec.model_copy(update={"suites": []}) for spec in suite_specs(setting.suite)]  # scores, no refusals
    result = run_suite(setting, engine, out=folder / "eval", model={**identity, "name": job.key}, specs=specs)
    return {
        "row": job.row.name,
        "seed": job.seed,
        "labels": job.row.labels,
        "key": job.key,
        "data": data_mark(job.loaded),
        "recipe": recipe_mark(job.loaded, shrink=place.shrink),
        "cost": asdict(cost),
        "stages": stages,
        "train_s": round(sum(stage["seconds"] for stage in stages), 1),
        "asked_s": round(time.perf_counter() - began, 1),
        "device": identity["setting"],
        "tasks": {name: {k: found[k] for k in KEPT if k in found} for name, found in result["tasks"].items()},
        "card": str(Path(result["card"]).relative_to(place.out)),
    }


def _trained(job: Job, place: Place, folder: Path, tell: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the results of the stages, after training what is not trained yet."""
    done = folder / "result.json"
    if done.is_file():
        same_recipe(folder / "recipe.yaml", config.dump(job.loaded.recipe))
    else:
        run = Run(job.loaded, folder, device=_device(place.device), shrink=place.shrink, tell=tell)
        run.train(resume=folder.exists())
    stages: list[dict[str, Any]] = json.loads(done.read_text(encoding="utf-8"))["stages"]
    return stages


def _device(name: str) -> Any:
    from ossicle.inference.engine import choose_device

    return choose_device(name)


class Rows:
    """The file of finished rows, `rows.jsonl`: one object a line, appended whole."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.records: dict[tuple[str, int], dict[str, Any]] = {
            (row["row"], row["seed"]): row for row in read_appended(path)
        }

    def add(self, record: Mapping[str, Any], folder: Path) -> None:
        """Append a record; its run's checkpoints are then no longer needed."""
        self.records[record["row"], record["seed"]] = dict(record)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record, ensure_ascii=False, default=str) + "\n")
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
