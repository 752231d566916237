"""Routers: which weak encoders a clip listens through, and how much of each.

    p = softmax(logits / τ)                     logits: learned numbers | f(time-mean of base) | f(mean of prompt)
    w = p · (mask + (1 − s) · (1 − mask))       mask = the k largest; s = 0 soft … 1 hard, grows while training

Selected weights are *not* renormalised: at k = 1 a renormalised weight is 1 whatever the logits are, and the router
learns nothing. `straight_through` is the other way: the forward pass sees mask/k, the backward pass sees p. What a
router looks at has length 1: at the length that normalising leaves, √D, logits outrun the task and commit at random.
Source: MoWE-Audio (arXiv 2409.06635): the two routers and what they look at. Softmax, temperature, noise, top-k,
annealing and the depth of the router are unknown; all are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """What one router decided for a batch.

    Attributes:
        router: Its name.
        members: Names of the weak encoders.
        probabilities: (C, M) softmax over the weak encoders, float32.
        weights: (C, M) what each weak encoder is multiplied by.
    """

    router: str
    members: tuple[str, ...]
    probabilities: Tensor
    weights: Tensor

    def rows(self) -> list[dict[str, float]]:
        """Return the weight of each weak encoder, by name, clip by clip."""
        return [dict(zip(self.members, map(float, row), strict=True)) for row in self.weights.detach().cpu()]

    def detached(self) -> Route:
        """Return the same without gradients."""
        return Route(
            router=self.router,
            members=self.members,
            probabilities=self.probabilities.detach(),
            weights=self.weights.detach(),
        )


def sparse(probabilities: Tensor, top_k: int | None, sparsity: float, *, straight_through: bool = False) -> Tensor:
    """Return (C, M) weights: all of the probabilities at `sparsity` 0, the `top_k` largest alone at 1.

    Example:
        >>> sparse(torch.tensor([[0.75, 0.25]]), 1, 1.0).tolist()
        [[0.75, 0.0]]
    """
    if top_k is None or top_k >= probabilities.shape[-1]:
        return probabilities
    mask = torch.zeros_like(probabilities).scatter(-1, probabilities.topk(top_k, -1).indices, 1.0)
    if straight_through:
        hard = mask / top_k + probabilities - probabilities.detach()
        return (1 - sparsity) * probabilities + sparsity * hard
    return probabilities * (mask + (1 - sparsity) * (1 - mask))


class IndependentRouter(nn.Module):
    """Learned logits, the same for every clip."""

    def __init__(self, num_members: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(num_members))

    def forward(self, summary: Tensor) -> Tensor:
        """Return (C, M) logits; of the summary (C, D) only its length is read."""
        return self.logits.expand(len(summary), -1)


class SummaryRouter(nn.Module):
    """Logits from one vector per clip: the time-mean of the base's tokens, or the mean of the prompt."""

    def __init__(self, dim: int, num_members: int, hidden: int | None) -> None:
        super().__init__()
        inner: list[nn.Module] = [] if hidden is None else [nn.Linear(dim, hidden), nn.GELU()]
        last = nn.Linear(dim if hidden is None else hidden, num_members)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.layers = nn.Sequential(*inner, last)

    def forward(self, summary: Tensor) -> Tensor:
        """Return (C, M) logits of summaries (C, D)."""
        width = summary.shape[-1]
        logits: Tensor = self.layers(nn.functional.layer_norm(summary, (width,)) * width**-0.5)
        return logits


def time_mean(values: Tensor, valid: Tensor) -> Tensor:
    """Return (C, D) the mean over the real tokens of (C, N, D)."""
    weight = valid[..., None].to(values.dtype)
    return (values * weight).sum(1) / weight.sum(1).clamp(min=1)


def forced_weights(choice: Any, names: list[str]) -> Tensor:
    """Return (M,) weights of a forced route: a name or index (weight 1), several of them (equal), or M numbers.

    Raises:
        ConfigError: No such weak encoder.
    """
    from ossicle.errors import ConfigError, suggest

    if isinstance(choice, Tensor) or (isinstance(choice, list) and any(isinstance(x, float) for x in choice)):
        weights = torch.as_tensor(choice, dtype=torch.float32)
        if weights.shape != (len(names),):
            raise ConfigError(f"forced route: {tuple(weights.shape)} weights, expected one for each of {names}")
        return weights
    chosen = list(choice) if isinstance(choice, (list, tuple)) else [choice]
    weights = torch.zeros(len(names))
    for one in chosen:
        index = names.index(one) if one in names else one
        if not isinstance(index, int) or not -len(names) <= index < len(names):
            raise ConfigError(f"forced route: no weak encoder '{one}'; {suggest(str(one), names)}")
        weights[index] += 1 / len(chosen)
    return weights
