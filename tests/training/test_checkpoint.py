"""A checkpoint is whole or it is not there; the newest whole one is found, and it must fit."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from ossicle.errors import CheckpointError, UserError
from ossicle.training import checkpoint
from ossicle.training.checkpoint import Place


def model(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def put(root: Path, step: int, seed: int = 0, keep: int = 9, stage: int = 0) -> Path:
    files = {"model.safetensors": checkpoint.tensors_of(model(seed)), "note.json": "{}"}
    return checkpoint.save(root, Place(stage=stage, step=step), files, keep=keep)


def test_weights_and_running_statistics_come_back_bit_for_bit(tmp_path: Path) -> None:
    trained = model(1)
    trained(torch.randn(8, 3))
    state = checkpoint.tensors_of(trained)
    path = checkpoint.save(tmp_path, Place(stage=0, step=1), {"model.safetensors": state}, keep=1)
    fresh = model(2)
    checkpoint.load_tensors(fresh, checkpoint.tensors(path / "model.safetensors"), (), path)
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, fresh.state_dict()[name]), name


def test_the_optimiser_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    def step(net: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        net(torch.arange(12.0).view(4, 3)).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()

    steady = model()
    optimizer = torch.optim.AdamW(steady.parameters(), lr=1e-2)
    step(steady, optimizer)
    named = dict(steady.named_parameters())
    files = {
        "m.safetensors": checkpoint.tensors_of(steady),
        "optimizer.safetensors": checkpoint.optimizer_tensors(optimizer, named),
    }
    path = checkpoint.save(tmp_path, Place(stage=0, step=1), files, keep=1)
    step(steady, optimizer)

    again = model(5)
    other = torch.optim.AdamW(again.parameters(), lr=1e-2)
    checkpoint.load_tensors(again, checkpoint.tensors(path / "m.safetensors"), (), path)
    checkpoint.load_optimizer(other, dict(again.named_parameters()), path)
    step(again, other)
    for (name, a), b in zip(steady.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b), name


def test_the_newest_wins_across_stages_and_old_ones_go(tmp_path: Path) -> None:
    for stage, step in ((0, 100), (0, 20), (1, 5), (1, 10)):
        put(tmp_path, step, stage=stage, keep=2)
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["0001-00000005", "0001-00000010"]
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1] == Place(stage=1, step=10)


@pytest.mark.parametrize("damage", ["cut", "flip", "gone", "state", "format"])
def test_a_damaged_checkpoint_is_passed_over_and_that_is_said(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, 1)
    last = put(tmp_path, 2)
    weights = last / "model.safetensors"
    content = bytearray(weights.read_bytes())
    if damage == "cut":
        weights.write_bytes(content[:-1])
    elif damage == "flip":
        content[-1] ^= 1
        weights.write_bytes(content)
    elif damage == "gone":
        weights.unlink()
    elif damage == "state":
        (last / "state.json").write_text("{", encoding="utf-8")
    else:
        state = json.loads((last / "state.json").read_text(encoding="utf-8"))
        (last / "state.json").write_text(json.dumps({**state, "ossicle_format": 99}), encoding="utf-8")
    with caplog.at_level(logging.WARNING):
        found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1].step == 1
    assert str(last) in caplog.text
    assert "going back to the one before" in caplog.text


def test_one_that_was_being_written_is_not_there(tmp_path: Path) -> None:
    put(tmp_path, 1)
    half = tmp_path / ("0000-00000002" + checkpoint.WRITING)
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert [path.name for path in checkpoint.complete(tmp_path)] == ["0000-00000001"]
    put(tmp_path, 2)
    assert not half.exists()
    assert checkpoint.newest(tmp_path / "nowhere") is None


def test_a_full_disk_stops_cleanly_and_older_ones_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path, 1)

    def full(tensors: object, path: Path) -> None:
        Path(path).write_bytes(b"x" * 10)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(UserError, match=r"No space left on device.*--resume"):
        put(tmp_path, 2)
    monkeypatch.undo()
    found = checkpoint.newest(tmp_path)
    assert found is not None
    assert found[1].step == 1
    assert [path.name for path in tmp_path.iterdir()] == ["0000-00000001"]


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = checkpoint.tensors_of(model())
    without = {name: tensor for name, tensor in state.items() if name != "0.bias"}
    with pytest.raises(CheckpointError, match=r"1 missing \(0.bias\)"):
        checkpoint.load_tensors(model(), without, (), tmp_path)
    with pytest.raises(CheckpointError, match=r"1 unexpected \(9.bias\)"):
        checkpoint.load_tensors(model(), {**state, "9.bias": torch.ones(1)}, (), tmp_path)
    with pytest.raises(CheckpointError, match=r"1 of another shape \(0.bias\)"):
        checkpoint.load_tensors(model(), {**state, "0.bias": torch.ones(9)}, (), tmp_path)


def test_shared_weights_are_saved_once_and_left_out_prefixes_not_at_all() -> None:
    net = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    net["b"].weight = net["a"].weight
    assert sorted(checkpoint.tensors_of(net)) == ["a.bias", "a.weight", "b.bias"]
    assert sorted(checkpoint.tensors_of(net, ("a.",))) == ["b.bias"]
