"""From a model's name to something that answers, and to what identifies it in a card."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ossicle.errors import CheckpointError
from ossicle.evaluation.answers import Answerer
from ossicle.evaluation.card import model_hash
from ossicle.evaluation.remote import Remote, remote_named
from ossicle.evaluation.rivals import Rival

UNRELATED = {"evaluation", "adapt", "cli", "serve", "bench", "training", "questions", "study", "demo.py"}
"""Rooms that no answer depends on."""


def remote_key() -> str:
    """Return the bearer token for endpoints, empty where none is set."""
    return os.environ.get("OSSICLE_REMOTE_KEY", "")


def open_model(name: str, *, device: str = "auto", dtype: str = "auto") -> tuple[Answerer, dict[str, Any]]:
    """Load a model folder or a model that ships.

    Args:
        name: Folder, a name such as `nano`, `https://host/v1#model` (key in OSSICLE_REMOTE_KEY), `hf:NAME` for an
            audio model of transformers (a folder of one is recognised), `cascade:…` or `tags:…` (see `cascade`).
        device: Where to compute.
        dtype: Number format of the weights.

    Returns:
        The answerer, and its name, hash and setting for the card.

    Raises:
        CheckpointError: No such model.
    """
    from ossicle.inference.engine import BUNDLED, bundled, load

    if name.startswith(("http://", "https://")):
        remote = remote_named(name, key=remote_key())
        return remote, {"name": remote.model, "hash": "", "setting": f"server {remote.url}"}
    if name.startswith(("cascade:", "tags:")):
        from ossicle.evaluation.cascade import rival

        answerer, facts = rival(name, key=remote_key(), device=device, dtype=dtype)
        return answerer, {**facts, "hash": "", "setting": answerer.setting}
    if name.startswith("hf:") or _of_transformers(Path(name)):
        from ossicle.evaluation.audio_lms import load_audio_lm

        place = name.removeprefix("hf:")
        model = load_audio_lm(place, device=device, dtype=dtype)
        mark = model_hash(Path(place)) if Path(place).is_dir() else ""
        return model, {"name": model.name, "hash": mark, "setting": model.setting}
    engine = load(name, device=device, dtype=dtype)
    folder = bundled(name) if name in BUNDLED else Path(name)
    return engine, {"name": folder.name, "hash": model_hash(folder), "setting": engine.setting}


def _of_transformers(folder: Path) -> bool:
    """Return whether a folder holds another project's model."""
    from ossicle.model import AudioLMConfig

    config = folder / "config.json"
    if not config.is_file():
        return False
    try:
        return json.loads(config.read_text(encoding="utf-8")).get("model_type") != AudioLMConfig.model_type
    except (json.JSONDecodeError, AttributeError):
        raise CheckpointError(f"{config}: not a JSON object; expected the config of a model") from None


def open_rivals(specs: Iterable[str], *, device: str = "auto", dtype: str = "auto") -> tuple[Rival, ...]:
    """Return the models of `cascade:…` and `tags:…` that are asked the same questions."""
    if not (specs := list(specs)):
        return ()
    from ossicle.evaluation.cascade import rival

    key = remote_key()
    opened = (rival(spec, key=key, device=device, dtype=dtype) for spec in specs)
    return tuple(Rival(answerer=answerer, facts=facts) for answerer, facts in opened)


def open_judge(spec: str) -> Remote | None:
    """Return the judging model of `https://host/v1#model`, None for an empty word."""
    return remote_named(spec, key=remote_key()) if spec else None


def default_out(header: Mapping[str, Any]) -> Path:
    """Return the folder of a run for which none is named: the same for the same model, data, setting and code.

    Where nothing can be written here, it is a new temporary folder.
    """
    name = f"{header['model'].get('name', 'model')}-{header['suite'].replace(',', '+')[:60]}".replace("/", "-")
    mark = hashlib.sha256(json.dumps(header, sort_keys=True, default=str).encode()).hexdigest()[:8]
    out = Path("evaluations") / f"{name}-{mark}"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ossicle-eval-"))
    return out


@cache
def code_hash() -> str:
    """Return a hash of the code that answers depend on, so that answers of other code are not taken over."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] not in UNRELATED:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
