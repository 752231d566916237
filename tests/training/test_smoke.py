"""From random weights to an answer: nano-smoke names sounds that it has never heard, and not without hearing them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_recipe import TINY

from ossicle.data.sample import waveform
from ossicle.data.source import SourceContext
from ossicle.data.world_sounds import WorldSoundsConfig, WorldSoundsSource
from ossicle.inference.engine import Engine
from ossicle.inference.engine import load as open_model
from ossicle.training import freeze, inspection
from ossicle.training.loop import StageRun
from ossicle.training.recipe import Loaded, load, shipped
from ossicle.training.run import Run
from ossicle.training.shrink import shrink

FRESH = 10**6
"""Numbers from here on are sounds that no recipe trains on."""


def right(engine: Engine, settings: dict[str, object], count: int) -> tuple[float, float]:
    """Return the share of right answers on fresh sounds, heard and blind."""
    config = WorldSoundsConfig.model_validate({**settings, "samples": count, "first": FRESH})
    source = WorldSoundsSource(config, SourceContext(seed=0))
    samples = [source.sample(index) for index in range(count)]
    asked = [sample.messages[0]["content"].removeprefix("<audio>") for sample in samples]
    truth = [sample.messages[1]["content"] for sample in samples]
    clips = [waveform(sample.audios[0]) for sample in samples]
    heard = engine.answer(list(zip(clips, asked, strict=True)), max_new_tokens=12)
    blind = engine.answer([(None, question) for question in asked], max_new_tokens=12)
    return tuple(  # type: ignore[return-value]
        sum(answer.text == wanted for answer, wanted in zip(answers, truth, strict=True)) / count
        for answers in (heard, blind)
    )


@pytest.mark.slow
def test_nano_smoke_hears(tmp_path: Path) -> None:
    loaded = load("nano-smoke")
    result = Run(loaded, tmp_path / "out", tell=lambda _: None).train()
    heard, blind = right(open_model(result.checkpoint), loaded.recipe.data["sounds"], 200)
    assert heard >= 0.60
    assert blind <= 0.35


def test_the_shrunk_recipe_runs_through_to_an_answer(tmp_path: Path) -> None:
    small: Loaded = shrink(load("nano-smoke", ["data.sounds.samples=16", "data.sounds.clip_s=0.5"]))
    result = Run(small, tmp_path / "out", shrink=True, tell=lambda _: None).train()
    assert [stage.steps for stage in result.stages] == [3]
    heard, blind = right(open_model(result.checkpoint), small.recipe.data["sounds"], 4)
    assert 0.0 <= heard <= 1.0
    assert 0.0 <= blind <= 1.0


MEMBERS = ("base", "pool.0", "pool.1")
QUICK = {
    "ltu-as": [],
    "mowe-llama-3.2-1b": [f"model.streams.0.encoder.{member}.window_s=4" for member in MEMBERS],
    "pal-v3-llama-3.2-1b": ["model.streams.0.encoder.window_s=4"],
}
"""Recipes that run by default, and what makes their half minutes of Whisper short."""
SHIPPED = [name for name in shipped() if name != "nano-smoke"]


@pytest.mark.parametrize("name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in SHIPPED])
def test_every_recipe_trains_what_it_names_and_nothing_else(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All stages run small without the data; in each, every part named gets a gradient and no other part does."""
    monkeypatch.delenv("OSSICLE_DATA", raising=False)
    step, got = StageRun._backward, dict[str, set[str]]()

    def watched(self: StageRun, number: int) -> Any:
        out = step(self, number)
        named = self.context.model.named_parameters()
        live = {freeze.part_of(n) for n, p in named if p.grad is not None and bool(p.grad.abs().sum() > 0)}
        got[self.context.stage.name] = got.get(self.context.stage.name, set()) | live
        return out

    monkeypatch.setattr(StageRun, "_backward", watched)
    small = shrink(load(name, QUICK.get(name, [])))
    facts = inspection.inspect_recipe(small)
    result = Run(small, tmp_path / "out", shrink=True, tell=lambda _: None).train()
    assert [stage.name for stage in result.stages] == [stage["name"] for stage in facts["stages"]]
    for stage in facts["stages"]:
        assert got[stage["name"]] == {part for part, count in stage["by_part"].items() if count}, stage["name"]


def test_a_recipe_without_its_data_still_shows_that_it_is_wired(tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "mine.yaml"
    data = {"sounds": {"kind": "messages", "path": "nowhere.jsonl"}}
    path.write_text(yaml.safe_dump({**TINY, "data": data}), encoding="utf-8")
    said: list[str] = []
    result = Run(shrink(load(str(path))), tmp_path / "out", shrink=True, tell=said.append).train()
    assert [stage.steps for stage in result.stages] == [3, 3]
    assert "source 'sounds' is not here; the small run uses synthetic clips in its form" in said
