"""A decoder cut among processes: the losses of one process, checkpoints that any number reads, one ordinary folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from several import together
from test_kill import losses
from tiny_recipe import TINY, tiny

from ossicle.data.sample import AudioRef, Sample
from ossicle.data.world_sounds import WorldSoundsSource
from ossicle.errors import CheckpointError, ConfigError, UserError
from ossicle.mixtures.routers import forced_weights
from ossicle.training import checkpoint, processes, shard
from ossicle.training.checkpoint import Place
from ossicle.training.objectives.next_token import NextToken
from ossicle.training.recipe import Loaded
from ossicle.training.run import Run

EAR = {**TINY["model"]["streams"][0]["encoder"], "dropout": 0}
MIXTURE = {"kind": "mowe", "base": EAR, "pool": [EAR, EAR]}
ALL_WAYS = [
    {"name": "attended", "encoder": MIXTURE, "connector": {"kind": "mlp"}, "integration": {"kind": "attend"}},
    {"name": "rows", "encoder": "attended", "connector": {"kind": "pool", "factor": 2}},
    {"name": "crossed", "encoder": "attended", "integration": {"kind": "cross", "layers": [1]}},
]
BATCH = NextToken.batch
STILL = "model.language_model.architecture.attention_dropout=0"


def recipe(*, lora: bool = False, steps: int = 2, **changes: Any) -> dict[str, Any]:
    """Return changes to the tiny recipe: first over a frozen decoder, then over all of it or adapters, recomputed."""
    adapters = {"r": 4, "target_modules": ["q_proj", "k_proj", "v_proj", "down_proj"]} if lora else None
    model = {**TINY["model"], "streams": ALL_WAYS, "lora": adapters}
    shared = {"batch_size": 4, "micro_batch_size": 1, "audio_dropout": 0.5, "checkpoint_every": 1, **changes}
    first, second = ({**stage, **shared, "steps": steps} for stage in TINY["stages"])
    first |= {"train": ["connector", "router"]}
    second |= {"train": ["connector", "encoder", "router", "integration", "lora" if lora else "language_model"]}
    return {"model": model, "stages": [first, {**second, "gradient_checkpointing": True}]}


def by_turns(self: NextToken, step: int) -> Any:
    """Draw a micro-batch; its number decides the route, so that two processes never take the same one."""
    encoder = self.context.model.streams["attended"].encoder
    encoder._forced = {name: forced_weights(step % 2, encoder.names) for name in encoder.config.routers}
    return BATCH(self, step)


def run(loaded: Loaded, out: Path, resume: bool = False) -> None:
    Run(loaded, out, tell=lambda _: None).train(resume=resume)


def close(a: Path, b: Path, within: float = 1e-4) -> None:
    one, other = losses(a), losses(b)
    assert [row[:2] for row in one] == [row[:2] for row in other]
    assert [row[2] for row in one] == pytest.approx([row[2] for row in other], abs=within)


def test_a_cut_decoder_has_the_losses_of_one_process_and_goes_on_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All ways to hear, disjoint routes, and half of the samples without audio: some process has none in a batch."""
    monkeypatch.setattr(NextToken, "batch", by_turns)
    loaded = tiny(tmp_path, STILL, "parallel=shard", **recipe())
    run(loaded, tmp_path / "whole")
    together(2, tmp_path, run, loaded, tmp_path / "cut")
    close(tmp_path / "cut", tmp_path / "whole")

    last = checkpoint.complete(tmp_path / "cut" / "checkpoints")[-1]
    shares = sorted((last / checkpoint.SHARES).iterdir())
    assert [path.stat().st_size > 4096 for path in shares] == [True, True]
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut"))
    assert {name: tensor.shape for name, tensor in one.items()} == {name: t.shape for name, t in other.items()}
    apart = [float((one[name] - other[name]).abs().mean()) for name in one if name.startswith("language_model")]
    assert max(apart) < 1e-4  # in the mean, for Adam turns rounding of a tiny gradient into a whole step

    shares[1].write_bytes(shares[1].read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="shares"):
        checkpoint.verify(last)
    shutil.rmtree(tmp_path / "cut" / "model")
    run(loaded, tmp_path / "cut", resume=True)  # from what two processes wrote before that, within a stage
    close(tmp_path / "cut", tmp_path / "whole")


def test_a_batch_of_which_nothing_can_be_read_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses are those of larger batches, which are a sample short; no process leaves the others waiting."""
    sample = WorldSoundsSource.sample

    def broken(self: WorldSoundsSource, index: int) -> Sample:
        lost = (AudioRef(path=tmp_path / "lost.wav"),) if index % 3 == 0 else None
        return replace(sample(self, index), audios=lost or sample(self, index).audios)

    monkeypatch.setattr(WorldSoundsSource, "sample", broken)
    alone, wide = (
        tiny(tmp_path, STILL, "parallel=shard", **recipe(audio_dropout=0, micro_batch_size=m)) for m in (1, 4)
    )
    run(wide, tmp_path / "wide")
    run(alone, tmp_path / "alone")
    close(tmp_path / "alone", tmp_path / "wide")
    together(2, tmp_path, run, alone, tmp_path / "cut")
    close(tmp_path / "cut", tmp_path / "wide")
    rows = [json.loads(line) for line in (tmp_path / "alone" / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert sum(sum(row.get("skipped", {}).values()) for row in rows) > 0


def cannot_write(root: Path) -> None:
    """Save a share of a matrix, while the second process has no room."""
    from torch.distributed.checkpoint import HuggingFaceStorageWriter as Writer
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    def full(*words: Any) -> Any:
        raise OSError(28, "No space left on device")

    mesh = init_device_mesh("cpu", (2,))
    cut = distribute_tensor(torch.ones(4, 3), mesh, [Shard(0)])
    for step in (1, 2):
        if step == 2 and processes.rank() == 1:
            Writer.write_data = full
        try:
            checkpoint.save(root, Place(stage=0, step=step), {"note.json": "{}"}, keep=9, shares={"model|a": cut})
        except UserError as error:
            (root / f"said-{processes.rank()}").write_text(f"{step} {error}", encoding="utf-8")
        processes.wait()


def test_a_full_disk_of_one_process_stops_all_and_older_checkpoints_stay(tmp_path: Path) -> None:
    together(2, tmp_path, cannot_write, tmp_path / "kept")
    for number in range(2):
        said = (tmp_path / "kept" / f"said-{number}").read_text(encoding="utf-8")
        assert said.startswith("2 ")
        assert "No space left on device" in said
        assert "--resume" in said
    found = checkpoint.newest(tmp_path / "kept")
    assert found is not None
    assert found[1].step == 1
    whole = torch.zeros(4, 3)
    shard.read(found[0] / checkpoint.SHARES, {"model|a": whole})
    assert torch.equal(whole, torch.ones(4, 3))


def test_four_bits_cannot_be_cut(tmp_path: Path) -> None:
    decoder = {"pretrained": "somewhere", "quantization": {"kind": "nf4"}}
    with pytest.raises(ConfigError, match=r"cannot cut a decoder in 4 bits"):
        tiny(tmp_path, "parallel=shard", model={**TINY["model"], "language_model": decoder})


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
@pytest.mark.parametrize("ways", ["replicate", "shard"])
def test_fifty_steps_of_each_stage_have_the_losses_of_one_process(
    tmp_path: Path, ways: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NextToken, "batch", by_turns)
    loaded = tiny(tmp_path, STILL, f"parallel={ways}", **recipe(steps=50, checkpoint_every=100))
    run(loaded, tmp_path / "one")
    together(count, tmp_path, run, loaded, tmp_path / "many")
    close(tmp_path / "many", tmp_path / "one")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("precision", "dtype", "within"),
    [("fp32", "float32", 1e-4), ("bf16", "float32", 0.05), ("bf16", "bfloat16", 0.05)],
)
def test_adapters_over_a_frozen_cut_decoder(tmp_path: Path, precision: str, dtype: str, within: float) -> None:
    """Begun by two processes, gone on with by three, exported with the adapters folded in."""
    changes = recipe(lora=True, steps=6, precision=precision, batch_size=6, checkpoint_every=3)
    changes["model"]["language_model"] = {**changes["model"]["language_model"], "dtype": dtype}
    loaded = tiny(tmp_path, STILL, "parallel=shard", **changes)
    run(loaded, tmp_path / "one")
    together(2, tmp_path, run, loaded, tmp_path / "many")
    close(tmp_path / "many", tmp_path / "one", within)
    for folder in (checkpoint.complete(tmp_path / "many" / "checkpoints")[-1], tmp_path / "many" / "model"):
        shutil.rmtree(folder)
    together(3, tmp_path, run, loaded, tmp_path / "many", True)
    close(tmp_path / "many", tmp_path / "one", within)
    one, many = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("one", "many"))
    assert sorted(one) == sorted(many)
    assert not [name for name in many if "lora_" in name]
