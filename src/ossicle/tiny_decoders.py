"""Tiny random decoders of every supported family, for tests here and elsewhere.

Each has 2 to 4 layers of width 64 with grouped queries, so that a mistake in any family's path shows in milliseconds.
"""

from __future__ import annotations

from typing import Any

from transformers import AutoConfig, PreTrainedConfig

_BASE: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "initializer_range": 0.1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

TINY_DECODERS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "mistral": {"model_type": "mistral", "sliding_window": None},
    "mistral-window": {"model_type": "mistral", "sliding_window": 8},
    "qwen2": {"model_type": "qwen2"},
    "qwen3": {"model_type": "qwen3", "head_dim": 16},
    "gemma3": {
        "model_type": "gemma3_text",
        "head_dim": 16,
        "num_hidden_layers": 4,
        "sliding_window": 8,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "query_pre_attn_scalar": 16,
    },
    "phi3": {"model_type": "phi3"},
    "olmo2": {"model_type": "olmo2"},
    "smollm3": {"model_type": "smollm3", "num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 0]},
}


def tiny_decoder_config(name: str = "llama", **changes: Any) -> PreTrainedConfig:
    """Return the config of a tiny random decoder.

    Args:
        name: A key of `TINY_DECODERS`.
        **changes: Fields to change.

    Example:
        >>> tiny_decoder_config("qwen3").hidden_size
        64
    """
    return AutoConfig.for_model(**{**_BASE, **TINY_DECODERS[name], **changes})
