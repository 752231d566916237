"""Tagging: what is drawn, masked and mixed, the loss by hand, what learns, and the hand-over of TLTR's blocks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from integration.tiny_models import stream, tiny_model
from ossicle.connectors.base import build_connector
from ossicle.data.mix import Mix, MixEntry
from ossicle.data.sample import Sample
from ossicle.data.source import Source, SourceConfig, SourceContext
from ossicle.encoders.tensors import read_tensors
from ossicle.errors import CheckpointError, ConfigError
from ossicle.model import AudioLM
from ossicle.tiny import TINY_ENCODERS
from ossicle.training import freeze, processes
from ossicle.training.inspection import needs_of
from ossicle.training.objectives.base import StageContext
from ossicle.training.objectives.tagging import Tagging, TaggingConfig
from ossicle.training.recipe import LanguageModelSpec, Loaded, ModelSpec, Recipe, Stage, load
from ossicle.training.run import Run
from ossicle.training.shrink import shrink
from ossicle.types import Waveform

LABELS = ["hum"] * 6 + ["hiss; hum", "hiss"]
WHISPER = {**TINY_ENCODERS["whisper"], "layers": "all"}
TLTR = {"kind": "tltr", "heads": 2, "time_embedding": False, "output_norm": False}


class Tones(Source):
    """Low and high tones under the tags `hum` and `hiss`."""

    def __len__(self):
        return len(LABELS)

    def sample(self, index):
        time = torch.arange(16_000) / 16_000
        pitches = {"hum": 200.0, "hiss": 3000.0}
        wave = sum(torch.sin(2 * torch.pi * pitches[tag.strip()] * time) for tag in LABELS[index].split(";"))
        audio = Waveform(samples=(0.3 * wave).numpy())
        turns = ({"role": "user", "content": "<audio>?"}, {"role": "assistant", "content": LABELS[index]})
        return Sample(messages=turns, audios=(audio,), id=str(index), label=LABELS[index])


def objective(connector=TLTR, train=r"connector\.(time_tr|layer_tr)\.", **settings):
    torch.manual_seed(0)
    streams = [stream(kind="prepend", encoder=WHISPER, connector=connector)]
    model = tiny_model(streams=streams)
    stage = Stage(name="tags", train=[train], learning_rate=1e-3, batch_size=8, steps=4)
    spec = ModelSpec(language_model=LanguageModelSpec(architecture={"model_type": "llama"}), streams=streams)
    recipe = Recipe(name="t", model=spec, stages=[stage])
    mix = Mix({"tones": Tones(SourceConfig(kind="tones"), SourceContext())}, [MixEntry(source="tones")])
    freeze.set_trainable(model, stage.train)
    context = StageContext(model=model, processor=None, recipe=recipe, stage=stage, data=mix)
    return Tagging(TaggingConfig(stream="ear", **settings), context)


def test_rare_tags_are_drawn_as_often_as_frequent_ones():
    task = objective()
    assert task.tags == ["hiss", "hum"]
    share = {tag: sum(p for p, row in zip(task.chances, task.rows, strict=True) if tag in row[2]) for tag in task.tags}
    assert share["hiss"] == pytest.approx(share["hum"], rel=0.35)
    assert objective(balanced=False).chances == pytest.approx([1 / 8] * 8)


def test_batches_are_functions_of_the_step_and_masks_and_mixes_do_what_they_say():
    task = objective(mixup=0.0, time_mask=0)
    first, again, other = task.batch(3), task.batch(3), task.batch(4)
    assert torch.equal(first.tokens.values, again.tokens.values) and first.ids == again.ids
    assert first.ids != other.ids
    want = [[0.95 if tag in LABELS[int(name)] else 0.05 for tag in task.tags] for name in first.ids]
    torch.testing.assert_close(first.targets, torch.tensor(want))
    masked = objective(mixup=0.0, time_mask=10).batch(3).tokens.values
    silent = masked.eq(0).all(-1)
    assert int(silent.sum()) > 0 and int(silent.sum(1).max()) <= 10
    assert torch.equal(masked[~silent], first.tokens.values[~silent])
    mixed = objective(mixup=1.0, time_mask=0).batch(3).targets
    assert ((mixed > 0.06) & (mixed < 0.94)).any()


def test_the_loss_is_the_plain_cross_entropy():
    task = objective()
    batch = task.batch(0)
    out = task.loss(batch)
    fused = task.stream.connector.fuse(batch.tokens, mean_first=True)
    probabilities = task.head(fused[:, 0]).sigmoid()
    want = -(batch.targets * probabilities.log() + (1 - batch.targets) * (1 - probabilities).log()).mean(1).sum()
    torch.testing.assert_close(out.total, want)
    assert out.count == 8
    out.total.backward()
    got = {name for name, p in task.context.model.named_parameters() if p.grad is not None}
    assert got == {n for n, _ in task.context.model.named_parameters() if ".time_tr." in n or ".layer_tr." in n}
    assert not any("language_model" in name for name, _ in task.named_parameters())


def test_it_learns_and_ends_at_the_average():
    task = objective(mixup=0.0, average_from=0.5)
    parameters = [p for p in [*task.parameters(), *task.context.model.parameters()] if p.requires_grad]
    optimiser = torch.optim.Adam(parameters, lr=0.01)
    seen, losses = [], []
    for step in range(4):
        if step >= 2:
            seen.append(task.stream.connector.time_tr.mlp[0].weight.detach().clone())
        losses.append(task.loss(task.batch(0)).total)
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert losses[-1] < losses[0]
    assert task.finish()["averaged_steps"] == 2
    torch.testing.assert_close(task.stream.connector.time_tr.mlp[0].weight.detach(), sum(seen) / 2)


def test_of_two_processes_each_averages_over_the_same_part_of_the_stage(monkeypatch):
    """Each sees half of the micro-batches, and takes the last half of those."""
    task = objective(mixup=0.0, average_from=0.5)
    monkeypatch.setattr(processes, "world", lambda: 2)
    for _ in range(2):  # of four steps with one micro-batch each
        task.loss(task.batch(0))
    assert task.finish()["averaged_steps"] == 1


def test_behind_a_connector_that_stacks_padding_changes_no_verdict():
    """The encoder's mask is of another rate than what the connector returns."""
    task = objective({"kind": "stack", "factor": 2}, "connector", mixup=0.0).eval()
    drawn = task.batch(0)
    whole = drawn.tokens.with_values(drawn.tokens.values[:, :8], valid=drawn.tokens.valid[:, :8])
    mask = whole.valid & (torch.arange(8) < 4)
    padded = whole.with_values(whole.values * mask.view(8, 8, *[1] * (whole.values.dim() - 2)), valid=mask)
    short = whole.with_values(whole.values[:, :4], valid=whole.valid[:, :4])
    losses = [task.loss(replace(drawn, tokens=tokens)).total for tokens in (padded, short, whole)]
    torch.testing.assert_close(losses[0], losses[1])
    assert not torch.allclose(losses[1], losses[2])


def test_an_unknown_stream_is_one_line():
    task = objective()
    with pytest.raises(ConfigError, match="no stream 'eye'"):
        Tagging(TaggingConfig(stream="eye"), task.context)


def test_a_connector_starts_from_a_taggers_blocks(tmp_path):
    task = objective()
    task.context.model.save_pretrained(tmp_path)
    spec = {**TLTR, "init": str(tmp_path)}
    taught = task.stream.connector.state_dict()
    fresh = tiny_model(streams=[stream(kind="prepend", encoder=WHISPER, connector=spec)], seed=5)
    assert isinstance(fresh, AudioLM)
    for name, value in fresh.streams.ear.connector.state_dict().items():
        assert torch.equal(value, taught[name]) == (not name.startswith("projection.1")), name
    facts = task.stream.encoder.facts
    with pytest.raises(CheckpointError, match="do not fit, first down_layer"):
        build_connector({**spec, "inner": 8}, facts, 64).load_pretrained()


@pytest.mark.slow
def test_a_tagger_of_one_run_is_handed_to_the_next(tmp_path, monkeypatch):
    """nano-whisper-at's encoder and blocks are what nano-ltu-as-tagged hears with, and only its projection learns."""
    monkeypatch.delenv("OSSICLE_TAGGER", raising=False)
    loaded = load("nano-ltu-as-tagged")
    assert loaded.recipe.stages == load("nano-ltu-as").recipe.stages[2:]
    absent = [need.what for need in needs_of(loaded.recipe, SourceContext()) if "audio" in need.what]
    assert [what.split(":")[0] for what in absent] == [
        "encoder of stream 'audio'",
        "start of the connector of stream 'audio'",
    ]
    Run(shrink(load("nano-whisper-at")), tmp_path / "tagger", shrink=True, tell=lambda _: None).train()
    monkeypatch.setenv("OSSICLE_TAGGER", str(tmp_path / "tagger" / "model"))
    small, given = shrink(loaded), loaded.recipe.model.streams[0]
    ear = small.recipe.model.streams[0]
    ear = ear.model_copy(  # a small run takes nothing from outside; here it does
        update={
            "encoder": {**ear.encoder, "pretrained": given.encoder["pretrained"]},
            "connector": {**ear.connector, "init": given.connector["init"]},
        }
    )
    model = small.recipe.model.model_copy(update={"streams": [ear]})
    recipe = small.recipe.model_copy(update={"model": model, "stages": small.recipe.stages[:1]})
    run = Run(Loaded(recipe=recipe, folder=small.folder), tmp_path / "next", shrink=True, tell=lambda _: None)
    run.train()
    before, after = (read_tensors([tmp_path / name / "model"]) for name in ("tagger", "next"))
    kept = [name for name in after if ".encoder." in name or ".time_tr." in name or ".layer_tr." in name]
    assert any(".layer_tr." in name for name in kept) and any(".encoder." in name for name in kept)
    assert all(torch.equal(before[name], after[name]) for name in kept)
    learned = [name for name in after if ".projection." in name]
    assert learned and not any(torch.equal(before[name], after[name]) for name in learned)
