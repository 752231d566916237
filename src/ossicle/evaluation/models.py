"""From a model's name to something that answers, and to what identifies it in a card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ossicle.evaluation.answers import Answerer
from ossicle.evaluation.card import model_hash


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> tuple[Answerer, dict[str, Any]]:
    """Load a model folder or a model that ships.

    Args:
        name: Folder, or a name such as `nano`.
        device: Where to compute.
        dtype: Number format of the weights.

    Returns:
        The answerer, and its name, hash and setting for the card.

    Raises:
        CheckpointError: No such model.
    """
    from ossicle.inference.engine import BUNDLED, bundled, load

    engine = load(name, device=device, dtype=dtype)
    folder = bundled(name) if name in BUNDLED else Path(name)
    return engine, {"name": folder.name, "hash": model_hash(folder), "setting": engine.setting}


def default_out(model: dict[str, Any], suite: str) -> Path:
    """Return the folder where the answers and the card of a run go when none is named.

    Example:
        >>> default_out({"name": "nano", "hash": "abcdef0123"}, "clips").as_posix()
        'evaluations/nano-abcdef01-clips'
    """
    return Path("evaluations") / f"{model['name']}-{model['hash'][:8]}-{suite.replace(',', '+')}"
