"""Recipes: mistakes in every part have file and line, shipped ones are right, and inspection adds up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipe import TINY, tiny, write

from ossicle import config
from ossicle.errors import ConfigError
from ossicle.training import estimate, inspection
from ossicle.training.build import build, outline
from ossicle.training.recipe import load, shipped
from ossicle.training.run import Run
from ossicle.training.shrink import shrink


def line_of(path: Path, text: str) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    return next(number for number, line in enumerate(lines, 1) if text in line)


def changed(change: Any) -> dict[str, Any]:
    values = copy.deepcopy(TINY)
    change(values)
    return values


@pytest.mark.parametrize(
    ("change", "at", "expected"),
    [
        (lambda v: v.update(sead=1), "sead", "unknown key 'sead'; did you mean 'seed'?"),
        (lambda v: v["stages"][0].update(lerning_rate=1), "lerning_rate", "unknown key 'stages.0.lerning_rate'"),
        (lambda v: v["stages"][1].update(learning_rate=-1), "learning_rate: -1", "'stages.1.learning_rate' is -1"),
        (lambda v: v["model"]["streams"][0]["encoder"].update(depht=1), "depht", "did you mean 'depth'?"),
        (lambda v: v["model"]["streams"][0]["encoder"].update(kind="cn"), "kind: cn\n", "did you mean 'cnn'?"),
        (lambda v: v["model"]["streams"][0]["connector"].update(hiden=1), "hiden", "did you mean 'hidden'?"),
        (lambda v: v["model"]["streams"][0]["integration"].update(kind="attent"), "attent", "did you mean 'attend'?"),
        (
            lambda v: v["stages"][0].update(objective={"kind": "next_tokens"}),
            "next_tokens",
            "did you mean 'next_token'?",
        ),
        (lambda v: v["stages"][0].update(mix=[{"source": "sound"}]), "source: sound\n", "did you mean 'sounds'?"),
        (lambda v: v["stages"][0].update(steps=None), "name: align", "give either 'steps' or 'epochs'"),
        (lambda v: v["stages"][0].update(micro_batch_size=3), "name: align", "no multiple of 'micro_batch_size' 3"),
        (lambda v: v["data"]["sounds"].update(clip=1), "clip: 1", "did you mean 'clip_s'?"),
        (lambda v: v["data"]["sounds"].update(kind="world_sound"), "world_sound\n", "did you mean 'world_sounds'?"),
        (lambda v: v["stages"][1]["train"].append("conector"), "- conector", "did you mean 'connector'?"),
        (lambda v: v["stages"][1].update(name="align"), "", "two stages are called 'align'"),
        (lambda v: v["model"].pop("language_model"), "model:", "give 'language_model' and 'streams', or 'start'"),
    ],
)
def test_a_mistake_anywhere_is_one_line_with_its_place(tmp_path: Path, change: Any, at: str, expected: str) -> None:
    path = write(tmp_path, **changed(change))
    if "model" in changed(change) and "language_model" not in changed(change)["model"]:
        path = write(tmp_path, model={"streams": TINY["model"]["streams"]})
    with pytest.raises(ConfigError) as caught:
        load(str(path))
    text = str(caught.value)
    assert text.startswith(f"{path}:")
    assert expected in text
    assert "\n" not in text
    if at and not at.startswith("name:"):
        found = int(text.removeprefix(f"{path}:").split(":")[0])
        near = [n for n, line in enumerate(path.read_text(encoding="utf-8").splitlines(keepends=True), 1) if at in line]
        assert found in near or found + 1 in near, (found, near)


def test_a_name_that_is_no_recipe() -> None:
    with pytest.raises(ConfigError, match="neither a file nor a recipe of ossicle; did you mean 'nano-smoke'"):
        load("nano-smok")
    with pytest.raises(ConfigError, match="no such file"):
        load("nowhere/nano.yaml")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_recipe_is_right_and_survives_its_dump(name: str, tmp_path: Path) -> None:
    recipe = load(name).recipe
    assert recipe.name == name
    assert recipe.description
    path = tmp_path / "again.yaml"
    path.write_text(config.dump(recipe), encoding="utf-8")
    assert load(str(path)).recipe == recipe


def test_a_recipe_may_change_a_shipped_one(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("base: nano-smoke\nname: mine\nseed: 5\n", encoding="utf-8")
    mine, base = load(str(path)).recipe, load("nano-smoke").recipe
    assert mine == base.model_copy(update={"name": "mine", "seed": 5})


def test_the_outline_has_the_names_and_shapes_of_the_model(tmp_path: Path) -> None:
    loaded = tiny(tmp_path)
    real = build(loaded.recipe, Run(loaded, tmp_path / "out").open_sources()).model
    meta = outline(loaded.recipe)
    shapes = {name: tuple(p.shape) for name, p in real.named_parameters()}
    assert {name: tuple(p.shape) for name, p in meta.named_parameters()} == shapes
    assert {p.device for p in meta.parameters()} == {torch.device("meta")}


def test_inspection_counts_what_each_stage_trains(tmp_path: Path) -> None:
    facts = inspection.inspect_recipe(tiny(tmp_path))
    parts = facts["parameters"]["by_part"]
    assert facts["parameters"]["total"] == sum(parts.values())
    align, everything = facts["stages"]
    assert align["trainable"] == align["by_part"]["streams.sound.connector"] == parts["streams.sound.connector"]
    assert everything["trainable"] == facts["parameters"]["total"]
    assert (align["effective_batch"], align["steps"], align["learning_rate"]) == (4, 5, 1e-3)
    stream = facts["streams"][0]
    assert (stream["encoder"], stream["integration"], stream["layers"]) == ("cnn", "attend", [0, 1])
    assert stream["tokens_per_10s"] == 125
    assert stream["flops_per_s"] > 1000
    assert facts["needs"] == []
    json.dumps(facts)
    assert "stage align" in inspection.text_of(facts)


def test_inspection_lists_needs_and_steps_of_epochs(tmp_path: Path) -> None:
    data = {**TINY["data"], "mine": {"kind": "messages", "path": "none.jsonl", "licence": "CC0"}}
    stages = copy.deepcopy(TINY["stages"])
    stages[0] |= {"steps": None, "epochs": 2, "mix": [{"source": "sounds"}]}
    stages[1] |= {"steps": None, "epochs": 1, "mix": [{"source": "mine"}]}
    facts = inspection.inspect_recipe(tiny(tmp_path, data=data, stages=stages))
    assert [stage["steps"] for stage in facts["stages"]] == [12, None]
    need = facts["needs"][0]
    assert (need["present"], need["licence"]) == (False, "CC0")


def test_inspection_estimates_memory_operations_and_hours(tmp_path: Path) -> None:
    facts = inspection.inspect_recipe(tiny(tmp_path))
    align, everything = facts["stages"]
    total, parts = facts["parameters"]["total"], facts["parameters"]["by_part"]
    assert align["memory_bytes"] > 4 * total + 12 * parts["streams.sound.connector"]
    more = everything["memory_bytes"] - align["memory_bytes"]
    assert more > 12 * (total - parts["streams.sound.connector"])
    assert everything["flops"] / 6 > align["flops"] / 5  # all weights train, not the connector alone
    assert estimate.hours(10**18)["laptop"] > estimate.hours(10**18)["gpu"] > 0
    assert "on a GPU" in inspection.text_of(facts)
    stages = [{**copy.deepcopy(TINY["stages"][0]), "feature_cache": cached} for cached in (False, True)]
    kept = [inspection.inspect_recipe(tiny(tmp_path, stages=[stage]))["stages"][0]["flops"] for stage in stages]
    assert kept[0] - kept[1] == pytest.approx(5 * 4 * 5.0 * facts["streams"][0]["flops_per_s"], rel=0.01)


def test_inspection_prints_every_member_of_a_mixture_and_which_is_not_weak(tmp_path: Path) -> None:
    base = copy.deepcopy(TINY["model"]["streams"][0]["encoder"])
    strong = {**base, "dim": 32, "depth": 2}
    model = copy.deepcopy(TINY["model"])
    model["streams"][0]["encoder"] = {"kind": "mowe", "base": base, "pool": [strong, base]}
    facts = inspection.inspect_recipe(tiny(tmp_path, model=model))
    (stream,) = facts["streams"]
    names = [member["name"] for member in stream["members"]]
    assert names == ["base cnn", "cnn-1", "cnn-2"]
    assert stream["flops_per_s"] == sum(member["flops_per_s"] for member in stream["members"])
    assert [warning.split(" has ")[0] for warning in stream["warnings"]] == [
        "weak encoder 'cnn-1'",
        "weak encoder 'cnn-2'",
    ]
    said = inspection.text_of(facts)
    assert f"cnn-1: {stream['members'][1]['parameters']:,} parameters" in said
    assert "GFLOPs per second of audio" in said and "warning: weak encoder 'cnn-1'" in said


def test_lora_is_counted_by_its_own_formula(tmp_path: Path) -> None:
    model = {**copy.deepcopy(TINY["model"]), "lora": {"r": 3, "target_modules": ["q_proj", "v_proj"]}}
    stages = copy.deepcopy(TINY["stages"])
    stages[1]["train"] = ["lora", "connector"]
    facts = inspection.inspect_recipe(tiny(tmp_path, model=model, stages=stages))
    per_layer = 3 * (32 + 32) + 3 * (32 + 16)
    assert facts["stages"][1]["by_part"]["lora"] == 2 * per_layer
    assert facts["stages"][0]["by_part"]["lora"] == 0


def test_lora_trains_alone_and_is_folded_into_the_result(tmp_path: Path) -> None:
    from ossicle.model import AudioLM

    model = {**copy.deepcopy(TINY["model"]), "lora": {"r": 2, "target_modules": "all-linear"}}
    stage = {**copy.deepcopy(TINY["stages"][1]), "train": ["lora"], "steps": 3}
    loaded = tiny(tmp_path, model=model, stages=[stage])
    run = Run(loaded, tmp_path / "out", tell=lambda _: None)
    start = build(loaded.recipe, run.open_sources()).model.state_dict()
    after = AudioLM.from_pretrained(run.train().checkpoint).state_dict()
    assert not any("lora" in name for name in after)
    moved = {name for name in after if not torch.equal(after[name], start.get(name, start.get(_base(name))))}
    assert moved
    assert all("_proj" in name for name in moved)


def _base(name: str) -> str:
    head, _, last = name.rpartition(".")
    return f"{head}.base_layer.{last}"


@pytest.mark.parametrize("name", shipped())
def test_a_shrunk_recipe_keeps_its_parts_and_stages(name: str) -> None:
    whole, small = load(name).recipe, shrink(load(name)).recipe
    assert [(s.name, s.train, s.objective["kind"]) for s in small.stages] == [
        (s.name, s.train, s.objective["kind"]) for s in whole.stages
    ]
    for before, after in zip(whole.model.streams, small.model.streams, strict=True):
        assert after.connector["kind"] == before.connector["kind"]
        assert after.integration["kind"] == before.integration["kind"]
        assert isinstance(after.encoder, str) or after.encoder["kind"] == before.encoder["kind"]  # type: ignore[index]
    assert all(stage.steps == 3 for stage in small.stages)
