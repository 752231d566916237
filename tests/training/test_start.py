"""Training on from a finished model, and where the rows of a run go."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path

import pytest
import yaml
from tiny_recipe import TINY, tiny

from ossicle.errors import CheckpointError, ConfigError, MissingExtraError
from ossicle.training import inspection
from ossicle.training.recipe import Loaded, load
from ossicle.training.run import Run
from ossicle.training.trackers import Log, open_trackers


def further(folder: Path, start: Path) -> Loaded:
    stage = {**copy.deepcopy(TINY["stages"][1]), "steps": 2, "warmup_steps": 0}
    values = {"name": "further", "model": {"start": str(start)}, "data": TINY["data"], "stages": [stage]}
    path = folder / "further.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return load(str(path))


def test_a_model_is_trained_further_with_its_own_decoder_and_tokenizer(tmp_path: Path) -> None:
    first = Run(tiny(tmp_path, "stages.1.steps=20"), tmp_path / "first", tell=lambda _: None).train()
    loaded = further(tmp_path, first.checkpoint)
    total = inspection.inspect_recipe(loaded)["parameters"]["total"]
    assert total == inspection.inspect_folder(first.checkpoint)["parameters"]["total"]
    second = Run(loaded, tmp_path / "second", tell=lambda _: None).train()
    assert second.stages[0].first_loss == pytest.approx(first.stages[1].last_loss, rel=0.25)
    assert second.stages[0].first_loss < 0.8 * first.stages[0].first_loss
    vocabulary = [
        (folder / "tokenizer.json").read_text(encoding="utf-8") for folder in (first.checkpoint, second.checkpoint)
    ]
    assert vocabulary[0] == vocabulary[1]


def test_a_start_that_is_not_there_and_one_with_parts_of_its_own(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model.start '.*nowhere': no folder with a config.json"):
        inspection.inspect_recipe(further(tmp_path, tmp_path / "nowhere"))
    both = {**TINY["model"], "start": "nano"}
    with pytest.raises(ConfigError, match="'start' brings decoder and streams with it"):
        tiny(tmp_path, model=both)


def test_rows_are_cut_where_a_run_goes_on_and_a_torn_line_is_dropped(tmp_path: Path) -> None:
    log = Log(tmp_path / "log.jsonl")
    for stage, step in (("a", 0), ("a", 1), ("b", 0), ("b", 1), ("b", 2)):
        log.write({"stage": stage, "step": step, "loss": 1.0})
    log.write({"stage": "b", "finished": 3})
    with log.path.open("a", encoding="utf-8") as file:
        file.write('{"stage": "b", "st')
    log.cut(["a", "b"], 1, 3)
    assert len(log.rows("b")) == 4
    log.cut(["a", "b"], 1, 1)
    assert [(row["stage"], row["step"]) for row in log.rows()] == [("a", 0), ("a", 1), ("b", 0)]
    assert all(json.loads(line) for line in log.path.read_text(encoding="utf-8").splitlines())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_curves_go_to_tensorboard_when_asked(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with open_trackers(["tensorboard"], tmp_path, "") as trackers:
        for step in range(3):
            trackers[0].write({"stage": "all", "step": step, "loss": 3.0 - step})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [event.value for event in events.Scalars("all/loss")] == [3.0, 2.0, 1.0]


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_a_missing_tracker_names_its_install_command(tmp_path: Path) -> None:
    with pytest.raises(MissingExtraError, match="pip install wandb"), open_trackers(["wandb"], tmp_path, "a: 1"):
        pass
