"""A model as a plain folder that needs nothing but ossicle, or transformers alone for its decoder, to be read again.

    load(model) ──► adapters folded into the weights ──► config, safetensors, processor ──► OUT (written aside, renamed)

Source: our choice.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ossicle.errors import CheckpointError
from ossicle.inference.engine import load


def export(model: str | Path, out: Path, *, decoder_only: bool = False, dtype: str = "auto") -> Path:
    """Write a model as a plain folder.

    Args:
        model: A model folder, or a model that ships.
        out: Folder to write; it must not hold anything yet.
        decoder_only: Write only the language model, as transformers alone reads it.
        dtype: Number format of the weights.

    Returns:
        The folder.

    Raises:
        CheckpointError: No such model, or `out` holds something.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise CheckpointError(f"'{out}' holds something already; give another folder: --out NEW")
    engine = load(model, device="cpu", dtype=dtype)
    merge_adapters(engine.model)
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    try:
        part = engine.model.language_model if decoder_only else engine.model
        part.generation_config = engine.model.generation_config  # which the folder keeps for the whole model alone
        part.save_pretrained(aside)
        (engine.processor.tokenizer if decoder_only else engine.processor).save_pretrained(aside)
        aside.chmod(0o755)
        if out.exists():
            out.rmdir()
        aside.rename(out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def merge_adapters(model: Any) -> int:
    """Fold every adapter into the layer that it hangs on; return how many there were."""
    found = [(name, layer) for name, layer in model.named_modules() if hasattr(layer, "base_layer")]
    for name, layer in found:
        layer.merge()
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, layer.get_base_layer())
    return len(found)
