"""What the papers leave open is a setting with a default and a reason, and every value of it can be learned with."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path

import pytest
import soundfile
import torch
import yaml

from integration.tiny_models import CNN, MARKER, clips, stream, text, tiny_model
from ossicle.config import Document
from ossicle.data.mix import Mix
from ossicle.data.rows import read_rows
from ossicle.data.set_levels import LevelsConfig
from ossicle.questions.build import Build, BuildRecipe, Closed, Part
from ossicle.questions.joint import JointConfig
from ossicle.tiny import TINY_ENCODERS
from ossicle.training import freeze
from ossicle.training.objectives.base import StageContext
from ossicle.training.optim import build_optimizer, scale
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
        elif schema == "EncoderConfig":
            yield stream(encoder={**CNN, **change})
        elif schema == "StreamConfig":
            yield stream(kind="prepend", connector=QFORMER if value == {"kind": "qformer"} else value)
        elif schema == "MoweConfig":
            yield stream(kind="prepend", encoder={**MOWE, **_member_sizes(change)})
        elif schema in ("MlpConfig", "QformerConfig", "StackConfig"):
            kind = schema.removesuffix("Config").lower()
            yield stream(kind="prepend", connector={**(QFORMER if kind == "qformer" else {"kind": kind}), **change})


def _member_sizes(change):
    """Members of a mixture are named in the table by their kind alone; here they get a size."""
    if "base" in change:
        return {"base": {**TINY_ENCODERS[change["base"]["kind"]], "kind": change["base"]["kind"]}}
    if "pool" in change:
        return {"pool": [SMALL if one["kind"] == "cnn" else TINY_ENCODERS[one["kind"]] for one in change["pool"]]}
    return change


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
    "Stage.batch_size": "stages.0.batch_size",
    "Stage.betas": "stages.0.betas",
    "Stage.epochs": "stages.0.epochs",
    "Stage.learning_rate": "stages.0.learning_rate",
    "Stage.loss_on": "stages.0.loss_on",
    "Stage.mix": "stages.0.mix",
    "Stage.schedule": "stages.0.schedule",
    "Stage.train": "stages.0.train",
    "Stage.weight_decay": "stages.0.weight_decay",
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
    if setting == "Stage.epochs" and value is not None:
        overrides += ["stages.0.steps=null"]
    check_one_step(small_ltu_as, overrides)


def check_one_step(path, overrides):
    """One step from a recipe: what it trains has gradients and moves, and nothing else does."""
    run = Run(load(str(path), overrides), path.parent / "out", tell=lambda _: None)
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
    assert stage.num_steps(mix.num_samples) >= 1
    before = {name: p.detach().clone() for name, p in named}
    optimiser = build_optimizer(
        named, learning_rate=stage.learning_rate, part_rates={}, weight_decay=stage.weight_decay, betas=stage.betas
    )
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * scale(0, steps=2, warmup=0, schedule=stage.schedule)
    optimiser.step()
    moved = {freeze.part_of(name) for name, p in named if not torch.equal(p, before[name])}
    assert moved == got


SAID = "one two three four five six seven eight"


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    """Forty short voices of rising pitch and level, some with speech for a tenth of their time and some for half."""
    folder = tmp_path_factory.mktemp("voices")
    lines = []
    for number in range(40):
        length = 9600 + 100 * number
        time = torch.arange(length) / 16_000
        phase = 2 * torch.pi * (100 + 4 * (7 * number % 40)) * time + (7 * number % 11) * torch.sin(
            2 * torch.pi * 4 * time
        )
        wave = 0.02 * 1.08**number * sum((k * phase).sin() / k for k in range(1, 9))
        if number % 4 == 0:  # a rumble that meters notice and ears do not
            wave += 0.03 * 1.08**number * torch.sin(2 * torch.pi * 12 * time)
        wave[:: 97 + number] *= 1 + number % 5
        soundfile.write(folder / f"{number}.wav", (wave.clamp(-1, 1) * (1 if number % 3 else 0.3)).numpy(), 16_000)
        spoken = length / 16_000 * (0.9 if number % 2 else 0.5)
        words = " ".join(SAID.split()[: 4 + number % 5])
        lines.append(
            {
                "path": f"{number}.wav",
                "label": "voice",
                "transcript": words,
                "gender": "male",
                "duration_s": length / 16_000,
            }
            | {"events": [["Speech", 0.0, spoken]]}
        )
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, lines)), encoding="utf-8")
    (folder / "own.yaml").write_text("version: own\ntasks: {volume: ['Loud?'], pitch: ['High?']}\n", encoding="utf-8")
    return folder


IN_THE_DATA = {
    "LevelsConfig": "levels",
    "JointConfig": "parts.voices.subset",
    "Closed": "parts.voices.closed",
    "Part": "parts.voices",
}
BUILT = [
    pytest.param(row["setting"], value, id=f"{row['setting']}-{value}")
    for row in ROWS
    if row["setting"].split(".")[0] in IN_THE_DATA
    for value in row["values"]
]


def questions_of(recordings, out, setting=None, value=None):
    """Build the questions of the recordings under one setting; return their file."""
    recipe = Document(
        {
            "name": "voices",
            "parts": {"voices": {"root": str(recordings), "adapter": "manifest"}},
            "filter": {"not_answers": "", "near": 1, "leaked": 1},
        }
    )
    recipe.set("parts.voices.closed={tasks: [pitch, volume, speed]}")
    if setting is not None:
        schema, field = setting.split(".")
        given = str(recordings / value) if field == "wordings" and value else value
        recipe.set(f"{IN_THE_DATA[schema]}.{field}={json.dumps(given)}")
    Build(recipe.check(BuildRecipe), out, lambda _: None).run()
    return out / "questions.jsonl"


@pytest.fixture(scope="module")
def by_default(recordings, tmp_path_factory):
    """The folder and the questions of what is asked by default, and by default of speech and sound together."""
    out = tmp_path_factory.mktemp("default")
    joint = questions_of(recordings, out / "joint", "JointConfig.reading", "below")
    whole = questions_of(recordings, out / "all")
    return {"JointConfig": (out / "joint", said_in(joint)), "": (out / "all", said_in(whole))}


def said_in(path):
    return sorted(str(row["messages"]) + row["clip"] for row in read_rows(path))


@pytest.mark.parametrize(("setting", "value"), BUILT)
def test_every_value_of_the_data_is_built_and_learned(setting, value, recordings, by_default, small_ltu_as, tmp_path):
    """Each value makes a set of questions, another one than the default does, and a step is learned from it.

    It goes on from what was built by default, so that only what the setting changes is done again.
    """
    schema, field = setting.split(".")
    folder, default = by_default["JointConfig" if schema == "JointConfig" else ""]
    path = questions_of(recordings, Path(shutil.copytree(folder, tmp_path / "built")), setting, value)
    asked = said_in(path)
    standard = {s.__name__: s for s in (LevelsConfig, JointConfig, Closed, Part)}[schema].model_fields[field]
    assert asked
    same = [dump_of(standard.get_default(call_default_factory=True)), *([None] if field == "per_label" else [])]
    assert (asked == default) == (value in same)
    check_one_step(small_ltu_as, [f"data.said.path={path}", "stages.0.mix=[{source: said}]"])


DRAWN = [pytest.param(value, id=str(value)) for value in (False, True)]


@pytest.mark.parametrize("sampled", DRAWN)
def test_every_way_of_decoding_answers_and_repeats(sampled):
    """Nothing is learned here: each value answers, again the same, whatever else was asked before."""
    from ossicle.inference.drawing import DrawingConfig, drawn
    from ossicle.inference.engine import load

    engine = load("nano", device="cpu")
    config = DrawingConfig(do_sample=sampled, temperature=3.0, max_new_tokens=12)
    asked = [(None, "What do you hear?"), (None, "How many sounds are there?")]
    first, second = (dict(drawn(engine, items, config, [8, 8], 0)) for items in (asked, asked[::-1]))
    assert [first[0].text, first[1].text] == [second[1].text, second[0].text]
    greedy = [answer.text for answer in engine.answer(asked, max_new_tokens=12)]
    assert ([first[0].text, first[1].text] == greedy) != sampled


def schemas_by_name():
    """Return the settings schemas that the table names."""
    from ossicle import registry
    from ossicle.data.readers import MessagesConfig
    from ossicle.encoders.base import EncoderConfig
    from ossicle.inference.drawing import DrawingConfig
    from ossicle.streams import StreamConfig
    from ossicle.training.recipe import LanguageModelSpec, LoraSpec, ModelSpec, Stage

    known = {schema.__name__: schema for schema in (MessagesConfig, LanguageModelSpec, LoraSpec, ModelSpec, Stage)}
    known |= {schema.__name__: schema for schema in (LevelsConfig, JointConfig, Closed, Part)}
    known |= {schema.__name__: schema for schema in (EncoderConfig, StreamConfig, DrawingConfig)}
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
        default = dump_of(found.get_default(call_default_factory=True))
        tried = [{**default, **value} if isinstance(default, dict) else value for value in row["values"]]
        assert row["setting"] in NOT_THE_DEFAULT or default in tried, (row["setting"], default)


NOT_THE_DEFAULT = (
    "QformerConfig.hidden",  # the default is too large for a tiny model
    "QformerConfig.heads",
    "StreamConfig.connector",  # the default is no way to make summaries
    "Stage.mix",  # empty where an objective has its own data
)


def dump_of(value):
    """Return a default as YAML would write it."""
    value = value.model_dump() if hasattr(value, "model_dump") else value
    return list(value) if isinstance(value, tuple) else value


def test_no_row_of_the_table_goes_untried():
    tried = {param.values[0]["setting"] for param in MODELS} | {param.values[0] for param in STEPS + BUILT}
    assert {row["setting"] for row in ROWS} == tried | {"DrawingConfig.do_sample"}


def test_the_page_shows_every_choice_with_its_reason():
    page = (Path(__file__).parents[2] / "docs" / "choices.md").read_text(encoding="utf-8")
    missing = [row["setting"] for row in ROWS if row["open"] not in page or row["reason"] not in page]
    assert not missing, f"run make docs: {missing}"
