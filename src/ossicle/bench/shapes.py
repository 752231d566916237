"""Named decoder shapes and the variants that are measured at them; random weights, nothing is fetched.

    variant       audio tokens that are rows      audio tokens that are keys and values
    plits-mlp     N                               –
    plits-qformer N / 8 queries                   –
    lal           –                               N
    pal-v2        N / 2 (a speech encoder)        N / 2 (a general encoder)
    pal-v3        16 summary tokens               N
    cross         –                               N, read by gated blocks

Sizes of the real decoders are those of their published configurations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ossicle.errors import ConfigError, suggest

SUMMARY_TOKENS = 16
QFORMER_REDUCTION = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A decoder and a batch to measure it on.

    Attributes:
        decoder: Fields of the decoder's config, `model_type` included.
        batch: Rows of a step.
        audio_tokens: Audio tokens N of each row.
        text_tokens: Text tokens of each row.
        label_tokens: How many of them, the last ones, carry a label.
    """

    decoder: dict[str, Any]
    batch: int
    audio_tokens: int = 250
    text_tokens: int = 64
    label_tokens: int = 20


def _decoder(
    kind: str, layers: int, width: int, heads: int, kv: int, ffn: int, vocab: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "intermediate_size": ffn,
        "vocab_size": vocab,
        "max_position_embeddings": 131072,
        **more,
    }


SHAPES: dict[str, Shape] = {
    "cpu-small": Shape(decoder=_decoder("llama", 6, 256, 4, 4, 704, 512), batch=16),
    "llama-3.2-1b": Shape(decoder=_decoder("llama", 16, 2048, 32, 8, 8192, 128256, tie_word_embeddings=True), batch=8),
    "llama-3.2-1b-2-layers": Shape(
        decoder=_decoder("llama", 2, 2048, 32, 8, 8192, 128256, tie_word_embeddings=True), batch=2
    ),
    "llama-3.2-3b": Shape(decoder=_decoder("llama", 28, 3072, 24, 8, 8192, 128256, tie_word_embeddings=True), batch=4),
    "qwen2.5-1.5b": Shape(decoder=_decoder("qwen2", 28, 1536, 12, 2, 8960, 151936, tie_word_embeddings=True), batch=8),
}

VARIANTS = ("plits-mlp", "plits-qformer", "lal", "pal-v2", "pal-v3", "cross")


def shape(name: str) -> Shape:
    """Return a named shape.

    Raises:
        ConfigError: No shape of that name.
    """
    if name not in SHAPES:
        raise ConfigError(f"--shape {name}: unknown; {suggest(name, list(SHAPES))}")
    return SHAPES[name]


def token_split(variant: str, audio_tokens: int) -> list[tuple[str, int]]:
    """Return a variant's streams as (integration kind, tokens).

    Example:
        >>> token_split("pal-v3", 250)
        [('prepend', 16), ('attend', 250)]
    """
    half = audio_tokens // 2
    table = {
        "plits-mlp": [("prepend", audio_tokens)],
        "plits-qformer": [("prepend", max(1, audio_tokens // QFORMER_REDUCTION))],
        "lal": [("attend", audio_tokens)],
        "pal-v2": [("prepend", half), ("attend", audio_tokens - half)],
        "pal-v3": [("prepend", SUMMARY_TOKENS), ("attend", audio_tokens)],
        "cross": [("cross", audio_tokens)],
    }
    return table[variant]
