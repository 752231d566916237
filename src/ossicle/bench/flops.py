"""Analytic work of one decoder step: what the fastest possible implementation must still multiply.

    a row of text or prepended audio   2·(Q, K, V, O and feed-forward weights) a layer
    an attended audio token            2·(K and V weights) a layer
    a crossed audio token              2·(K and V of a block) a layer, and every row 2·(Q and O of a block)
    attention                          4·d·(pairs of a query and a key it sees)          causal: T·(T+1)/2 pairs
    LM head                            2·V·D at rows that carry a label

One multiply-add is 2 operations. Backward costs twice the forward where both inputs' and weights' gradients are made.
Norms, rotations and activations are left out. Checked against torch's counter in the tests. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedConfig

from ossicle.integration.memory import head_dim


def forward_flops(
    config: PreTrainedConfig, streams: Sequence[tuple[str, int]], *, text: int, heads_at: int, causal: bool = True
) -> int:
    """Return the operations of one forward of one row.

    Args:
        config: The decoder's.
        streams: (integration kind, audio tokens) of each stream.
        text: Text tokens of the row, marker included.
        heads_at: Rows that need logits.
        causal: Count only the pairs that causal attention needs; False counts all, as torch's counter does.
    """
    width, ffn, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    head = head_dim(config)
    q_width, kv_width = config.num_attention_heads * head, config.num_key_value_heads * head
    tokens = {kind: sum(n for k, n in streams if k == kind) for kind in ("prepend", "attend", "cross")}
    rows = text + tokens["prepend"]
    linear_row = 2 * width * (2 * q_width + 2 * kv_width + 3 * ffn)
    linears = rows * linear_row + tokens["attend"] * 2 * width * 2 * kv_width
    pairs = (rows * (rows + 1) // 2 if causal else rows * rows) + rows * tokens["attend"]
    attention = 4 * q_width * pairs
    if tokens["cross"]:
        linears += rows * 2 * width * 2 * width + tokens["cross"] * 2 * width * 2 * width
        attention += 4 * width * rows * tokens["cross"]
    return layers * (linears + attention) + 2 * config.vocab_size * width * heads_at


def train_flops(config: PreTrainedConfig, streams: Sequence[tuple[str, int]], *, text: int, labels: int) -> int:
    """Return the operations of forward and backward of one row, all weights and the audio training."""
    return 3 * forward_flops(config, streams, text=text, heads_at=labels)
