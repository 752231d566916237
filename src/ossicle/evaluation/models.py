"""From a model's name to something that answers, and to what identifies it in a card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ossicle.evaluation.answers import Answerer
from ossicle.evaluation.card import model_hash
from ossicle.evaluation.remote import Remote, remote_named


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> tuple[Answerer, dict[str, Any]]:
    """Load a model folder or a model that ships.

    Args:
        name: Folder, a name such as `nano`, or `https://host/v1#model` (key in OSSICLE_REMOTE_KEY).
        device: Where to compute.
        dtype: Number format of the weights.

    Returns:
        The answerer, and its name, hash and setting for the card.

    Raises:
        CheckpointError: No such model.
    """
    from ossicle.inference.engine import BUNDLED, bundled, load

    if name.startswith(("http://", "https://")):
        remote = remote_named(name, key=os.environ.get("OSSICLE_REMOTE_KEY", ""))
        return remote, {"name": remote.model, "hash": "", "setting": f"server {remote.url}"}
    engine = load(name, device=device, dtype=dtype)
    folder = bundled(name) if name in BUNDLED else Path(name)
    return engine, {"name": folder.name, "hash": model_hash(folder), "setting": engine.setting}


def open_judge(spec: str) -> Remote | None:
    """Return the judging model of `https://host/v1#model`, None for an empty word."""
    return remote_named(spec, key=os.environ.get("OSSICLE_REMOTE_KEY", "")) if spec else None


def default_out(model: dict[str, Any], suite: str) -> Path:
    """Return the folder where the answers and the card of a run go when none is named.

    Example:
        >>> default_out({"name": "nano", "hash": "abcdef0123"}, "clips").as_posix()
        'evaluations/nano-abcdef01-clips'
    """
    name = "-".join(part for part in (model["name"].replace("/", "-"), model["hash"][:8]) if part)
    return Path("evaluations") / f"{name}-{suite.replace(',', '+')}"
