"""The routing loss of MoWE, term by term, and what the model adds to its own loss.

    selectivity  mean over clips of H(p) / log M, for every router                 low: each clip uses few encoders
    diversity    1 − H(mean over clips of p) / log M, routers that see the clip    low: clips use different ones
    balance      M · Σ_k f_k · P_k − 1, the same routers                           low: all are used equally often

f = share of clips whose largest weight is k, P = mean probability. L_MoWE = Σ (term's weight · term), and the model
trains on L_next-token + 0.1 · L_MoWE. Source: the weight 0.1 and the purpose (selective use) are MoWE-Audio's (arXiv
2409.06635, after a digest); its formula is unknown, these terms are our reading. `balance`: Fedus et al. (2101.03961).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ossicle.mixtures.routers import Route


def entropy(probabilities: Tensor) -> Tensor:
    """Return (…) the entropy of (…, M) as a share of the largest possible, 0 to 1."""
    size = probabilities.shape[-1]
    if size == 1:
        return probabilities.sum(-1) * 0
    logs = probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()
    return -(probabilities * logs).sum(-1) / math.log(size)


def selectivity(routes: list[Route]) -> Tensor:
    """Return the mean entropy of each router's choice per clip, summed over routers."""
    return torch.stack([entropy(route.probabilities).mean() for route in routes]).sum()


def diversity(routes: list[Route]) -> Tensor:
    """Return how far the mean choice of a batch is from using all encoders."""
    return torch.stack([1 - entropy(route.probabilities.mean(0)) for route in routes]).sum()


def balance(routes: list[Route]) -> Tensor:
    """Return the load-balance term, 0 when all weak encoders are used equally often."""
    terms = []
    for route in routes:
        size = route.probabilities.shape[-1]
        first = route.probabilities.argmax(-1)
        used = torch.nn.functional.one_hot(first, size).float().mean(0)
        terms.append(size * (used * route.probabilities.mean(0)).sum() - 1)
    return torch.stack(terms).sum()


TERMS = {"selectivity": selectivity, "diversity": diversity, "balance": balance}


def auxiliary_loss(streams: Iterable[Any]) -> Tensor | float:
    """Return what all mixtures among the streams' encoders add to the loss, from the last forward pass."""
    total: Tensor | float = 0.0
    for stream in streams:
        terms = stream.encoder.auxiliary_loss() if hasattr(stream.encoder, "auxiliary_loss") else {}
        for term in terms.values():
            total = total + stream.encoder.config.loss_weight * term
    return total
