"""What the papers leave open is a setting with a default and a reason, and every value of it can be learned with."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from integration.tiny_models import CNN, MARKER, clips, stream, text, tiny_model
from ossicle.data.mix import Mix
from ossicle.training import freeze
from ossicle.training.objectives.base import StageContext
from ossicle.training.recipe import load
from ossicle.training.run import Run, build, build_objective, prepare
from smallest_recipe import SMALLEST

TABLE = yaml.safe_load((Path(__file__).parents[2] / "docs" / "unknown.yaml").read_text(encoding="utf-8"))
ROWS = [row for rows in TABLE.values() for row in rows]
SMALL = {**CNN, "dim": 8, "channels": [4, 4, 4, 4]}
MOWE = {"kind": "mowe", "base": CNN, "pool": [SMALL, SMALL], "top_k": 1}
QFORMER = {"kind": "qformer", "queries": 4, "hidden": 16, "depth": 1, "heads": 2}


def models(row):
    """A stream for each value of a setting that lies in a model, None where it lies elsewhere."""
    schema, field = row["setting"].split(".")
    for value in row["values"]:
        change = {field: value}
        if schema == "AttendConfig":
            yield stream(**change)
        elif schema == "MoweConfig":
            along_time = change | ({"width": None} if value == "time" else {})
            yield stream(kind="prepend", encoder={**MOWE, **along_time})
        elif schema in ("MlpConfig", "QformerConfig", "StackConfig"):
            kind = schema.removesuffix("Config").lower()
            yield stream(kind="prepend", connector={**(QFORMER if kind == "qformer" else {"kind": kind}), **change})


MODELS = [
    pytest.param(row, spec, id=f"{row['setting']}-{value}")
    for row in ROWS
    for value, spec in zip(row["values"], models(row), strict=False)
]


@pytest.mark.parametrize(("row", "spec"), MODELS)
def test_every_value_learns(row, spec):
    model = tiny_model(streams=[spec]).train()
    encoder = model.streams.ear.encoder
    if hasattr(encoder, "set_progress"):
        encoder.set_progress(0.6)
    audio, lengths = clips(0.4, 0.3)
    ids, mask = text(model, [["a", 4], ["a", 5]], lengths)
    labels = ids.masked_fill((mask == 0) | (ids >= MARKER), -100)
    model(ids, attention_mask=mask, labels=labels, audio_values=audio, audio_lengths=lengths).loss.backward()
    parts = [model.streams.ear.connector, *([encoder.router] if hasattr(encoder, "router") else [])]
    for part in (*parts, *([model.streams.ear.integration] if row["setting"].endswith("own_projections") else [])):
        trained = list(part.parameters())
        assert not trained or any(p.grad is not None and p.grad.abs().sum() > 0 for p in trained)
        assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in trained)


IN_A_RECIPE = {
    "LanguageModelSpec.pretrained": "model.language_model.pretrained",
    "LoraSpec.r": "model.lora.r",
    "LoraSpec.target_modules": "model.lora.target_modules",
    "MessagesConfig.clean_transcripts": "data.said.clean_transcripts",
    "ModelSpec.template": "model.template",
    "NextTokenConfig.transcribe": "stages.0.objective.transcribe",
    "Stage.loss_on": "stages.0.loss_on",
    "Stage.train": "stages.0.train",
    "TaggingConfig.time_mean": "stages.0.objective.time_mean",
}
"""Where a setting stands that lies in a recipe and not in a model."""
STEPS = [
    pytest.param(row["setting"], value, id=f"{row['setting']}-{value}")
    for row in ROWS
    if row["setting"] in IN_A_RECIPE
    for value in row["values"]
]


@pytest.fixture(scope="module")
def small_ltu_as(tmp_path_factory):
    """LTU-AS at the smallest size: all layers through TLTR, an Alpaca prompt, adapters, a file with transcripts."""
    folder = tmp_path_factory.mktemp("ltu-as")
    recipe = copy.deepcopy(SMALLEST)
    ear = recipe["model"]["streams"][0]
    ear["encoder"] |= {"layers": "all"}
    ear["connector"] = {"kind": "tltr", "heads": 2}
    recipe["model"] |= {"template": "alpaca", "lora": {"r": 2, "target_modules": ["q_proj"]}}
    soundfile.write(folder / "a.wav", torch.sin(torch.arange(4800) / 9).numpy() * 0.3, 16_000)
    said = {"instruction": "Who speaks?", "input": " Thanks for watching. Hello", "audio_id": "a.wav", "output": "Ann"}
    (folder / "said.json").write_text(json.dumps([said, {**said, "output": "Bob"}]), encoding="utf-8")
    recipe["data"]["said"] = {"kind": "messages", "path": str(folder / "said.json")}
    recipe["stages"][0] |= {"train": ["connector", "lora"], "mix": [{"source": "said"}], "audio_dropout": 0.0}
    recipe["stages"][0]["objective"] = {"kind": "next_token"}
    (folder / "small.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return folder / "small.yaml"


@pytest.mark.parametrize(("setting", "value"), STEPS)
def test_every_value_of_a_recipe_learns(setting, value, small_ltu_as):
    """One batch of the stage that the value leads to: every part it trains gets a gradient, and no other part does."""
    overrides = [f"{IN_A_RECIPE[setting]}={json.dumps(value)}"]
    if setting.startswith("Tagging"):
        overrides = ["stages.0.objective={kind: tagging, stream: sound}", "stages.0.mix=[{source: sounds}]", *overrides]
        overrides += [r"stages.0.train=['(time_tr|layer_tr)\.']"]
    run = Run(load(str(small_ltu_as), overrides), small_ltu_as.parent / "out", tell=lambda _: None)
    sources = run.open_sources()
    built, (stage,) = build(run.recipe, sources), run.recipe.stages
    prepare(built.model, stage)
    mix = Mix(sources, stage.mix, seed=0)
    context = StageContext(
        model=built.model, processor=built.processor, recipe=run.recipe, stage=stage, data=mix, stage_index=0
    )
    objective = build_objective(stage, context)
    out = objective.loss(objective.batch(0))
    out.total.backward()
    named = list(built.model.named_parameters())
    got = {freeze.part_of(name) for name, p in named if p.grad is not None and float(p.grad.abs().sum()) > 0}
    assert got == {freeze.part_of(name) for name, p in named if p.requires_grad}
    assert all(bool(torch.isfinite(p.grad).all()) for _, p in named if p.grad is not None)


def schemas_by_name():
    """Return the settings schemas that the table names."""
    from ossicle import registry
    from ossicle.data.readers import MessagesConfig
    from ossicle.training.recipe import LanguageModelSpec, LoraSpec, ModelSpec, Stage

    known = {schema.__name__: schema for schema in (MessagesConfig, LanguageModelSpec, LoraSpec, ModelSpec, Stage)}
    for room in ("integration", "connectors", "training.objectives"):
        known |= {
            registry.lookup(room, kind).Config.__name__: registry.lookup(room, kind).Config for kind in KINDS[room]
        }
    return known | {"MoweConfig": registry.lookup("encoders", "mowe").Config}


KINDS = {
    "integration": ["attend"],
    "connectors": ["mlp", "qformer", "stack"],
    "training.objectives": ["next_token", "tagging"],
}


def test_every_setting_exists_with_its_default_among_the_values():
    schemas = schemas_by_name()
    for row in ROWS:
        schema, field = row["setting"].split(".")
        assert row["reason"] and row["open"]
        found = schemas[schema].model_fields[field]
        if found.is_required():  # each recipe says it
            continue
        default = found.get_default(call_default_factory=True)
        small = ("QformerConfig.hidden", "QformerConfig.heads")  # the default is too large for a tiny model
        assert row["setting"] in small or default in row["values"], (row["setting"], default)


def test_no_row_of_the_table_goes_untried():
    tried = {param.values[0]["setting"] for param in MODELS} | {param.values[0] for param in STEPS}
    assert {row["setting"] for row in ROWS} == tried


def test_the_page_shows_every_choice_with_its_reason():
    page = (Path(__file__).parents[2] / "docs" / "choices.md").read_text(encoding="utf-8")
    missing = [row["setting"] for row in ROWS if row["open"] not in page or row["reason"] not in page]
    assert not missing, f"run make docs: {missing}"
