"""Weights of an encoder that a model of ossicle already has: `pretrained: nano#sound`.

    MODEL#STREAM ──► MODEL/*.safetensors ──► streams.STREAM.encoder.* ──► this encoder, strictly

MODEL is a folder, or a model that ships. So one study after another starts from the same ears. Source: our choice.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import safe_open
from torch import nn

from ossicle.encoders.tensors import expanded
from ossicle.errors import CheckpointError

SHIPPED = Path(__file__).parents[1]
"""Where the folders of models that ship lie."""


def model_folder(name: str) -> Path:
    """Return the folder that MODEL in `MODEL#STREAM` means, `${VARIABLES}` filled in; it need not be there."""
    inside = SHIPPED / name
    return inside if (inside / "config.json").is_file() else expanded(name)


def load_taught(encoder: nn.Module, name: str) -> None:
    """Read an encoder's weights out of a model folder.

    Args:
        encoder: Takes the weights; of the same kind and size.
        name: `MODEL#STREAM`.

    Raises:
        CheckpointError: No such folder or stream, or weights that do not fit.

    Example:
        >>> from ossicle.encoders.base import build_encoder
        >>> load_taught(build_encoder({"kind": "cnn"}), "nano#sound")
    """
    model, mark, stream = name.partition("#")
    folder = model_folder(model)
    files = sorted(folder.glob("model*.safetensors"))
    if not mark or not files:
        raise CheckpointError(
            f"encoder.pretrained '{name}': expected MODEL#STREAM with a model folder, or a shipped model: nano#sound"
        )
    prefix, found = f"streams.{stream}.encoder.", {}
    for path in files:
        with safe_open(path, framework="pt") as shard:
            keys = [key for key in shard.keys() if key.startswith(prefix)]  # noqa: SIM118 (not a mapping)
            found.update({key.removeprefix(prefix): shard.get_tensor(key) for key in keys})
    if not found:
        raise CheckpointError(f"encoder.pretrained '{name}': {folder} has no stream '{stream}' with an encoder")
    own = encoder.state_dict()
    wrong = sorted(set(own) ^ set(found)) or [key for key in own if own[key].shape != found[key].shape]
    if wrong:
        raise CheckpointError(
            f"encoder.pretrained '{name}': {len(wrong)} weights do not fit, first {wrong[0]}; "
            "kind and sizes must be those of that stream's encoder"
        )
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(found[key])
