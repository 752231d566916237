"""MoWE: a mixture of weak encoders beside a strong one.

    z_base  = E_base(a)
    z_indep = Σ_k r[k]   · map_k(E_k(a))        the same weights for every clip, learned
    z_dep   = Σ_k r_a[k] · map_k(E_k(a))        weights from the time-mean of z_base
    z       = concat(z_base, z_indep, z_dep)    along `feature`, or along `time` (one moment's tokens together)

Routers start soft and become hard (`top_k`) while they train; what is not selected is then not run. z_base is passed on
untouched. Source: MoWE-Audio (arXiv 2409.06635): both sums, the time-mean, the concatenation and the weight 0.1 of the
routing loss. Axis, k, maps, softmax and loss terms are unknown: our choice, each a setting.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from ossicle.encoders.base import EncoderConfig
from ossicle.mixtures import balance
from ossicle.mixtures.base import Maps, Mixture, MixtureConfig
from ossicle.mixtures.routers import IndependentRouter, Route, SummaryRouter, forced_weights, sparse, time_mean
from ossicle.types import EncoderFacts

RouterName = Literal["independent", "dependent", "prompt"]


class MoweConfig(MixtureConfig):
    """Settings of `mowe`.

    Attributes:
        routers: `independent`, `dependent`, or both, in the order of their tokens.
        top_k: Weak encoders each router keeps once it is hard; None = always all.
        straight_through: Selected weights are 1/k and gradients pass to all; else they are the softmax's own.
        temperature: Divides the logits.
        noise: Deviation of the normal noise on a router's logits while it trains; 0 = none.
        router_hidden: Width of a hidden layer in routers that look at something; None = one linear layer.
        concat: Axis along which base and sums are joined.
        hold: Share of a router's training during which it stays soft.
        hard_from: Share of it from which it is hard.
        selectivity: Weight of that term in the routing loss; 0 switches it off.
        diversity: The same; at 1 a dependent router avoids what the independent one has found.
        balance: The same.
        loss_weight: Weight of the routing loss beside the next-token loss.
    """

    kind: str = "mowe"
    routers: list[RouterName] = Field(default=["independent", "dependent"], min_length=1)
    top_k: int | None = Field(default=1, ge=1)
    straight_through: bool = False
    temperature: float = Field(default=1.0, gt=0)
    noise: float = Field(default=0.0, ge=0)
    router_hidden: int | None = Field(default=None, ge=1)
    concat: Literal["feature", "time"] = "feature"
    hold: float = Field(default=0.4, ge=0, le=1)
    hard_from: float = Field(default=0.8, ge=0, le=1)
    selectivity: float = Field(default=1.0, ge=0)
    diversity: float = Field(default=0.3, ge=0)
    balance: float = Field(default=0.0, ge=0)
    loss_weight: float = Field(default=0.1, ge=0)

    router_names: ClassVar[tuple[RouterName, ...]] = ("independent", "dependent")

    @model_validator(mode="after")
    def _routers_fit(self) -> Self:
        wrong = set(self.routers) - set(self.router_names)
        if wrong or len(set(self.routers)) < len(self.routers):
            raise ValueError(f"routers is {self.routers}: '{self.kind}' has {', '.join(self.router_names)}, each once")
        if self.top_k is not None and self.top_k > len(self.pool):
            raise ValueError(f"top_k is {self.top_k}, but the pool has {len(self.pool)} weak encoders")
        if self.hold > self.hard_from:
            raise ValueError(f"hold is {self.hold}, later than hard_from {self.hard_from}")
        if self.concat == "time" and self.map_width != self.base_config.facts().dim:
            raise ValueError(f"width is {self.width}: along time it must be the base's {self.base_config.facts().dim}")
        return self

    def out_dim(self) -> int:
        """Return the base's width, and a map's for each router where they are joined by feature."""
        base = self.base_config.facts().dim
        return base if self.concat == "time" else base + len(self.routers) * self.map_width

    def tokens_per_base_token(self) -> int:
        """Return 1, or one more than there are routers where they are joined by time."""
        return 1 + len(self.routers) if self.concat == "time" else 1

    def facts(self) -> EncoderFacts:
        """Return the facts; a router that looks at a whole clip cannot take it window by window."""
        facts = super().facts()
        return replace(facts, windowed=facts.windowed and "dependent" not in self.routers)

    def sparsity(self, progress: float) -> float:
        """Return how hard routing is, 0 to 1, after a share of the routers' training."""
        if progress >= self.hard_from:
            return 1.0
        return (progress - self.hold) / (self.hard_from - self.hold) if progress > self.hold else 0.0


class Routing(Maps):
    """Routers and maps: the part `router` of the mixture. `progress` is the share of training they have had."""

    progress: Tensor

    def __init__(self, config: MoweConfig, prompt_dim: int = 0) -> None:
        super().__init__(config)
        size = len(config.pool)
        if "independent" in config.routers:
            self.independent = IndependentRouter(size)
        if "dependent" in config.routers:
            self.dependent = SummaryRouter(config.base_config.facts().dim, size, config.router_hidden)
        if "prompt" in config.routers:
            self.prompt = SummaryRouter(prompt_dim, size, config.router_hidden)
        self.register_buffer("progress", torch.zeros(()))


class Mowe(Mixture):
    """Base and routed weak encoders.

    Attributes:
        trace: What each router decided in the last forward pass, without gradients.
    """

    Config: ClassVar[type[EncoderConfig]] = MoweConfig
    router: Routing

    def __init__(self, config: MoweConfig) -> None:
        super().__init__(config)
        self.router = self.build_router(config)
        self.trace: list[Route] = []
        self._routes: list[Route] = []
        self._forced: dict[str, Tensor] = {}

    def build_router(self, config: Any) -> Routing:
        """Return the part `router`."""
        return Routing(config)

    def set_progress(self, share: float) -> None:
        """Tell the routers which share of their training is done, 0 to 1; nothing while they are frozen.

        It never falls, so that routers that became hard in one stage stay so in the next.
        """
        if any(parameter.requires_grad for parameter in self.router.parameters()):
            self.router.progress.fill_(max(share, float(self.router.progress)))

    @contextmanager
    def forced(self, **routes: Any) -> Iterator[None]:
        """Force routes: `with encoder.forced(dependent="ast", independent=[0.5, 0.5]): …`.

        Args:
            routes: Router to a weak encoder's name or index, a list of those, or one weight (float) for each.

        Raises:
            ConfigError: No such router or weak encoder.
        """
        from ossicle.errors import ConfigError

        for name in routes:
            if name not in self.config.routers:
                raise ConfigError(f"forced route: no router '{name}'; this mixture has {self.config.routers}")
        before, self._forced = self._forced, {k: forced_weights(v, self.names) for k, v in routes.items()}
        try:
            yield
        finally:
            self._forced = before

    def detour(self) -> Any:
        """Return the forced routes."""
        return {name: weights.tolist() for name, weights in self._forced.items()} or None

    def routes(self, base: Tensor, valid: Tensor, prompt: Tensor | None = None) -> list[Route]:
        """Return what every router decides.

        Args:
            base: (C, N, D) tokens of the base.
            valid: (C, N) True = real.
            prompt: (C, D_text), for the router that looks at it.
        """
        sparsity = self.config.sparsity(float(self.router.progress))
        mean = time_mean(base, valid)
        out = []
        for name in self.config.routers:
            summary = mean if name != "prompt" or prompt is None else prompt.to(mean)
            logits = getattr(self.router, name)(summary).float() / self.config.temperature
            if self.config.noise and self.training:
                logits = logits + self.config.noise * torch.randn_like(logits)
            probabilities = logits.softmax(-1)
            weights = sparse(probabilities, self.config.top_k, sparsity, straight_through=self.config.straight_through)
            if name in self._forced:
                weights = self._forced[name].to(weights).expand_as(weights)
            out.append(Route(router=name, members=tuple(self.names), probabilities=probabilities, weights=weights))
        return out

    def wanted(self, base: Tensor, valid: Tensor) -> Tensor:
        """Return (C, M) True where some router gives a weak encoder weight; all of them while training."""
        if self.training or self.facts.prompt_dependent:
            return super().wanted(base, valid)
        return torch.stack([route.weights != 0 for route in self.routes(base, valid)]).any(0)

    def mix(self, base: Tensor, weak: list[Tensor], valid: Tensor, prompt: Tensor | None) -> Tensor:
        """Join the base's tokens and each router's sum."""
        routes = self.routes(base, valid, prompt)
        self.trace, self._routes = [route.detached() for route in routes], routes if self.training else []
        weights = torch.stack([route.weights for route in routes]).to(base.dtype)  # (R, C, M)
        sums = base.new_zeros(*weights.shape[:2], base.shape[1], self.config.map_width)  # (R, C, N, width)
        for k, values in enumerate(weak):
            if self.training or bool((weights[..., k] != 0).any()):
                sums = sums + weights[..., k, None, None] * self.router(values, k)
        parts = [base, *sums]
        if self.config.concat == "feature":
            return torch.cat(parts, -1)
        return torch.stack(parts, 2).flatten(1, 2)  # (C, N · (R + 1), D): the tokens of one moment together

    def auxiliary_loss(self) -> dict[str, Tensor]:
        """Return the terms of the routing loss of the last forward pass in training, times their own weights.

        Where routers grow hard, selectivity grows with them: a router that must choose before the task has spoken
        chooses at random, and at k = 1 it never hears of the others again.
        """
        seeing = [route for route in self._routes if route.router != "independent"]
        terms = {}
        for name, term in balance.TERMS.items():
            weight = getattr(self.config, name)
            routes = self._routes if name == "selectivity" else seeing
            if name == "selectivity" and self.config.top_k is not None:
                weight *= self.config.sparsity(float(self.router.progress))
            if weight and routes:
                terms[name] = weight * term(routes)
        return terms
