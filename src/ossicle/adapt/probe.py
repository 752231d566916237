"""The linear probe: logistic regression on the same encoders' tokens, pooled. What the language side has to beat.

    clip ──encoders──► tokens ──mean ⊕ max over time, all streams side by side──► standardised ──► softmax regression

The strength of the penalty is chosen on groups held out of the training side. Source: our choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.types import Waveform

PENALTIES = (3e-4, 3e-3, 3e-2, 3e-1)
BATCH = 16


@torch.inference_mode()
def pooled_features(engine: Any, waves: Sequence[Waveform]) -> Tensor:
    """Return (clips, D) mean and max over time of every encoder's tokens.

    Args:
        engine: What `ossicle.load` returns.
        waves: Clips; they are encoded in batches of like length.
    """
    order = sorted(range(len(waves)), key=lambda i: waves[i].duration_s)
    rows: dict[int, Tensor] = {}
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        parts = []
        for tokens in engine.encode([waves[i] for i in batch]).values():
            valid = tokens.valid[..., None]
            values = tokens.values.float()
            parts.append((values * valid).sum(1) / valid.sum(1).clamp(min=1))
            parts.append(values.masked_fill(~valid, -1e4).amax(1))
        rows.update(zip(batch, torch.cat(parts, -1).cpu(), strict=True))
    return torch.stack([rows[i] for i in range(len(waves))])


@torch.enable_grad()
def fit(features: Tensor, classes: Tensor, num_classes: int, penalty: float) -> nn.Linear:
    """Return a softmax regression with an L2 penalty on its weights, by L-BFGS from zero.

    Args:
        features: (n, D).
        classes: (n,) below `num_classes`.
        num_classes: Of the regression.
        penalty: Half of this times the sum of squared weights is added to the loss.
    """
    layer = nn.Linear(features.shape[1], num_classes)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    optimizer = torch.optim.LBFGS(layer.parameters(), max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(layer(features), classes) + penalty * layer.weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return layer


def probe_answers(
    train: Tensor, labels: Sequence[str], groups: Sequence[str], test: Tensor, *, seed: int = 0
) -> list[str]:
    """Return the probe's label for every test clip.

    Args:
        train: (n, D) features of the training side.
        labels: Their labels.
        groups: Their groups, for choosing the penalty.
        test: (m, D) features of the test side.
        seed: Of the inner split.
    """
    names = sorted(set(labels))
    classes = torch.tensor([names.index(label) for label in labels])
    mean, spread = train.mean(0), train.std(0).clamp(min=1e-4)
    train, test = (train - mean) / spread, (test - mean) / spread
    penalty = choose_penalty(train, classes, groups, len(names), seed)
    with torch.no_grad():
        best = fit_scores(train, classes, len(names), penalty, test).argmax(-1)
    return [names[index] for index in best.tolist()]


@torch.enable_grad()
def fit_scores(train: Tensor, classes: Tensor, num_classes: int, penalty: float, test: Tensor) -> Tensor:
    """Return (m, classes) logits of test clips."""
    return fit(train.clone(), classes, num_classes, penalty)(test.clone()).detach()


def choose_penalty(train: Tensor, classes: Tensor, groups: Sequence[str], num_classes: int, seed: int) -> float:
    """Return the penalty with the lowest cross-entropy on a fifth of the groups (accuracy ties on few clips)."""
    unique = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(unique))
    held = {unique[i] for i in order[: max(1, len(unique) // 5)]}
    inner = torch.tensor([group in held for group in groups])
    if not 0 < int(inner.sum()) < len(groups):
        return PENALTIES[1]
    loss = {}
    for penalty in PENALTIES:
        scores = fit_scores(train[~inner], classes[~inner], num_classes, penalty, train[inner])
        loss[penalty] = float(nn.functional.cross_entropy(scores, classes[inner]))
    return min(loss, key=lambda penalty: loss[penalty])
