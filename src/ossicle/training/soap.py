"""SOAP: Adam in the axes along which a matrix's gradients vary.

    L ← β₂ L + (1−β₂) G Gᵀ     R ← β₂ R + (1−β₂) Gᵀ G     Q_L, Q_R: their eigenvectors, followed every few steps
    G' = Q_Lᵀ G Q_R            m, v ← Adam's moments of G'
    W ← W − lr · Q_L (m̂ / (√v̂ + ε)) Q_Rᵀ − lr · decay · W

The first gradient gives the first axes and no step. Axes follow by one power iteration and QR, in the order of their
eigenvalues; the moments lie in the turned axes and go along when these turn. A side longer than `max_side` keeps its
own axes; what is no matrix is plain AdamW. Source: Vyas et al. (arXiv 2409.11321), Algorithm 3; that L and R are seen
only when the axes follow, and the bound on a side, are our choice.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

SIDES = ("left", "right")


class Soap(torch.optim.Optimizer):
    """SOAP over parameter groups with `lr` and `weight_decay`.

    Args:
        groups: Parameters, as torch's optimisers take them.
        betas: Decay of the two moments, the second also of L and R.
        eps: Added to the root of the second moment.
        every: Steps after which the axes follow.
        max_side: Longest side that has axes of its own.

    Example:
        >>> layer = torch.nn.Linear(4, 4)
        >>> optimizer = Soap(layer.parameters(), betas=(0.9, 0.95))
        >>> layer(torch.ones(4)).sum().backward()
        >>> optimizer.step()
    """

    def __init__(
        self,
        groups: Iterable[Any],
        *,
        betas: tuple[float, float],
        eps: float = 1e-8,
        every: int = 10,
        max_side: int = 512,
    ) -> None:
        super().__init__(groups, {"lr": 1e-3, "weight_decay": 0.0, "betas": betas, "eps": eps})
        self.every, self.max_side = every, max_side

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._change(parameter, parameter.grad.float(), group)

    def _change(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[parameter]
        if not state:  # in its own axes a gradient is diagonal, and Adam would make steps of the rounding beside it
            self._begin(state, gradient)
            if any(side in state for side in SIDES):
                return
        first, second = group["betas"]
        state["step"] += 1
        done = int(state["step"])
        turned = _turn(gradient, state)
        state["exp_avg"].lerp_(turned, 1 - first)
        state["exp_avg_sq"].mul_(second).addcmul_(turned, turned, value=1 - second)
        root = (state["exp_avg_sq"] / (1 - second**done)).sqrt_().add_(group["eps"])
        change = _turn_back(state["exp_avg"] / root, state)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.add_(change.to(parameter.dtype), alpha=-group["lr"] / (1 - first**done))
        if done % self.every == 0:
            for side in SIDES:
                if side in state:
                    state[side].lerp_(_spread(gradient, side), 1 - second**self.every)
            _follow(state)

    def _begin(self, state: dict[str, Tensor], gradient: Tensor) -> None:
        """Take the axes of the first gradient."""
        state["step"] = torch.zeros(())
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
        if gradient.dim() == 2:
            for side, length in zip(SIDES, gradient.shape, strict=True):
                if length <= self.max_side:
                    state[side] = _spread(gradient, side)
                    state[f"{side}_axes"] = _eigenvectors(state[side])


def _spread(gradient: Tensor, side: str) -> Tensor:
    return gradient @ gradient.T if side == "left" else gradient.T @ gradient


def _eigenvectors(spread: Tensor) -> Tensor:
    """Return them by falling eigenvalue; in double precision, because many of a first gradient's are zero."""
    return torch.linalg.eigh(spread.double())[1].flip(-1).to(spread.dtype).contiguous()


def _turn(matrix: Tensor, state: dict[str, Tensor]) -> Tensor:
    if "left" in state:
        matrix = state["left_axes"].T @ matrix
    return matrix @ state["right_axes"] if "right" in state else matrix


def _turn_back(matrix: Tensor, state: dict[str, Tensor]) -> Tensor:
    if "left" in state:
        matrix = state["left_axes"] @ matrix
    return matrix @ state["right_axes"].T if "right" in state else matrix


def _follow(state: dict[str, Tensor]) -> None:
    """Turn the axes towards the eigenvectors of L and R, and the moments with them."""
    mean = _turn_back(state["exp_avg"], state)
    for dim, side in enumerate(SIDES):
        if side in state:
            ahead = state[side] @ state[f"{side}_axes"]
            order = (state[f"{side}_axes"] * ahead).sum(0).argsort(descending=True)
            state["exp_avg_sq"] = state["exp_avg_sq"].index_select(dim, order)
            state[f"{side}_axes"] = torch.linalg.qr(ahead[:, order])[0]
    state["exp_avg"] = _turn(mean, state)
