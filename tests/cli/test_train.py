"""`train`, `inspect` and `list` from the outside: what they print, and what they say about mistakes."""

from __future__ import annotations

import copy
import json
import signal
from pathlib import Path

import pytest
import yaml

from ossicle.cli import app
from ossicle.training.loop import StageRun, StepReport
from smallest_recipe import SMALLEST


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "cli.yaml"
    made = copy.deepcopy({**SMALLEST, "name": "cli"})
    made["model"]["streams"][0]["integration"]["kind"] = "attend"
    path.write_text(yaml.safe_dump(made, sort_keys=False), encoding="utf-8")
    return path


def test_train_prints_stages_and_the_model_folder(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["train", str(recipe), "stages.0.steps=3", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert [(stage["name"], stage["steps"]) for stage in result["stages"]] == [("all", 3)]
    assert {"first_loss", "last_loss", "seconds"} <= set(result["stages"][0])
    assert result["checkpoint"] == "runs/cli/model"
    assert (recipe.parent / result["checkpoint"] / "model.safetensors").is_file()
    assert "stage 'all' trains:" in err
    assert "device cpu" in err
    assert app.run(["train", str(recipe), "stages.0.steps=3", "--device", "cpu", "--resume", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["checkpoint"] == result["checkpoint"]
    assert app.run(["train", str(recipe), "--device", "cpu", "--shrink"]) == 0
    assert "model: runs/cli-shrunk/model" in capsys.readouterr().out


def test_the_number_format_that_is_told_is_the_one_that_is_trained_in(
    recipe: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    (stage,) = made["stages"]
    two = [{**stage, "name": name, "precision": name, "steps": 1} for name in ("fp32", "bf16")]
    recipe.write_text(yaml.safe_dump({**made, "stages": two}, sort_keys=False), encoding="utf-8")
    lower = "fp32 weights, bfloat16 autocast"
    for more, told in (
        ([], f"fp32, then {lower}"),
        (["--dtype", "bf16"], lower),
        (["--dtype", "fp32"], "fp32"),
    ):
        assert app.run(["train", str(recipe), "--device", "cpu", *more]) == 0
        assert f"ossicle: device cpu, {told}, attention" in capsys.readouterr().err


def test_ctrl_c_says_where_it_stopped_and_how_to_go_on(
    recipe: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    step = StageRun.step

    def asked(self: StageRun, number: int) -> StepReport:
        signal.raise_signal(signal.SIGINT)
        return step(self, number)

    monkeypatch.setattr(StageRun, "step", asked)
    words = ["train", str(recipe), "stages.0.steps=3", "--device", "cpu"]
    assert app.run(words) == 130
    told = capsys.readouterr().err.splitlines()
    assert told[-1] == "ossicle: stopped"
    assert told[-2] == "ossicle: stopped after step 1 of stage 'all', which is saved; go on with --resume"
    monkeypatch.undo()
    monkeypatch.chdir(recipe.parent)
    assert app.run([*words, "--resume"]) == 0
    assert "resumed after step 1" in capsys.readouterr().err


def test_inspect_prints_the_promised_keys(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["inspect", str(recipe), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert set(facts["parameters"]) == {"total", "by_part"}
    stage = facts["stages"][0]
    assert {"name", "trainable", "by_part", "effective_batch", "learning_rate", "steps"} <= set(stage)
    assert isinstance(stage["trainable"], int)
    stream = {"name", "encoder", "integration", "layers", "tokens_per_10s", "flops_per_s"}
    assert stream <= set(facts["streams"][0])
    assert "one mask for all layers" in facts["attention"]["cpu"] and "without a mask" in facts["attention"]["cuda"]
    assert facts["needs"] == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["train", "cli.yaml", "stages.0.stepz=3"],
            "override 'stages.0.stepz=3': unknown key 'stages.0.stepz'; did you",
        ),
        (["train", "nano-smoc"], "did you mean 'nano-smoke'?"),
        (["train", "cli.yaml", "data.sounds.kind=messages"], "cli.yaml:30: 'data.sounds.path' is missing"),
        (["inspect", "nothing-like-it"], "neither a file nor a recipe"),
        (["list", "encoder"], "did you mean 'encoders'?"),
        (["train", "cli.yaml", "--device", "quantum"], "--device quantum"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    recipe: Path, capsys: pytest.CaptureFixture[str], words: list[str], expected: str
) -> None:
    assert app.run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    last = err.strip().splitlines()[-1]
    assert last.startswith("ossicle: error: ")
    assert expected in last
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("what", "name"),
    [
        ("encoders", "cnn"),
        ("connectors", "mlp"),
        ("integrations", "attend"),
        ("objectives", "next_token"),
        ("sources", "messages"),
        ("recipes", "nano-smoke"),
        ("models", "nano"),
        ("tasks", "esc10"),
        ("mixtures", ""),
    ],
)
def test_list_names_what_there_is(what: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app.run(["list", what, "--json"]) == 0
    items = json.loads(capsys.readouterr().out)["items"]
    assert not name or name in {item["name"] for item in items}
    assert all(item["about"] for item in items)
