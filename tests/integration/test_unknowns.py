"""What the papers leave open is a setting with a default and a reason, and every value of it can be learned with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from integration.tiny_models import CNN, MARKER, clips, stream, text, tiny_model

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


def schemas_by_name():
    """Return the settings schemas that the table names."""
    from ossicle import registry
    from ossicle.data.readers import MessagesConfig
    from ossicle.training.recipe import LanguageModelSpec

    known = {"MessagesConfig": MessagesConfig, "LanguageModelSpec": LanguageModelSpec}
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
        default = schemas[schema].model_fields[field].get_default(call_default_factory=True)
        small = ("QformerConfig.hidden", "QformerConfig.heads")  # the default is too large for a tiny model
        assert row["setting"] in small or default in row["values"], (row["setting"], default)


def test_the_page_shows_every_choice_with_its_reason():
    page = (Path(__file__).parents[2] / "docs" / "choices.md").read_text(encoding="utf-8")
    missing = [row["setting"] for row in ROWS if row["open"] not in page or row["reason"] not in page]
    assert not missing, f"run make docs: {missing}"
