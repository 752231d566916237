"""Checkpoints of a run: whole or not there at all.

    RUN/checkpoints/0001-000200/      stage 1, after 200 of its steps
        model.safetensors             parameters and running statistics
        objective.safetensors         heads that belong to the stage
        optimizer.safetensors         moments, by parameter name
        shares/…safetensors           with `parallel: shard`: what is cut among processes (`training.shard`)
        recipe.yaml  stage.json       resolved recipe; versions, data hashes, trainable table
        state.json                    written last: place in the curriculum, size and hash of every file

A folder is written under another name, flushed, and renamed. Reading starts at the newest; one whose files do not have
the size and hash that `state.json` says is passed over, and that is said. No random state is kept, because every step
starts from a seed of its own. Nothing is pickled. Source: our choice.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ossicle.errors import CheckpointError, UserError
from ossicle.training import processes, shard
from ossicle.training.freeze import LORA

log = logging.getLogger(__name__)

FORMAT = 1
WRITING = ".writing"
SHARES = "shares"
"""Folder, within a checkpoint, of what is cut among processes; names are `model|NAME` and `optimizer|NAME|KEY`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a run stands: `step` optimiser steps of stage number `stage` are done."""

    stage: int
    step: int


def tensors_of(model: nn.Module, left_out: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """Return parameters and lasting buffers by name, each storage once.

    Args:
        model: The model.
        left_out: Prefixes of parameters that can be read again from where they came from and never trained; adapters
            that hang below one are kept.
    """
    shared = set(model.state_dict()) - {name for name, _ in model.named_parameters()}
    buffers = {name: tensor for name, tensor in model.named_buffers() if name in shared}
    named = {**dict(model.named_parameters()), **buffers}
    kept = {name for name in named if not left_out or not name.startswith(left_out) or LORA.search(name)}
    return {name: tensor.detach() for name, tensor in named.items() if name in kept}


def optimizer_tensors(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter]) -> dict[str, Tensor]:
    """Return the optimiser's state as `name|key` → tensor."""
    return {
        f"{name}|{key}": value.detach()
        for name, parameter in named.items()
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_optimizer(optimizer: torch.optim.Optimizer, named: Mapping[str, nn.Parameter], path: Path) -> None:
    """Put back what `optimizer_tensors` returned, from a checkpoint of any number of processes."""
    for key, value in tensors(path / "optimizer.safetensors").items():
        name, _, slot = key.rpartition("|")
        optimizer.state[named[name]][slot] = value.clone() if slot == "step" else shard.like(value, named[name])
    into = {}
    for key in _cut(path, "optimizer"):
        name, _, slot = key.rpartition("|")
        into[f"optimizer|{key}"] = optimizer.state[named[name]][slot] = torch.zeros_like(named[name].detach())
    shard.read(path / SHARES, into)


def _cut(path: Path, kind: str) -> set[str]:
    """Return the names of one kind of which a checkpoint holds shares."""
    prefix = f"{kind}|"
    return {name.removeprefix(prefix) for name in shard.names(path / SHARES) if name.startswith(prefix)}


def load_model(model: nn.Module, left_out: tuple[str, ...], path: Path) -> None:
    """Fill a model that is not cut, whether or not the one that was saved was.

    Raises:
        CheckpointError: It does not fit.
    """
    wanted, cut = tensors_of(model, left_out), _cut(path, "model")
    into = {f"model|{name}": wanted[name] for name in cut & set(wanted)}
    shard.read(path / SHARES, into)
    read = {name: wanted[name] if name in wanted else torch.empty(0) for name in cut}
    load_tensors(model, {**tensors(path / "model.safetensors"), **read}, left_out, path / "model.safetensors")


def load_tensors(model: nn.Module, state: Mapping[str, Tensor], left_out: tuple[str, ...], where: Path) -> None:
    """Copy saved tensors into a model; every one must fit and none may be missing.

    Raises:
        CheckpointError: Naming what is missing, unexpected or of another shape.
    """
    wanted = tensors_of(model, left_out)
    missing, strange = sorted(set(wanted) - set(state)), sorted(set(state) - set(wanted))
    shapes = [name for name in wanted if name in state and wanted[name].shape != state[name].shape]
    if missing or strange or shapes:
        parts = {"missing": missing, "unexpected": strange, "of another shape": shapes}
        text = "; ".join(f"{len(names)} {what} ({', '.join(names[:3])})" for what, names in parts.items() if names)
        raise CheckpointError(f"{where}: the model does not fit: {text}; resume with the recipe it was made with")
    with torch.no_grad():
        for name, tensor in wanted.items():
            tensor.copy_(state[name])


def folder_name(place: Place) -> str:
    """Return the name of a checkpoint's folder; names sort as places do."""
    return f"{place.stage:04d}-{place.step:08d}"


def save(
    root: Path,
    place: Place,
    files: Mapping[str, Mapping[str, Tensor] | str],
    *,
    keep: int,
    shares: Mapping[str, Tensor] | None = None,
) -> Path:
    """Write a checkpoint, and remove all but the newest `keep`.

    The main process calls it; with shares all do, and each writes its own.

    Args:
        root: Folder of the run's checkpoints.
        place: Where the run stands.
        files: File name to tensors (`.safetensors`) or text.
        keep: How many stay.
        shares: What is cut among processes, by name.

    Raises:
        UserError: The disk is full or not writable; older checkpoints are untouched.
    """
    from safetensors import SafetensorError

    final = root / folder_name(place)
    temporary = root / (final.name + WRITING)
    try:
        if processes.is_main():
            shutil.rmtree(temporary, ignore_errors=True)
            (temporary / SHARES if shares else temporary).mkdir(parents=True)
        if shares:
            processes.wait()
            shard.write(temporary / SHARES, shares)
        if not processes.is_main():
            return final
        facts = {name: _write(temporary / name, content) for name, content in files.items()}
        facts |= {f"{SHARES}/{path.name}": _facts(path) for path in sorted(temporary.glob(f"{SHARES}/*"))}
        state = {"ossicle_format": FORMAT, "stage": place.stage, "step": place.step, "files": facts}
        _write(temporary / "state.json", json.dumps(state, indent=1))
        shutil.rmtree(final, ignore_errors=True)
        temporary.replace(final)
    except (OSError, SafetensorError) as error:
        if processes.is_main():
            shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(f"{final}: the checkpoint cannot be written ({error}); make room and use --resume") from None
    for old in complete(root)[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def complete(root: Path) -> list[Path]:
    """Return the folders of finished checkpoints, oldest first."""
    return sorted(path for path in root.glob("*-*") if path.is_dir() and not path.name.endswith(WRITING))


def newest(root: Path) -> tuple[Path, Place] | None:
    """Return the newest checkpoint that is whole, or None; those passed over are reported."""
    for path in reversed(complete(root)):
        try:
            return path, verify(path)
        except CheckpointError as error:
            log.warning("%s; going back to the one before", error)
    return None


def verify(path: Path) -> Place:
    """Return where a checkpoint stands, after comparing every file with its recorded size and hash.

    Raises:
        CheckpointError: Something is missing or damaged, or the format is another.
    """
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        version, files = state["ossicle_format"], state["files"]
        place = Place(stage=state["stage"], step=state["step"])
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"checkpoint {path}: 'state.json' is missing or damaged") from None
    if version != FORMAT:
        raise CheckpointError(f"checkpoint {path}: format {version}, this version of ossicle reads {FORMAT}")
    for name, facts in files.items():
        if not (path / name).is_file() or _facts(path / name) != facts:
            raise CheckpointError(f"checkpoint {path}: '{name}' is missing or damaged")
    return place


def tensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of one file of a verified checkpoint."""
    from safetensors.torch import load_file

    return load_file(path)


def _write(path: Path, content: Mapping[str, Tensor] | str) -> dict[str, Any]:
    """Write one file through to the disk and return its size and hash."""
    from safetensors.torch import save_file

    if isinstance(content, str):
        path.write_text(content, encoding="utf-8")
    else:
        save_file({name: tensor.cpu().contiguous().clone() for name, tensor in content.items()}, path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
    return _facts(path)


def _facts(path: Path) -> dict[str, Any]:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return {"bytes": path.stat().st_size, "blake2b": digest.hexdigest()}
