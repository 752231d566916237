"""Tensors of a published checkpoint, read without running anything in it.

    FILE.safetensors | FILE.bin | FILE.pt | folder of them ──► name → tensor (memory-mapped where the format allows)

A pickle can run code when it is opened; here only tensors and plain containers are let through, all else is refused.
Source: our choice (`torch.load(weights_only=True)`).
"""

from __future__ import annotations

import os
import pickle
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ossicle.errors import CheckpointError

PICKLED = (".bin", ".pt", ".pth")
NOT_WEIGHTS = ("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt")
"""Files of a training run that lie beside its weights."""
WRAPPERS = ("state_dict", "model_state_dict", "model")
"""Keys under which some checkpoints hold their tensors."""


def weight_files(path: Path) -> list[Path]:
    """Return the weight files of a folder, safetensors before pickled ones, or the file itself.

    Raises:
        CheckpointError: Nothing there.
    """
    if path.is_file():
        return [path]
    found = sorted(path.glob("*.safetensors")) if path.is_dir() else []
    if not found and path.is_dir():
        found = sorted(file for file in path.iterdir() if file.suffix in PICKLED and file.name not in NOT_WEIGHTS)
    if not found:
        raise CheckpointError(
            f"'{path}': no weights there; expected a .safetensors, .bin or .pt file, or a folder of it"
        )
    return found


def expanded(path: str | Path) -> Path:
    """Return a path with `~` and `${VARIABLES}` filled in; what is not set stays as it is."""
    return Path(os.path.expandvars(path)).expanduser()


def read_tensors(paths: Iterable[Path]) -> dict[str, Tensor]:
    """Return all tensors of files and folders; a later one wins.

    Raises:
        CheckpointError: A file is missing, damaged, or holds something other than tensors.

    Example:
        >>> read_tensors([Path("pytorch_model.bin")])  # doctest: +SKIP
    """
    state: dict[str, Tensor] = {}
    for path in paths:
        for file in weight_files(expanded(path)):
            state |= _one(file)
    return state


def _one(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, framework="pt") as opened:
                return {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"'{file}' is no safetensors file: {str(error).splitlines()[0]}") from None
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        what = str(error).split("Please file an issue")[0].strip().splitlines()
        reason = next((line.strip() for line in what if "GLOBAL" in line or "Unsupported" in line), what[0])
        raise CheckpointError(f"'{file}' holds more than tensors and is not opened: {reason[:160]}") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = (str(error) or "it is cut short").splitlines()[0]
        raise CheckpointError(f"'{file}' is no checkpoint: {reason}") from None
    return _tensors(content, file)


def _tensors(content: Any, file: Path) -> dict[str, Tensor]:
    while isinstance(content, dict) and not any(isinstance(value, Tensor) for value in content.values()):
        inner = next((content[key] for key in WRAPPERS if isinstance(content.get(key), dict)), None)
        if inner is None:
            break
        content = inner
    if not isinstance(content, dict):
        raise CheckpointError(f"'{file}' holds a {type(content).__name__}, expected names and their tensors")
    found = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not found:
        raise CheckpointError(f"'{file}' holds no tensor")
    return found
