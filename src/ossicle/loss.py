"""Next-token cross-entropy: summed over label tokens, divided by the number of them in the whole effective batch.

    loss = ( Σ_label −log p(label) + n · routing ) / count        n = labels here, count = labels everywhere

Dividing by the global count makes accumulation, ranks and padding change nothing. Source: our choice; LTU-AS averages
within each micro-batch instead.

In training logits exist only at rows with a label, and of those only `CHUNK` numbers at a time: the gradients of hidden
states and head are made with the loss, chunk by chunk, so that memory does not grow with vocabulary × rows. Source of
the idea: Cut Cross-Entropy (arXiv 2411.09009), §4; one pass over the chunks instead of two is ours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

IGNORE = -100
"""Label of a token that gives no loss."""

CHUNK = {"cpu": 2**24, "cuda": 2**26}
"""Logits that exist at one time in `head_loss`, by device: 64 or 256 MiB in float32.

Each chunk goes once through the whole gradient of the head (1 ms of 80 on an H100 for 128,256 words of width 2048).
"""


RESHAPING = {"final_logit_softcapping": None, "lm_head_multiplier": 1.0, "logit_scale": 1.0, "logits_scaling": 1.0}
"""Settings by which decoders change what their head says (Gemma, Falcon-H1, Cohere, Granite), each with no effect."""


def reshapes_logits(config: Any) -> bool:
    """Return whether a decoder's logits are something else than what its head makes of the last states.

    Example:
        >>> from transformers import CohereConfig, LlamaConfig
        >>> reshapes_logits(CohereConfig()), reshapes_logits(LlamaConfig())
        (True, False)
    """
    return any(getattr(config, name, neutral) not in (None, neutral) for name, neutral in RESHAPING.items())


def next_token_loss(
    logits: Tensor,
    labels: Tensor,
    count: Tensor | int | None = None,
    routing: Tensor | float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of labels (B, L) under logits (B, L, V); each row of logits predicts the next label.

    Args:
        logits: (B, L, V).
        labels: (B, L), -100 = no loss.
        count: Label tokens to divide by; None = those of this batch.
        routing: As in `head_loss`.
        weights: As in `labelled_loss`.
    """
    labelled = labels[:, 1:] != IGNORE
    weights = None if weights is None else weights[:, 1:][labelled]
    total = _summed(logits[:, :-1][labelled], labels[:, 1:][labelled], weights)
    number = int(labelled.sum())
    return (total + number * routing) / (max(1, number) if count is None else count)


def labelled_loss(
    head: Any,
    hidden: Tensor,
    labels: Tensor,
    count: Tensor | int | None,
    routing: Tensor | float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of labels (B, L) under states (B, L, D); logits are made only where a label is.

    Args:
        head: As in `head_loss`.
        hidden: The decoder's last states.
        labels: -100 = no loss.
        count: As in `next_token_loss`.
        routing: As in `head_loss`.
        weights: (B, L) factor of each label's loss; None = 1.
    """
    labelled = labels[:, 1:] != IGNORE
    weights = None if weights is None else weights[:, 1:][labelled]
    return head_loss(head, hidden[:, :-1][labelled], labels[:, 1:][labelled], count, routing, weights)


def head_loss(
    head: nn.Module,
    hidden: Tensor,
    targets: Tensor,
    count: Tensor | int | None,
    routing: Tensor | float = 0.0,
    weights: Tensor | None = None,
) -> Tensor:
    """Return the loss of the logits that a head makes of hidden states, without making them all at once.

    Args:
        head: LM head; anything but a plain linear layer (an adapter hangs on it) is recomputed in backward.
        hidden: (n, D) states of the rows that carry a label.
        targets: (n,) labels.
        count: As in `next_token_loss`.
        routing: A mixture's routing loss, added per label token.
        weights: (n,) factor of each label's loss; None = 1. They change the sum, not the count it is divided by.
    """
    plain = type(head) is nn.Linear and not head._forward_hooks and not head._forward_pre_hooks
    chunk = CHUNK.get(hidden.device.type, CHUNK["cpu"])
    rows = max(1, chunk // head.out_features) if hasattr(head, "out_features") else len(targets)
    if len(targets) <= rows:
        total = _summed(head(hidden), targets, weights)
    elif plain:
        total = _ChunkedLoss.apply(hidden, head.weight, head.bias, targets, rows, weights)
    else:
        shares = [None] * len(targets.split(rows)) if weights is None else weights.split(rows)
        triples = zip(hidden.split(rows), targets.split(rows), shares, strict=True)
        total = torch.stack([checkpoint(_through, head, *triple, use_reentrant=False) for triple in triples]).sum()
    total = total + len(targets) * routing
    return total / (max(1, len(targets)) if count is None else count)


def _through(head: nn.Module, hidden: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    return _summed(head(hidden), targets, weights)


def _summed(logits: Tensor, targets: Tensor, weights: Tensor | None) -> Tensor:
    if weights is None:
        return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    return (nn.functional.cross_entropy(logits.float(), targets, reduction="none") * weights).sum()


class _ChunkedLoss(torch.autograd.Function):
    """Summed cross-entropy of a linear head; backward only scales what forward has made."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        rows: int,
        factors: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; keep the gradients that somebody wants."""
        kind = hidden.device.type
        lower = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else hidden.dtype
        states, matrix = hidden.to(lower), weight.to(lower)
        shift = None if bias is None else bias.to(lower)
        wanted = ctx.needs_input_grad[:3]
        grads = [
            torch.zeros_like(t, dtype=torch.float32) if t is not None and needed else None
            for t, needed in zip((hidden, weight, bias), wanted, strict=True)
        ]
        total = torch.zeros((), device=hidden.device)
        with torch.autocast(kind, enabled=False):
            for start in range(0, len(targets), rows):
                part, labels = states[start : start + rows], targets[start : start + rows, None]
                logits = nn.functional.linear(part, matrix, shift).float()
                share = None if factors is None else factors[start : start + rows]
                total += _summed(logits, labels[:, 0], share)
                if any(wanted):
                    slope = logits.softmax(-1).scatter_add_(1, labels, logits.new_full(labels.shape, -1.0))
                    slope = slope if share is None else slope * share[:, None]
                    _add(grads, slope.to(lower), part, matrix, start)
        ctx.kinds = [None if t is None else t.dtype for t in (hidden, weight, bias)]
        ctx.save_for_backward(*grads)
        return total

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        """Scale what `forward` has made."""
        pairs = zip(ctx.saved_tensors, ctx.kinds, strict=True)
        return *(None if grad is None else (grad * outer[0]).to(kind) for grad, kind in pairs), None, None, None


def _add(grads: list[Tensor | None], slope: Tensor, states: Tensor, matrix: Tensor, start: int) -> None:
    """Add one chunk's share to the gradients of hidden states, weight and bias."""
    of_hidden, of_weight, of_bias = grads
    if of_hidden is not None:
        of_hidden[start : start + len(states)] = slope @ matrix
    if of_weight is not None:
        of_weight += slope.T @ states
    if of_bias is not None:
        of_bias += slope.sum(0)
