"""What a stage names trains, nothing else does, and frozen parts stand still."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ossicle.errors import ConfigError
from ossicle.training import freeze


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
        self.encoder.add_module("router_gate", nn.Linear(3, 2))
        self.connector = nn.Linear(3, 4)


class Model(nn.Module):
    """The names of an AudioLM without its mechanics."""

    def __init__(self) -> None:
        super().__init__()
        self.language_model = nn.ModuleDict({"layers": nn.ModuleList(nn.Linear(4, 4) for _ in range(3))})
        self.language_model["q_proj"] = nn.Module()
        self.language_model["q_proj"].lora_A = nn.ModuleDict({"default": nn.Linear(4, 1, bias=False)})
        self.streams = nn.ModuleDict({"sound": Branch(), "speech": Branch()})


def trains(*patterns: str) -> set[str]:
    return set(freeze.set_trainable(Model(), patterns))


def test_parts_prefixes_and_expressions() -> None:
    assert trains("connector") == {
        f"streams.{s}.connector.{p}" for s in ("sound", "speech") for p in ("weight", "bias")
    }
    assert all(name.startswith("streams.sound.encoder") for name in trains("streams.sound.encoder"))
    assert not any("router" in name for name in trains("encoder"))
    assert {name.split(".")[3] for name in trains("router")} == {"router_gate"}
    assert trains("lora") == {"language_model.q_proj.lora_A.default.weight"}
    assert not any("lora" in name for name in trains("language_model"))
    assert trains(r"layers\.[02]\.bias") == {"language_model.layers.0.bias", "language_model.layers.2.bias"}
    assert trains("connector", "lora") == trains("connector") | trains("lora")


def test_requires_grad_is_exactly_what_was_named_whatever_it_was_before() -> None:
    model = Model()
    freeze.set_trainable(model, ["language_model"])
    names = freeze.set_trainable(model, ["streams.speech.connector"])
    assert {name for name, p in model.named_parameters() if p.requires_grad} == set(names)
    assert len(names) == 2


def test_only_what_trains_gets_gradients() -> None:
    model = Model()
    freeze.set_trainable(model, ["streams.sound.connector"])
    branch = model.streams["sound"]
    branch.connector(branch.encoder[0](torch.ones(2, 3))).sum().backward()
    got = {name for name, p in model.named_parameters() if p.grad is not None}
    assert got == {"streams.sound.connector.weight", "streams.sound.connector.bias"}


def test_a_frozen_part_is_in_eval_and_its_statistics_stand_still() -> None:
    model = Model()
    freeze.set_trainable(model, ["connector", "streams.sound.encoder"])
    assert model.training
    assert model.streams["sound"].encoder[2].training
    assert not model.streams["speech"].encoder[2].training
    assert not model.language_model.training
    before = model.streams["speech"].encoder[1].running_mean.clone()
    model.streams["speech"].encoder[:2](torch.randn(4, 3))
    model.streams["sound"].encoder[:2](torch.randn(4, 3) + 5)
    assert torch.equal(model.streams["speech"].encoder[1].running_mean, before)
    assert not torch.equal(model.streams["sound"].encoder[1].running_mean, before)


def test_the_table_adds_up() -> None:
    model = Model()
    freeze.set_trainable(model, ["connector"])
    rows = {row.part: (row.total, row.trainable) for row in freeze.table(model)}
    assert rows["streams.sound.connector"] == (16, 16)
    assert rows["language_model"] == (60, 0)
    assert rows["router"] == (16, 0)
    assert sum(total for total, _ in rows.values()) == sum(p.numel() for p in model.parameters())
    assert "total" in freeze.table_text(freeze.table(model), "s").splitlines()[-1]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("conector", "did you mean 'connector'"),
        ("[", "neither a part nor a regular"),
        ("integration", "nothing"),
    ],
)
def test_what_nothing_answers_to_is_an_error(pattern: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        trains(pattern)
