"""Next-token cross-entropy: summed over label tokens, divided by the number of them in the whole effective batch.

    loss = ( Σ_label −log p(label) + n · routing ) / count        n = labels here, count = labels everywhere

Dividing by the global count makes accumulation, ranks and padding change nothing. Source: our choice; LTU-AS averages
within each micro-batch instead.
"""

from __future__ import annotations

from torch import Tensor, nn

IGNORE = -100
"""Label of a token that gives no loss."""


def next_token_loss(logits: Tensor, labels: Tensor, count: Tensor | int | None = None) -> Tensor:
    """Return the loss of labels (B, L) under logits (B, L, V); each row of logits predicts the next label.

    Args:
        logits: (B, L, V).
        labels: (B, L), -100 = no loss.
        count: Label tokens to divide by; None = those of this batch.
    """
    labelled = labels[:, 1:] != IGNORE
    return summed_loss(logits[:, :-1][labelled], labels[:, 1:][labelled], count)


def summed_loss(logits: Tensor, targets: Tensor, count: Tensor | int | None, routing: Tensor | float = 0.0) -> Tensor:
    """Return the loss of targets (n,) under logits (n, V), with a mixture's routing loss added per label token."""
    total = nn.functional.cross_entropy(logits.float(), targets, reduction="sum") + len(targets) * routing
    return total / (max(1, len(targets)) if count is None else count)
