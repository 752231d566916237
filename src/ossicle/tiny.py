"""Tiny parts for tests and examples: every encoder, connector and decoder at a size that builds in milliseconds.

    for kind, spec in TINY_ENCODERS.items(): build_encoder(spec)

Random weights, real mechanics. Whoever adds an encoder or connector adds a line here, and the generic tests cover it.
Source: our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from ossicle.encoders.base import Encoder

WAVEFORM = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": [8] * 7,
    "num_conv_pos_embeddings": 9,
    "num_conv_pos_embedding_groups": 2,
}
"""The architecture that encoders of raw samples share.

No smaller than bf16 bears: on CPUs with AMX, torch 2.13's grouped convolution is wrong for an even kernel over few
channels, and a strided one whose output is one wide (`cnn` over 16 mels); real sizes are right (`docs/log.md`).
"""

TINY_ENCODERS: dict[str, dict[str, Any]] = {
    "cnn": {"kind": "cnn", "window_s": 2.0, "num_mels": 32, "channels": [4, 4, 8, 8], "dim": 16, "heads": 2},
    "level": {"kind": "level", "window_s": 2.0, "bins": 8},
    "whisper": {
        "kind": "whisper",
        "window_s": 2.0,
        "architecture": {
            "d_model": 16,
            "encoder_layers": 3,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 24,
            "num_mel_bins": 16,
        },
    },
    "ast": {
        "kind": "ast",
        "window_s": 1.0,
        "architecture": {
            "hidden_size": 16,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "intermediate_size": 24,
            "num_mel_bins": 32,
        },
    },
    "ltu_ast": {"kind": "ltu_ast", "dim": 16, "depth": 2, "heads": 2, "window_s": 1.0},
    "sslam": {"kind": "sslam", "dim": 16, "depth": 3, "heads": 2, "window_s": 1.0},
    "clap": {
        "kind": "clap",
        "window_s": 2.0,
        "architecture": {
            "spec_size": 64,
            "num_mel_bins": 16,
            "patch_embeds_hidden_size": 8,
            "hidden_size": 16,
            "depths": [1, 1],
            "num_attention_heads": [2, 2],
            "num_hidden_layers": 2,
        },
    },
    "hubert": {"kind": "hubert", "window_s": 1.0, "architecture": WAVEFORM},
    "wav2vec2": {
        "kind": "wav2vec2",
        "window_s": 1.0,
        "architecture": {**WAVEFORM, "feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True},
    },
    "wavlm": {"kind": "wavlm", "window_s": 1.0, "architecture": WAVEFORM},
}
"""Kind of encoder to a spec with random weights and a window of one or two seconds."""

TINY_CONNECTORS: dict[str, dict[str, Any]] = {
    "mlp": {"kind": "mlp", "hidden": 24},
    "linear": {"kind": "linear"},
    "stack": {"kind": "stack", "factor": 3, "hidden": 24},
    "pool": {"kind": "pool", "factor": 3, "hidden": 24},
    "conv": {"kind": "conv", "depth": 2, "hidden": 24},
    "qformer": {"kind": "qformer", "queries": 4, "window_tokens": 5, "hidden": 16, "depth": 1, "heads": 2},
    "tags": {
        "kind": "tags",
        "tags": [f"sound {number}" for number in range(16)],
        "examples": 128,
        "gamma": 4.0,
        "factor": 3,
        "length": 2,
        "time_embedding": True,
        "output_norm": True,
    },
    "tltr": {"kind": "tltr", "heads": 2, "inner": 16},
}
"""Kind of connector to a spec."""


_DECODER: dict[str, Any] = {
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
"""Decoder family to what differs from a Llama of width 64 with grouped queries."""


def tiny_encoder(kind: str, **changes: Any) -> Encoder:
    """Return a tiny encoder in evaluation mode.

    Args:
        kind: A name of `ossicle list encoders`.
        changes: Fields of its config that differ from the tiny spec.

    Example:
        >>> tiny_encoder("whisper", layers="all").facts.dim
        48
    """
    from ossicle.encoders.base import build_encoder

    return build_encoder({**TINY_ENCODERS[kind], **changes}).eval()


def tiny_decoder_config(name: str = "llama", **changes: Any) -> PreTrainedConfig:
    """Return the config of a tiny random decoder.

    Args:
        name: A key of `TINY_DECODERS`.
        **changes: Fields to change.

    Example:
        >>> tiny_decoder_config("qwen3").hidden_size
        64
    """
    from transformers import AutoConfig

    return AutoConfig.for_model(**{**_DECODER, **TINY_DECODERS[name], **changes})
