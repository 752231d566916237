"""What a stage will take, from sizes alone: operations, memory, hours. Estimates, to choose a machine by.

    operations of a sample   decoder   c · forward (bench.flops)         c = 3 if the decoder's weights train, else 2
                             connector 6 · weights · tokens
                             encoder   1 · forward · seconds if frozen, 3 · if it trains, 0 if its outputs are kept
    memory                   weights + 12 bytes a parameter that trains + what a micro-batch keeps for backward
    hours                    operations of all steps / what the machine sustains

Measured steps differ by what kernels and loading cost; `ossicle bench train` measures. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ossicle.bench.flops import forward_flops
from ossicle.config import Section
from ossicle.integration.memory import head_dim
from ossicle.training import freeze
from ossicle.training.recipe import Stage
from ossicle.types import SAMPLE_RATE_HZ

ADAM_BYTES = 12
"""Gradient and two moments of a parameter that trains, in float32."""
MACHINES = {"gpu": 40e12, "laptop": 50e9}
"""Operations per second that a machine sustains: a recent GPU in bf16, a few cores of a laptop in float32."""
SHARED_LIMIT = 2_000_000_000
"""Bytes of logits are counted up to this: a larger matrix is cut by the rows that carry a label."""


class Sample(Section):
    """The sample that costs are given for.

    Attributes:
        clip_s: Seconds of audio.
        text_tokens: Text tokens, the answer included.
        label_tokens: Tokens that carry a label.
    """

    clip_s: float = 5.0
    text_tokens: int = 48
    label_tokens: int = 16


def tokens_of(model: Any, clip_s: float) -> list[tuple[str, int]]:
    """Return (integration kind, audio tokens of a clip) of each stream."""
    samples = round(clip_s * SAMPLE_RATE_HZ)
    return [(s.plan.integration.kind, s.plan.num_tokens(samples)) for s in model.streams.values()]


def ask_flops(model: Any, encoder_flops_per_s: Mapping[str, int], sample: Sample) -> int:
    """Return the operations of one question about a clip: encoders, connectors, and one pass of the decoder."""
    heard = sum(flops * sample.clip_s for flops in encoder_flops_per_s.values())
    return round(heard + _connectors(model, sample.clip_s, 2) + _decoder(model, sample))


def train_flops(model: Any, stage: Stage, encoder_flops_per_s: Mapping[str, int], sample: Sample) -> int:
    """Return the operations of one training sample of a stage, the model frozen as the stage says.

    An objective that does not ask the decoder is counted without it.
    """
    by_part = {row.part: row.trainable for row in freeze.table(model)}
    total = 0.0
    for name, flops in encoder_flops_per_s.items():
        trains = by_part.get(f"streams.{name}.encoder", 0) > 0
        total += flops * sample.clip_s * (3 if trains else 0 if stage.feature_cache else 1)
    total += _connectors(model, sample.clip_s, 6)
    if asks_decoder(stage):
        total += _decoder(model, sample) * (3 if by_part.get("language_model") else 2)
    return round(total)


def asks_decoder(stage: Stage) -> bool:
    """Return whether a stage's objective runs the whole model: the others teach one encoder or connector."""
    return not {"part", "stream"} & set(stage.objective)


def memory_bytes(model: Any, stage: Stage, sample: Sample) -> int:
    """Return about the bytes that training a stage holds at once, the model frozen as the stage says."""
    weights = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    trainable = sum(row.trainable for row in freeze.table(model))
    kept = _kept_for_backward(model, stage, sample) if asks_decoder(stage) else 0
    return weights + ADAM_BYTES * trainable + stage.micro * kept


def _kept_for_backward(model: Any, stage: Stage, sample: Sample) -> int:
    """Return the bytes of activations of one row: matrices' inputs and outputs, attention without its square."""
    config = model.config.text_config
    width, ffn, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    inner = config.num_attention_heads * head_dim(config)
    row_bytes = 4 * (6 * width + 4 * ffn + 4 * inner)
    tokens = tokens_of(model, sample.clip_s)
    rows = sample.text_tokens + sum(count for kind, count in tokens if kind == "prepend")
    beside = sum(count for kind, count in tokens if kind != "prepend")
    layer = rows * row_bytes + beside * 4 * (2 * width + 4 * inner)
    decoder = layers * rows * width * 4 + layer if stage.gradient_checkpointing else layers * layer
    return int(decoder + min(SHARED_LIMIT, sample.label_tokens * config.vocab_size * 8))


def hours(flops: int) -> dict[str, float]:
    """Return machine → hours for so many operations.

    Example:
        >>> hours(144 * 10**15)["gpu"]
        1.0
    """
    return {name: round(flops / sustained / 3600, 3) for name, sustained in MACHINES.items()}


def _decoder(model: Any, sample: Sample) -> int:
    return forward_flops(
        model.config.text_config,
        tokens_of(model, sample.clip_s),
        text=sample.text_tokens,
        heads_at=sample.label_tokens,
    )


def _connectors(model: Any, clip_s: float, per_weight: int) -> int:
    """Return `per_weight` operations for each weight of a connector and each token that leaves it."""
    samples = round(clip_s * SAMPLE_RATE_HZ)
    return sum(
        per_weight * sum(p.numel() for p in stream.connector.parameters()) * stream.plan.num_tokens(samples)
        for stream in model.streams.values()
    )
