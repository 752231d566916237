"""Analytic work of one decoder step: what the fastest possible implementation must still multiply.

    a row of text or prepended audio   2·(Q, K, V, O and feed-forward weights) a layer
    an attended audio token            2·(K and V weights) a layer
    a crossed audio token              2·(K and V of a block) a layer, and every row 2·(Q and O of a block)
    attention                          4·d·(pairs of a query and a key it sees)          causal: T·(T+1)/2 pairs
    LM head                            2·V·D at rows that carry a label

One multiply-add is 2 operations. Backward costs the forward once for the inputs' gradients and once for the weights',
the latter only where weights train; recomputed layers (checkpointing) cost their forward once more. An adapter of rank
r on a weight (in, out) adds 2·r·(in + out) a row, all of it trained.
Norms, rotations and activations are left out. Checked against torch's counter in the tests. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedConfig

from ossicle.integration.memory import head_dim


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What of a step trains, and how.

    Attributes:
        base: The decoder's weights, feed-forward apart.
        feed_forward: The feed-forward weights.
        rank: Rank of adapters on Q, K, V and O; 0 = none.
        checkpointing: Layers are recomputed in backward.
    """

    base: bool = True
    feed_forward: bool = True
    rank: int = 0
    checkpointing: bool = False


def forward_parts(
    config: PreTrainedConfig, streams: Sequence[tuple[str, int]], *, text: int, heads_at: int, causal: bool = True
) -> dict[str, int]:
    """Return the operations of one forward of one row by part: base, feed_forward, crossing, attention, head.

    Args:
        config: The decoder's.
        streams: (integration kind, audio tokens) of each stream.
        text: Text tokens of the row, marker included.
        heads_at: Rows that need logits.
        causal: Count only the pairs that causal attention needs; False counts all, as torch's counter does.
    """
    width, ffn, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    q_width, kv_width = _widths(config)
    tokens = _tokens(streams)
    rows = text + tokens["prepend"]
    base = rows * (2 * q_width + 2 * kv_width) + tokens["attend"] * 2 * kv_width
    pairs = (rows * (rows + 1) // 2 if causal else rows * rows) + rows * tokens["attend"]
    crossing = rows * 2 * width + tokens["cross"] * 2 * width if tokens["cross"] else 0
    return {
        "base": layers * 2 * width * base,
        "feed_forward": layers * 2 * width * rows * 3 * ffn,
        "crossing": layers * 2 * width * crossing,
        "attention": layers * 4 * (q_width * pairs + width * rows * tokens["cross"]),
        "head": 2 * config.vocab_size * width * heads_at,
    }


def forward_flops(
    config: PreTrainedConfig, streams: Sequence[tuple[str, int]], *, text: int, heads_at: int, causal: bool = True
) -> int:
    """Return the operations of one forward of one row; arguments as in `forward_parts`."""
    return sum(forward_parts(config, streams, text=text, heads_at=heads_at, causal=causal).values())


def train_flops(
    config: PreTrainedConfig,
    streams: Sequence[tuple[str, int]],
    *,
    text: int,
    labels: int,
    trained: Trained | None = None,
    causal: bool = True,
) -> int:
    """Return the operations of forward and backward of one row; the audio gets gradients.

    Args:
        config: The decoder's.
        streams: As in `forward_parts`; so are `text` and `causal`.
        text: Text tokens of the row.
        labels: Rows that need logits.
        trained: What trains; None = everything, nothing recomputed.
        causal: As in `forward_parts`.
    """
    how = trained or Trained()
    parts = forward_parts(config, streams, text=text, heads_at=labels, causal=causal)
    forward = sum(parts.values())
    frozen = 0 if how.base else parts["base"] + parts["head"]
    frozen += 0 if how.feed_forward else parts["feed_forward"]
    adapters = how.rank * _adapter_weights(config, streams, text)
    if not how.checkpointing:
        return 3 * forward - frozen + 3 * adapters - (0 if how.base else _unasked(config, streams, text, how.rank))
    # Recomputing a layer stops before its last product, whose result nobody needs: a third of the feed-forward work.
    # Blocks of `cross` lie between the layers, and are not recomputed.
    crossed = parts["crossing"] + 4 * config.num_hidden_layers * config.hidden_size * text * _tokens(streams)["cross"]
    again = forward - parts["head"] - parts["feed_forward"] // 3 - crossed + adapters
    return 3 * forward - frozen + 3 * adapters + again


def _unasked(config: PreTrainedConfig, streams: Sequence[tuple[str, int]], text: int, rank: int) -> int:
    """Return the gradients that nobody asks for: of frozen embeddings, through the first layer's Q, K and V.

    Prepended audio lies in the same rows and asks for them; so do recomputed layers, which need a gradient at their
    inputs, and blocks of `cross`, the first of which lies before the first layer.
    """
    tokens = _tokens(streams)
    if tokens["prepend"] or tokens["cross"]:
        return 0
    q_width, kv_width = _widths(config)
    return 2 * text * config.hidden_size * (q_width + 2 * kv_width + 3 * rank)


def kept_elements(
    config: PreTrainedConfig, streams: Sequence[tuple[str, int]], *, text: int, labels: int, rows: int, chunk: int
) -> int:
    """Return the numbers of a batch that backward needs where everything trains and nothing is recomputed.

        a row, a layer             its two norms' inputs and outputs (4 D), queries, keys, values, what was read, and of
                                   the feed-forward gate, its activation, up and their product (4 F)
        an attended token, a layer its norm's output, key and value; a block of `cross` keeps the token's norm once
        a crossing row, a layer    its norm's input and output, query, what was read
        beside the layers          each attended or crossed token, each row's last norm (2 D), and a label's logits; or,
                                   where these are made in chunks, each label's and the head's gradient in their place

    Args:
        config: The decoder's.
        streams: (integration kind, audio tokens) of each stream.
        text: Text tokens of a row.
        labels: Of them, those that need logits.
        rows: Of the batch.
        chunk: Logits that exist at one time (`ossicle.loss.CHUNK`).
    """
    width, ffn, layers = config.hidden_size, config.intermediate_size, config.num_hidden_layers
    (q_width, kv_width), tokens = _widths(config), _tokens(streams)
    in_line = text + tokens["prepend"]
    layer = in_line * (4 * width + 2 * q_width + 2 * kv_width + 4 * ffn) + tokens["attend"] * (width + 2 * kv_width)
    if tokens["cross"]:
        layer += in_line * 4 * width + tokens["cross"] * 3 * width
    row = layers * layer + (tokens["attend"] + tokens["cross"] + 2 * in_line) * width
    vocabulary, labelled = config.vocab_size, rows * labels
    if labelled > max(1, chunk // vocabulary):
        return rows * row + labelled * 2 * width + vocabulary * width
    return rows * row + labelled * (width + vocabulary)


def _adapter_weights(config: PreTrainedConfig, streams: Sequence[tuple[str, int]], text: int) -> int:
    """Return the operations of adapters of rank one on Q, K, V and O in a forward of one row."""
    (q_width, kv_width), tokens = _widths(config), _tokens(streams)
    one_kv = config.hidden_size + kv_width
    row = 2 * (config.hidden_size + q_width) + 2 * one_kv
    rows = text + tokens["prepend"]
    return config.num_hidden_layers * 2 * (rows * row + tokens["attend"] * 2 * one_kv)


def _widths(config: PreTrainedConfig) -> tuple[int, int]:
    head = head_dim(config)
    return config.num_attention_heads * head, config.num_key_value_heads * head


def _tokens(streams: Sequence[tuple[str, int]]) -> dict[str, int]:
    return {kind: sum(n for k, n in streams if k == kind) for kind in ("prepend", "attend", "cross")}
