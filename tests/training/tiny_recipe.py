"""A recipe small enough for a test to train, in two stages, and a way to write its variants."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from ossicle.training.recipe import Loaded, load

TINY: dict[str, Any] = {
    "name": "tiny",
    "seed": 3,
    "model": {
        "language_model": {
            "architecture": {
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "max_position_embeddings": 256,
                "attention_dropout": 0.1,
            }
        },
        "tokenizer": {"kind": "bpe", "vocab_size": 330},
        "streams": [
            {
                "name": "sound",
                "encoder": {"kind": "cnn", "channels": [4, 4, 4, 4], "dim": 16, "depth": 1, "heads": 2, "num_mels": 16},
                "connector": {"kind": "mlp"},
                "integration": {"kind": "attend"},
            }
        ],
    },
    "data": {"sounds": {"kind": "world_sounds", "samples": 24, "clip_s": 0.3, "options": 2}},
    "stages": [
        {
            "name": "align",
            "train": ["connector"],
            "mix": [{"source": "sounds"}],
            "learning_rate": 1e-3,
            "batch_size": 4,
            "micro_batch_size": 2,
            "steps": 5,
            "precision": "fp32",
            "checkpoint_every": 2,
        },
        {
            "name": "all",
            "train": ["encoder", "connector", "language_model"],
            "mix": [{"source": "sounds"}],
            "learning_rate": 3e-3,
            "batch_size": 4,
            "steps": 6,
            "warmup_steps": 2,
            "precision": "fp32",
            "checkpoint_every": 2,
        },
    ],
}


def write(folder: Path, **changes: Any) -> Path:
    """Write the recipe with top-level keys changed and return its file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**copy.deepcopy(TINY), **changes}, sort_keys=False), encoding="utf-8")
    return path


def tiny(folder: Path, *overrides: str, **changes: Any) -> Loaded:
    """Return the recipe, checked."""
    return load(str(write(folder, **changes)), overrides)
