"""Norms and feed-forward blocks of a decoder, compiled in place: many small passes over memory become one.

    norm            x ──float32──► x² ──mean──► rsqrt ──·x──► ·weight       eight passes over memory; compiled: one
    feed-forward    act(gate) · up                                          two passes; compiled: one

Attention and matrix products stay as they are: their kernels are good. Names of weights do not change. Source: our
choice; what it gains on a GPU is in docs/performance.md.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ossicle.integration.memory import layers_of


def compile_blocks(decoder: Any) -> int:
    """Compile every norm and feed-forward block of a decoder's layers; return how many there are.

    The first step of a shape takes some seconds more. Batches of other lengths use the same kernels.

    Example:
        >>> from transformers import AutoModelForCausalLM
        >>> from ossicle.tiny import tiny_decoder_config
        >>> compile_blocks(AutoModelForCausalLM.from_config(tiny_decoder_config("llama")).model)
        6
    """
    blocks = _blocks(decoder)
    for block in blocks:
        block.compile(dynamic=True)
    return len(blocks)


def compile_none(decoder: Any) -> None:
    """Undo `compile_blocks`."""
    for block in _blocks(decoder):
        block._compiled_call_impl = None


def _blocks(decoder: Any) -> list[nn.Module]:
    return [
        block
        for layer in layers_of(decoder)
        for name, block in layer.named_children()
        if name.endswith("norm") or name == "mlp"
    ]
