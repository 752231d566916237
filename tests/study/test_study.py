"""Studies: rows from axes, one budget, held-out roots, verdicts by hand, and a small study killed and gone on with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from ossicle.cli import app
from ossicle.data.manifest import read_set
from ossicle.errors import ConfigError, DataError, MissingExtraError
from ossicle.study import budget, engines, report, verdicts
from ossicle.study.held_out import root_of
from ossicle.study.plan import Claim, StudyConfig, data_mark, jobs_of, load_study, shipped, unfold
from ossicle.study.run import Plan, run_study
from ossicle.training.recipe import load
from smallest_recipe import SMALLEST

STUDY: dict[str, Any] = {
    "name": "small",
    "recipe": "tiny.yaml",
    "axes": {"integration": {"plits": {}, "lal": {"model.streams.0.integration.kind": "attend"}}},
    "measure": {"suite": "world", "limit": 2, "controls": False},
    "claims": [
        {"paper": "PAL", "says": "fewer operations", "better": "lal", "than": "plits", "cheaper": "train_flops"},
        {"paper": "PAL", "says": "better", "better": "lal", "than": "plits"},
    ],
}


def study(folder: Path, **changes: Any) -> Path:
    (folder / "tiny.yaml").write_text(yaml.safe_dump(SMALLEST), encoding="utf-8")
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False), encoding="utf-8")
    return path


def config(**changes: Any) -> StudyConfig:
    return StudyConfig.model_validate({**STUDY, "claims": [], **changes})


def test_axes_unfold_into_a_product_or_a_star() -> None:
    axes = {"a": {"x": {}, "y": {"recipe": "other", "k": 1}}, "stages.0.steps": [5, 6]}
    rows = unfold(config(axes=axes, set={"k": 0}))
    assert [row.name for row in rows] == ["x, 5", "x, 6", "y, 5", "y, 6"]
    assert (rows[3].recipe, rows[3].settings) == ("other", {"k": 1, "stages.0.steps": 6})
    star = unfold(config(axes=axes, design="star"))
    assert [(row.name, row.labels["stages.0.steps"]) for row in star] == [("x", "5"), ("y", "5"), ("6", "6")]


def test_rows_whose_names_are_alike_in_a_folder_have_folders_of_their_own(tmp_path: Path) -> None:
    names = ["a+", "a-", "a", "ä", "ö", "1", "-1", "a_b", "a-b"]
    jobs = jobs_of(config(axes={"a": {name: {} for name in names}}), study(tmp_path).parent)
    keys = {job.row.name: job.key for job in jobs}
    assert len(set(keys.values())) == len(names)
    assert [keys[name] for name in ("a", "1", "a-b")] == ["a-s0", "1-s0", "a-b-s0"]  # as they always were
    assert all(re.fullmatch(r"[A-Za-z0-9.][A-Za-z0-9.-]*", key) for key in keys.values())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": {"a": {}}}, "no variants"),
        ({"axes": {"a": [1, 1]}}, "two rows are called"),
        ({"headline": ["lall"]}, "did you mean 'lal'"),
        ({"claims": [{"paper": "", "says": "", "better": "lal", "than": "plit"}]}, "did you mean 'plits'"),
        ({"designn": "star"}, "did you mean 'design'"),
        ({"axes": {"a": {"x": {"model.streams.0.conector": 1}}}}, "row 'x'"),
        ({"axes": {"a": {"x": {}, "y": {"stages.0.steps": 3}}}}, "sees 6 samples and the first row 4"),
        ({"axes": {"a": {"x": {"stages.0.steps": None, "stages.0.epochs": 1}}}}, "has epochs"),
        ({"measure": {"suite": "wrld"}}, "no suite or task 'wrld'"),
        ({"recipe": "nowhere"}, "neither a file nor a recipe"),
    ],
)
def test_a_mistake_is_one_line_before_any_row(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    path = study(tmp_path, **({"claims": []} | changes))
    with pytest.raises((ConfigError, DataError), match=said) as caught:
        run_study(Plan(study=str(path), out=tmp_path / "out"), lambda _: None)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "rows.jsonl").exists()


def test_a_budget_of_operations_scales_steps_and_one_of_steps_is_checked(tmp_path: Path) -> None:
    path = study(tmp_path)
    lal = {"model.streams.0.integration.kind": "attend"}
    values = config(
        axes={"a": {"x": {"stages.0.steps": 40}, "y": {"stages.0.steps": 40, **lal}}}, budget={"by": "flops"}
    )
    (first, cost), (second, other) = budget.settle(jobs_of(values, path.parent), values.budget)
    assert first.loaded.recipe.stages[0].steps == 40
    assert second.loaded.recipe.stages[0].steps == other.steps > 40
    assert other.train_flops == pytest.approx(cost.train_flops, rel=0.02)
    assert data_mark(first.loaded) == data_mark(second.loaded)
    assert data_mark(load(str(tmp_path / "tiny.yaml"), ["seed=1"])) != data_mark(first.loaded)


def test_a_held_out_root_holds_what_no_row_was_taught(tmp_path: Path) -> None:
    source = tmp_path / "root" / "fsdd"
    source.mkdir(parents=True)
    rows = [{"path": f"audio/{n}.wav", "speaker": n, "label": 1} for n in ("ann", "bob")]
    (source / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (source / "audio").mkdir()
    (tmp_path / "root" / "whole").mkdir()
    (tmp_path / "root" / "whole" / "manifest.jsonl").write_text("")
    root = root_of(str(tmp_path / "root"), {"fsdd": ["bob"]}, tmp_path / "cut")
    (clip,) = read_set(root / "fsdd")
    assert clip.group == "bob"
    assert (root / "fsdd" / "audio").is_dir() and (root / "whole" / "manifest.jsonl").is_file()
    with pytest.raises(DataError, match="nothing of fsdd"):
        root_of(str(tmp_path / "root"), {"fsdd": ["eve"]}, tmp_path / "other")
    with pytest.raises(DataError, match="no such folder"):
        root_of("${NO_SUCH_VARIABLE_HERE}/x", {}, tmp_path / "third")


def card(right: list[int], *, task: str = "esc10") -> dict[str, Any]:
    marks = [[str(i), float(value), 1.0, str(i)] for i, value in enumerate(right)]
    return {
        "marks": {task: {task: marks}},
        "counted": {task: [task]},
        "tasks": {task: {"metric": "accuracy"}},
        "dataset": "d",
    }


def test_verdicts_by_hand() -> None:
    low, high = [1, 0, 0, 0] * 25, [1, 1, 1, 0] * 25
    rows = {"a": {0: card(low), 1: card(low)}, "b": {0: card(high)}, "c": {0: card(low[::-1])}}
    tests = verdicts.tests_of(rows, [])
    assert [test["seeds"] for test in tests] == [[0], [0]]
    assert tests[0]["tasks"]["all"]["delta"] == pytest.approx(0.5)
    assert tests[0]["tasks"]["all"]["p_rows"] < 0.001
    claim = {"paper": "p", "says": "s"}

    def verdict(better: str, than: str, **more: Any) -> str:
        return verdicts.decide(Claim(**claim, better=better, than=than, **more), rows, {}, [])["verdict"]

    assert verdict("b", "a") == "holds"
    assert verdict("a", "b") == "does not"
    assert verdict("c", "a") == "cannot tell"
    assert verdict("b", "a", by=0.9) == "does not"
    assert verdict("d", "a") == verdict("b", "a", tasks=["nothing"]) == "cannot tell"
    absent = verdicts.decide(Claim(**claim, better="d", than="a"), rows, {}, [])
    assert absent["missing"] == ["d"] and "not measured: d" in report.claims_table([absent])[-1]
    costs = {"a": {"train_flops": 10}, "b": {"train_flops": 6}}
    cheaper = Claim(**claim, better="b", than="a", cheaper="train_flops", share=0.7)
    assert verdicts.decide(cheaper, rows, costs, [])["verdict"] == "holds"
    found = verdicts.score(rows["a"], [])
    assert (found["value"], found["spread"]) == (pytest.approx(0.25), 0.0)
    assert verdicts.score(rows["a"], ["esc10"])["value"] is None


@pytest.mark.parametrize("speakers", [100, 1])
def test_more_seeds_of_the_same_answers_say_no_more(speakers: int) -> None:
    one, other = (card([i % 7 < most for i in range(100)]) for most in (3, 4))
    for found in (one, other):
        for mark in found["marks"]["esc10"]["esc10"]:
            mark[3] = str(int(mark[3]) % speakers)
    single = verdicts.compare_rows({0: one}, {0: other}, [])["tasks"]["esc10"]
    triple = verdicts.compare_rows(dict.fromkeys(range(3), one), dict.fromkeys(range(3), other), [])["tasks"]["esc10"]
    assert triple["too_few_clusters"] == (speakers == 1)
    for key in ("delta", "p", "ci95", "smallest_detectable"):
        assert triple[key] == pytest.approx(single[key], rel=1e-6, abs=1e-9), key


def test_a_study_goes_on_at_the_unfinished_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    path, out = study(tmp_path), tmp_path / "out"
    assert app.run(["study", str(path), "--out", str(out), "--device", "cpu", "--row", "plits", "--json"]) == 0
    first, said = capsys.readouterr()
    assert "2 steps, 4 samples" in said and "FLOP to train" in said
    result = json.loads(first)
    assert ([row["row"] for row in result["rows"]], result["tests"], result["unfinished"]) == (["plits"], [], ["lal"])
    with (out / "rows.jsonl").open("a") as file:
        file.write('{"key": "lal-s0", "row": "la')  # killed while it wrote
    trained = (out / "runs" / "plits-s0" / "result.json").stat().st_mtime_ns
    assert app.run(["study", str(path), "--out", str(out), "--device", "cpu", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [row["row"] for row in result["rows"]] == ["plits", "lal"]
    assert (out / "runs" / "plits-s0" / "result.json").stat().st_mtime_ns == trained
    assert len((out / "rows.jsonl").read_text().splitlines()) == 2
    assert result["tests"][0]["tasks"]["all"]["n"] > 0
    assert result["claims"][0]["verdict"] == "holds"
    assert result["rows"][0]["data"] == result["rows"][1]["data"]
    assert "| lal |" in Path(result["report"]).read_text(encoding="utf-8")
    assert (out / "pareto.png").read_bytes()[:4] == b"\x89PNG"
    assert not (out / "runs" / "lal-s0" / "checkpoints").exists()
    study(tmp_path, seeds=[3])
    assert app.run(["study", str(path), "--out", str(out)]) == 2
    assert "use --out" in capsys.readouterr().err


def test_rows_that_another_recipe_finished_are_not_this_study_s(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = study(tmp_path), tmp_path / "out"
    words = ["study", str(path), "--out", str(out), "--device", "cpu", "--row", "plits", "--json"]
    assert app.run(words) == 0
    (record,) = map(json.loads, (out / "rows.jsonl").read_text().splitlines())
    capsys.readouterr()

    def refused(said: str, *more: str) -> None:
        assert app.run([*words, *more]) == 2
        error = capsys.readouterr().err
        assert said in error.splitlines()[-1] and "use --out" in error, error

    refused("row 'plits', seed 0, was finished with another recipe", "--shrink")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**SMALLEST, "description": "another"}), encoding="utf-8")
    refused("row 'plits', seed 0, was finished with another recipe")
    (out / "rows.jsonl").write_text("")  # killed after it was trained, before it was written down
    refused("the run was begun with 'description: ")
    del record["recipe"]  # as it was written before records said it
    (out / "rows.jsonl").write_text(json.dumps({**record, "key": "plits-old-s0"}) + "\n")
    assert app.run(words) == 0
    assert [row["row"] for row in json.loads(capsys.readouterr().out)["rows"]] == ["plits"]


def test_engines_are_named_and_ray_says_how_to_get_it() -> None:
    with pytest.raises(ConfigError, match="did you mean 'ray'"):
        engines.engine("rai")
    try:
        import ray  # noqa: F401
    except ImportError:
        with pytest.raises(MissingExtraError, match=r"ossicle\[ray\]"):
            next(engines.engine("ray")([], None, print))  # type: ignore[arg-type]


@pytest.mark.slow
def test_ray_runs_the_rows_as_one_process_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The same losses and scores, each row in a process of its own; a row that cannot be run is one line."""
    pytest.importorskip("ray")
    path, found = study(tmp_path), {}
    for name in ("local", "ray"):
        out = ["--out", str(tmp_path / name), "--device", "cpu", "--json"]
        assert app.run(["study", str(path), "--engine", name, *out]) == 0
        result = json.loads(capsys.readouterr().out)
        assert result["unfinished"] == []
        found[name] = [(row["row"], row["score"]["value"], row["last_loss"]) for row in result["rows"]]
        assert len((tmp_path / name / "rows.jsonl").read_text().splitlines()) == 2
    assert found["ray"] == found["local"]
    gone = study(
        tmp_path, set={"data.sounds": {"kind": "messages", "path": str(tmp_path / "nowhere.jsonl")}}, claims=[]
    )
    assert app.run(["study", str(gone), "--engine", "ray", "--out", str(tmp_path / "gone"), "--device", "cpu"]) == 2
    assert "nowhere.jsonl" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_study_is_whole_and_changes_nothing_but_what_it_names(name: str) -> None:
    values, folder = load_study(name)
    jobs = jobs_of(values, folder)
    assert len({job.key for job in jobs}) == len(jobs)
    asked = [[s for s in job.loaded.recipe.stages if "stream" not in s.objective] for job in jobs]
    assert len({sum((s.steps or 0) * s.batch_size for s in stages) for stages in asked}) == 1
    rows = {job.row.name: job for job in jobs if job.seed == 0}
    base = jobs[0].loaded.recipe
    for job in rows.values():
        assert job.loaded.recipe.model.language_model == base.model.language_model
        given = {source: job.loaded.recipe.data[source] for source in base.data}
        assert (given == base.data) == (job.row.labels["material"] == "joint"), job.row.name
    assert len(rows) == 17
    assert {job.seed for job in jobs if job.row.name == "lal"} == {0, 1, 2}
    assert {job.seed for job in jobs if job.row.name == "concat"} == {0}


def test_the_page_of_the_family_says_what_was_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    root = Path(__file__).parents[2]
    spec = importlib.util.spec_from_file_location("family_report", root / "docs" / "family_report.py")
    assert spec is not None
    assert spec.loader is not None
    page = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(page)
    assert (root / "docs/family.md").read_text(encoding="utf-8") == page.family(), "run: python docs/family_report.py"
    for name in page.PAPERS:
        text = (root / f"docs/papers/{name}.md").read_text(encoding="utf-8")
        assert text == page.paper(name), "run: python docs/family_report.py"
    monkeypatch.setattr(page, "KEPT", root / "nowhere.json")
    assert "**0 of 17 rows have been measured.**" in page.family()
