"""The smallest recipe that trains: one stream, one layer, one stage of two steps; tests change what they are about."""

from __future__ import annotations

from typing import Any

SMALLEST: dict[str, Any] = {
    "name": "tiny",
    "model": {
        "language_model": {
            "architecture": {
                "model_type": "llama",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 1,
                "num_attention_heads": 2,
                "num_key_value_heads": 2,
            }
        },
        "tokenizer": {"kind": "bpe", "vocab_size": 320},
        "streams": [
            {
                "name": "sound",
                "encoder": {"kind": "cnn", "channels": [4, 4, 4, 4], "dim": 16, "depth": 1, "heads": 2, "num_mels": 32},
                "integration": {"kind": "prepend"},
            }
        ],
    },
    "data": {"sounds": {"kind": "world_sounds", "samples": 8, "clip_s": 0.3}},
    "stages": [
        {
            "name": "all",
            "train": ["connector"],
            "mix": [{"source": "sounds"}],
            "learning_rate": 1e-3,
            "batch_size": 2,
            "steps": 2,
        }
    ],
}
