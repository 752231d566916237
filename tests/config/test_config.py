"""Recipes as files: where a mistake is, what was meant, and what wins over what."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from ossicle import config
from ossicle.config import Section
from ossicle.errors import ConfigError


class Inner(Section):
    steps: int = 5
    learning_rate: float = 1e-3


class Outer(Section):
    name: str
    stages: list[Inner] = Field(default_factory=list)
    inner: Inner = Inner()
    table: dict[str, Inner] = Field(default_factory=dict)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def message(path: Path, *overrides: str) -> str:
    with pytest.raises(ConfigError) as caught:
        config.load(Outer, path, overrides)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "name: a\nstages:\n  - steps: 3\n    lerning_rate: 1\n",
            ":4: unknown key 'stages.0.lerning_rate'; did you mean 'learning_rate'",
        ),
        ("name: a\ninner:\n  step: 3\n", ":3: unknown key 'inner.step'; did you mean 'steps'?"),
        ("name: a\ntable:\n  x:\n    stepz: 3\n", ":4: unknown key 'table.x.stepz'; did you mean 'steps'?"),
        ("name: a\nnam: b\n", ":2: unknown key 'nam'; did you mean 'name'?"),
        ("name: a\ninner:\n  steps: 1\n  steps: 2\n", ":4: key 'inner.steps' is given twice, first at "),
        ("name: a\nstages:\n- steps: many\n", ":3: 'stages.0.steps' is 'many': "),
        ("stages: []\n", ": 'name' is missing"),
        ("name: [a\n", ":2: not YAML: "),
        ("- a\n", ":1: expected keys with values, got list"),
        ("base: nowhere.yaml\nname: a\n", ":1: base 'nowhere.yaml' is not there"),
    ],
)
def test_a_mistake_names_its_line_and_the_nearest_right_name(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path / "r.yaml", text)
    found = message(path)
    assert found.startswith(str(path))
    assert expected in found


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    assert "cannot be read" in message(tmp_path / "none.yaml")


def test_command_line_wins_over_file_over_base_over_defaults(tmp_path: Path) -> None:
    write(
        tmp_path / "below.yaml", "name: below\ninner: {steps: 7, learning_rate: 7}\nstages: [{steps: 1}, {steps: 2}]\n"
    )
    path = write(tmp_path / "r.yaml", "base: below.yaml\ninner:\n  steps: 8\n")
    settings = config.load(Outer, path, ["stages.1.learning_rate=1e-4", "name=top"])
    assert settings.name == "top"
    assert settings.inner == Inner(steps=8, learning_rate=7)
    assert settings.stages == [Inner(steps=1), Inner(steps=2, learning_rate=1e-4)]
    assert settings.stages[0].learning_rate == 1e-3


def test_a_mistake_in_the_base_names_the_base_and_in_an_override_the_override(tmp_path: Path) -> None:
    base = write(tmp_path / "below.yaml", "name: below\ninner:\n  stepz: 1\n")
    path = write(tmp_path / "r.yaml", "base: below.yaml\n")
    assert message(path).startswith(f"{base}:3: unknown key 'inner.stepz'")
    write(tmp_path / "below.yaml", "name: below\n")
    assert message(path, "inner.stepz=1").startswith(
        "override 'inner.stepz=1': unknown key 'inner.stepz'; did you mean"
    )


def test_only_one_level_of_base(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "name: a\n")
    b = write(tmp_path / "b.yaml", "base: a.yaml\n")
    assert message(write(tmp_path / "c.yaml", "base: b.yaml\n")).startswith(f"{b}:1: a base may not have a base")


def test_another_kind_replaces_a_part_whole(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "part: {kind: old, only_old: 1}\nsame: {kind: old, x: 1}\n")
    document = config.read(write(tmp_path / "b.yaml", "base: a.yaml\npart: {kind: new}\nsame: {kind: old, y: 2}\n"))
    assert document.values == {"part": {"kind": "new"}, "same": {"kind": "old", "x": 1, "y": 2}}


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("name", "expected key=value"),
        ("stages.3.steps=1", "'3' is no index of a list of 1"),
        ("stages.x.steps=1", "'x' is no index of a list of 1"),
        ("name.deep=1", "'deep' is below 'a', which holds no keys"),
        ("name=[1", "the value is not YAML"),
        ("inner.steps=x", "'inner.steps' is 'x'"),
    ],
)
def test_bad_overrides_are_named(tmp_path: Path, override: str, expected: str) -> None:
    found = message(write(tmp_path / "r.yaml", "name: a\nstages: [{steps: 1}]\n"), override)
    assert found.startswith(f"override '{override}'")
    assert expected in found


def test_scientific_notation_is_a_number_even_where_no_schema_helps(tmp_path: Path) -> None:
    document = config.read(write(tmp_path / "r.yaml", "a: 1e-4\nb: 2E6\nc: 1.5e3\nd: e5\n"))
    assert document.values == {"a": 1e-4, "b": 2e6, "c": 1500.0, "d": "e5"}


def test_the_dump_gives_the_same_settings_again(tmp_path: Path) -> None:
    settings = Outer(name="a", stages=[Inner(steps=2)], table={"x": Inner()})
    assert config.load(Outer, write(tmp_path / "r.yaml", config.dump(settings))) == settings
