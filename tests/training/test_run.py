"""A curriculum end to end at the smallest size: what trains, what is written, and what stops it."""

from __future__ import annotations

import contextlib
import json
import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from several import together
from tiny_recipe import TINY, tiny
from transformers import AutoProcessor

from ossicle.errors import ConfigError, DataError, UserError
from ossicle.model import AudioLM
from ossicle.training import checkpoint, freeze, processes
from ossicle.training import run as runs
from ossicle.training.build import build
from ossicle.training.objectives.base import StageContext
from ossicle.training.recipe import Loaded
from ossicle.training.result import StageResult, TrainResult, free_folder
from ossicle.training.run import Run

Finished = tuple[Path, TrainResult, list[str]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("run")
    said: list[str] = []
    result = Run(tiny(folder), folder / "out", tell=said.append).train()
    return folder / "out", result, said


def losses(out: Path) -> list[tuple[str, int, float]]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [(row["stage"], row["step"], row["loss"]) for row in rows if "loss" in row]


def test_every_stage_runs_and_everything_is_beside_the_result(finished: Finished) -> None:
    out, result, said = finished
    assert [(stage.name, stage.steps) for stage in result.stages] == [("align", 5), ("all", 6)]
    assert [(s, n) for s, n, _ in losses(out)] == [("align", i) for i in range(5)] + [("all", i) for i in range(6)]
    assert result.stages[1].last_loss < result.stages[0].first_loss
    assert json.loads((out / "result.json").read_text(encoding="utf-8"))["checkpoint"] == str(result.checkpoint)
    last = checkpoint.complete(out / "checkpoints")[-1]
    assert last.name == "0001-00000006"
    facts = json.loads((last / "stage.json").read_text(encoding="utf-8"))
    assert facts["versions"]["torch"] == torch.__version__
    assert set(facts["data"]) == {"sounds"}
    assert json.loads((last / "state.json").read_text(encoding="utf-8"))["ossicle_format"] == 1
    assert (last / "recipe.yaml").read_text(encoding="utf-8") == (out / "recipe.yaml").read_text(encoding="utf-8")
    assert "stage 'align' trains:" in said[0]
    assert "streams.sound.connector" in said[0]


def test_the_model_folder_is_the_last_checkpoint(finished: Finished) -> None:
    out, result, _ = finished
    model = AudioLM.from_pretrained(result.checkpoint)
    saved = checkpoint.tensors(checkpoint.complete(out / "checkpoints")[-1] / "model.safetensors")
    for name, tensor in checkpoint.tensors_of(model).items():
        assert torch.equal(tensor, saved[name]), name
    processor = AutoProcessor.from_pretrained(result.checkpoint)
    assert processor.tokenizer.chat_template


def test_bf16_computes_in_bf16_stays_near_and_keeps_weights_in_float32(finished: Finished, tmp_path: Path) -> None:
    seen: set[torch.dtype] = set()

    def note(module: torch.nn.Module, _: Any, result: Any) -> None:
        if isinstance(module, torch.nn.Linear):
            seen.add(result.dtype)

    hook = torch.nn.modules.module.register_module_forward_hook(note)
    try:
        loaded = tiny(tmp_path, "stages.0.precision=bf16", "stages.1.precision=bf16")
        result = Run(loaded, tmp_path / "out", tell=lambda _: None).train()
    finally:
        hook.remove()
    assert seen == {torch.bfloat16}
    full = [loss for *_, loss in losses(finished[0])]
    half = [loss for *_, loss in losses(tmp_path / "out")]
    assert half != full
    assert half == pytest.approx(full, rel=0.05)
    assert {p.dtype for p in AudioLM.from_pretrained(result.checkpoint).parameters()} == {torch.float32}


def test_a_stage_changes_what_it_trains_and_nothing_else(tmp_path: Path) -> None:
    loaded = tiny(tmp_path)
    run = Run(loaded, tmp_path / "out", tell=lambda _: None)
    start = {n: p.detach().clone() for n, p in build(loaded.recipe, run.open_sources()).model.named_parameters()}
    only = loaded.recipe.model_copy(update={"stages": loaded.recipe.stages[:1]})
    run.recipe = only
    result = run.train()
    after = dict(AudioLM.from_pretrained(result.checkpoint).named_parameters())
    changed = {freeze.part_of(name) for name, tensor in start.items() if not torch.equal(tensor, after[name])}
    assert changed == {"streams.sound.connector"}


def test_a_step_does_not_depend_on_how_it_is_cut(tmp_path: Path) -> None:
    """One batch of 4, and 2 micro-batches of 2 with different numbers of label tokens, give the same gradient."""
    loaded = tiny(tmp_path, "stages.1.audio_dropout=0", "stages.1.audio_shuffle=0")
    run = Run(loaded, tmp_path / "out", tell=lambda _: None)
    sources = run.open_sources()
    stage = loaded.recipe.stages[1]
    grads, found = {}, {}
    for micro in (4, 2):
        built = build(loaded.recipe, sources)
        cut = stage.model_copy(update={"micro_batch_size": micro})
        freeze.set_trainable(built.model, stage.train)
        built.model.eval()
        mix = runs.Mix(sources, cut.mix, seed=3, stage_index=1)
        context = StageContext(
            model=built.model, processor=built.processor, recipe=loaded.recipe, stage=cut, stage_index=1, data=mix
        )
        objective = runs.build_objective(cut, context)
        step = runs.StageRun(context, objective, 6, tmp_path)
        loss, count, _ = step._backward(0)
        found[micro] = (loss, count)
        grads[micro] = torch.cat([(p.grad / count).flatten() for p in step.named.values() if p.grad is not None])
    assert found[4][1] == found[2][1]
    assert found[4][0] == pytest.approx(found[2][0], rel=1e-5)
    assert torch.allclose(grads[4], grads[2], atol=1e-5)


def test_an_emphasised_word_weighs_what_it_is_given(tmp_path: Path) -> None:
    still = ("model.language_model.architecture.attention_dropout=0", "stages.1.audio_dropout=0")
    found = {}
    for factor in (1, 5):
        loaded = tiny(tmp_path, *still, f"stages.1.objective={{kind: next_token, emphasis: {{bird: {factor}}}}}")
        run = Run(loaded, tmp_path / "out", tell=lambda _: None)
        sources, stage = run.open_sources(), loaded.recipe.stages[1]
        built = build(loaded.recipe, sources)
        mix = runs.Mix(sources, stage.mix, seed=3, stage_index=1)
        context = StageContext(
            model=built.model, processor=built.processor, recipe=loaded.recipe, stage=stage, stage_index=1, data=mix
        )
        objective = runs.build_objective(stage, context)
        batch = objective.batch(0)
        torch.manual_seed(5)  # the same dropout in all three passes
        out = objective.loss(batch)
        found[factor] = float(out.total.detach())
        labels = batch.inputs["labels"][:, 1:]
        torch.manual_seed(5)
        with torch.no_grad():
            logits = built.model(**{**batch.inputs, "labels": None}).logits[:, :-1]
        word = built.processor.tokenizer(" bird", add_special_tokens=False).input_ids[0]
        at = labels == word
        assert 0 < at.sum() < out.count == (labels != -100).sum()
        share = torch.nn.functional.cross_entropy(logits[at], labels[at], reduction="sum")
    assert found[5] - found[1] == pytest.approx(4 * float(share), rel=1e-4)


def test_the_same_recipe_gives_the_same_losses(finished: Finished, tmp_path: Path) -> None:
    out, _, _ = finished
    Run(tiny(tmp_path), tmp_path / "again", tell=lambda _: None).train()
    assert losses(tmp_path / "again") == losses(out)
    Run(tiny(tmp_path, seed=4), tmp_path / "other", tell=lambda _: None).train()
    assert losses(tmp_path / "other") != losses(out)


class Stop(Exception):
    """Stands for a killed process."""


def with_heads(folder: Path) -> Loaded:
    """Return a recipe whose second stage teaches the encoder through heads of its own."""
    hear = {
        "name": "hear",
        "objective": {
            "kind": "timelines",
            "part": "streams.sound.encoder",
            "root": str(folder),
            "mix": {"world": 1.0},
            "heads": ["label", "tags"],
            "synthesised": {"world": 12},
            "row_s": 2.0,
        },
        "train": ["encoder"],
        "learning_rate": 1e-3,
        "batch_size": 2,
        "micro_batch_size": 1,
        "steps": 3,
        "precision": "fp32",
    }
    return tiny(folder, stages=[{**TINY["stages"][0], "steps": 2}, hear])


@pytest.mark.parametrize("moment", [1, 4, 7, 10])
def test_an_interrupted_run_goes_on_to_the_same_losses(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    out, result, _ = finished
    step, seen = runs.StageRun.step, []

    def dying(self: Any, number: int) -> Any:
        seen.append(number)
        if len(seen) == moment + 1:
            raise Stop
        return step(self, number)

    monkeypatch.setattr(runs.StageRun, "step", dying)
    loaded = tiny(tmp_path)
    with pytest.raises(Stop):
        Run(loaded, tmp_path / "out", tell=lambda _: None).train()
    monkeypatch.undo()
    with (tmp_path / "out" / "log.jsonl").open("a", encoding="utf-8") as file:
        file.write('{"stage": "al')  # killed while writing
    said: list[str] = []
    again = Run(loaded, tmp_path / "out", tell=said.append).train(resume=True)
    assert losses(tmp_path / "out") == losses(out)
    assert [s.last_loss for s in again.stages] == [s.last_loss for s in result.stages]
    assert any("resumed after step" in line for line in said) or moment < 2
    assert any("stopped before its first checkpoint" in line for line in said) == (moment < 2)
    assert not any("stage 'align' trains" in line for line in said) or moment < 5


@pytest.mark.parametrize(
    ("moment", "said", "number"),
    [
        (2, "step 3 of stage 'align'", signal.SIGINT),
        (4, "step 5 of stage 'align'", signal.SIGTERM),
        (10, "", signal.SIGINT),
    ],
)
def test_a_run_that_is_asked_to_stop_is_saved_after_the_step_at_hand(
    finished: Finished, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int, said: str, number: int
) -> None:
    """In the middle, at a stage's end (there is another), and at the very end, where it is finished instead."""
    out, _, _ = finished
    step, seen = runs.StageRun.step, []
    before = signal.getsignal(number)

    def asked(self: Any, place: int) -> Any:
        seen.append(place)
        if len(seen) == moment + 1:
            signal.raise_signal(number)
        return step(self, place)

    monkeypatch.setattr(runs.StageRun, "step", asked)
    loaded = tiny(tmp_path)
    with pytest.raises(KeyboardInterrupt, match=said) if said else contextlib.nullcontext():
        Run(loaded, tmp_path / "out", tell=lambda _: None).train()
    assert len(seen) == moment + 1
    assert signal.getsignal(number) == before
    Run(loaded, tmp_path / "out", tell=lambda _: None).train(resume=True)
    assert len(seen) == 11, "nothing was done twice"
    assert losses(tmp_path / "out") == losses(out)


def test_who_asks_twice_is_stopped_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(self: Any, place: int) -> Any:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        raise AssertionError("the step went on")

    monkeypatch.setattr(runs.StageRun, "step", asked)
    with pytest.raises(KeyboardInterrupt):
        Run(tiny(tmp_path), tmp_path / "out", tell=lambda _: None).train()


def test_heads_start_the_same_in_a_run_that_goes_on_from_the_stage_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = with_heads(tmp_path)
    Run(loaded, tmp_path / "whole", tell=lambda _: None).train()
    step = runs.StageRun.step

    def dying(self: Any, number: int) -> Any:
        if self.context.stage.name == "hear" and number == 1:
            raise Stop
        return step(self, number)

    monkeypatch.setattr(runs.StageRun, "step", dying)
    with pytest.raises(Stop):
        Run(loaded, tmp_path / "out", tell=lambda _: None).train()
    monkeypatch.undo()
    Run(loaded, tmp_path / "out", tell=lambda _: None).train(resume=True)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def keep_heads(loaded: Loaded, out: Path) -> None:
    """Train, and write down with which heads this process begins the last stage."""
    run_steps = runs.run_steps

    def noting(run: runs.StageRun, start: int, **words: Any) -> None:
        if run.context.stage.name == "hear":
            torch.save(run.objective.state_dict(), out.with_name(f"heads-{processes.rank()}.pt"))
        run_steps(run, start, **words)

    runs.run_steps = noting
    Run(loaded, out, tell=lambda _: None).train()


def test_all_processes_start_with_the_same_heads(tmp_path: Path) -> None:
    together(2, tmp_path, keep_heads, with_heads(tmp_path), tmp_path / "out")
    one, other = (torch.load(tmp_path / f"heads-{number}.pt") for number in range(2))
    assert any(name.startswith("heads.") for name in one)
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name


def test_resuming_a_finished_run_trains_nothing_more(finished: Finished, tmp_path: Path) -> None:
    import shutil

    out, result, _ = finished
    shutil.copytree(out, tmp_path / "out")
    again = Run(tiny(tmp_path), tmp_path / "out", tell=lambda _: None).train(resume=True)
    assert losses(tmp_path / "out") == losses(out)
    assert [asdict_without_place(s) for s in again.stages] == [asdict_without_place(s) for s in result.stages]


def asdict_without_place(stage: StageResult) -> tuple[Any, ...]:
    return (stage.name, stage.steps, stage.first_loss, stage.last_loss, stage.trainable)


def test_a_folder_in_use_and_another_recipe_are_refused(finished: Finished, tmp_path: Path) -> None:
    out, _, _ = finished
    with pytest.raises(UserError, match=r"is not empty; use --resume"):
        Run(tiny(tmp_path), out, tell=lambda _: None).train()
    with pytest.raises(ConfigError, match=r"was begun with 'seed: 3', now it says 'seed: 4'"):
        Run(tiny(tmp_path, seed=4), out, tell=lambda _: None).train(resume=True)


def test_a_loss_that_is_no_number_stops_and_lists_the_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ossicle.training.objectives.next_token import NextToken

    loss = NextToken.loss

    def broken(self: Any, batch: Any) -> Any:
        out = loss(self, batch)
        object.__setattr__(out, "total", out.total * math.nan)
        return out

    monkeypatch.setattr(NextToken, "loss", broken)
    with pytest.raises(UserError, match=r"stage 'align', step 0: the loss is nan; its samples are listed in .*json"):
        Run(tiny(tmp_path), tmp_path / "out", tell=lambda _: None).train()
    rescued = json.loads((tmp_path / "out" / "not_a_number.json").read_text(encoding="utf-8"))
    assert len(rescued["samples"]) == 2
    assert all(name.startswith("world_sounds:") for name in rescued["samples"])


def test_everything_missing_is_listed_before_any_work(tmp_path: Path) -> None:
    data = {
        **TINY["data"],
        "one": {"kind": "messages", "path": "a.jsonl"},
        "two": {"kind": "messages", "path": "b.jsonl"},
    }
    with pytest.raises(DataError, match=r"needs what is not here: .*a.jsonl.*b.jsonl"):
        Run(tiny(tmp_path, data=data), tmp_path / "out", tell=lambda _: None).train()


MOWE = {"kind": "mowe", "base": TINY["model"]["streams"][0]["encoder"], "pool": [{"kind": "cnn", "dim": 8, "heads": 1}]}


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("model.streams.0.integration.layers=[7]", "layers.*7"),
        ("model.streams.0.integration.kind=atend", "did you mean 'attend'"),
        ("model.streams.0.encoder.kind=cnm", "did you mean 'cnn'"),
        ("model.streams.0.encoder.layers=[9]", "blocks 0 to 0"),
        ("model.streams.0.encoder.heads=3", "dim.* a multiple of heads, 3"),
        ("model.streams.0.connector={kind: qformer, hidden: 16, heads: 3}", "heads"),
        ("model.streams.0.connector={kind: tltr, heads: 3}", "no multiple of heads 3"),
        (f"model.streams.0.encoder={json.dumps({**MOWE, 'top_k': 3})}", "the pool has 1"),
        (f"model.streams.0.encoder={json.dumps({**MOWE, 'concat': 'time', 'width': 3})}", "along time"),
        (
            "model.language_model.architecture.num_attention_heads=3",
            r"architecture: .* number of attention heads \(3\)",
        ),
        ("stages.1.train=[conector]", "did you mean 'connector'"),
        ("stages.1.train=['(']", "neither a part nor a regular expression"),
    ],
)
def test_what_does_not_fit_is_one_line_before_any_work(
    override: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No source is opened, no folder is made, no weight is allocated."""
    monkeypatch.setattr(Run, "open_sources", lambda self: pytest.fail("data was opened"))
    with pytest.raises(UserError, match=said) as caught:
        Run(tiny(tmp_path, override), tmp_path / "out", tell=lambda _: None).train()
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_new_runs_take_a_free_folder_and_resuming_takes_the_last(tmp_path: Path) -> None:
    assert free_folder(tmp_path, "a").name == "a"
    for name in ("a", "a-2", "a-10", "a-shrunk", "ab"):
        (tmp_path / name).mkdir()
    assert free_folder(tmp_path, "a").name == "a-11"
    assert free_folder(tmp_path, "a", resume=True).name == "a-10"
    assert free_folder(tmp_path, "new", resume=True).name == "new"
