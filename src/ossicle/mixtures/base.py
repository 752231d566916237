"""What every mixture is: an encoder made of a strong base and a pool of weak encoders, all on the base's clock.

    audio ──► base ──────────────► z_base (C, N, D)  ─┐
      └─────► pool k ──► aligned ► E_k    (C, N, D_k) ─┴► features (C, N, D + ΣD_k) ──finish──► tokens (C, N', D')
                                                          │
                                                          may be kept: they depend on the encoders alone

Windows are the base's; a weak encoder gets the same stretch of audio and cuts it further if its own window is shorter.
All that a mixture adds to its encoders (routers, maps to a common width) is its part `router`, so that a stage can
train it alone. Source: MoWE-Audio (arXiv 2409.06635), abstract; alignment and maps are our choice.
"""

from __future__ import annotations

import logging
from functools import cached_property
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ossicle import registry
from ossicle.audio import chunk
from ossicle.encoders.base import Encoder, EncoderConfig, build_encoder
from ossicle.errors import ConfigError
from ossicle.mixtures.align import onto
from ossicle.types import AudioTokens, EncoderFacts

log = logging.getLogger(__name__)

OF_THE_BASE = ("window_s", "layers", "pretrained", "revision")
"""Settings of an encoder that a mixture has only through its members."""


class MixtureConfig(EncoderConfig):
    """Settings that every mixture has.

    Attributes:
        base: The strong encoder, as `{kind: …}`; windows and rate are its own.
        pool: The weak encoders; several of one kind (uniform) or different ones (diverse).
        width: Width to which each weak encoder is mapped; None = the base's.
        norm: Normalise a weak encoder's tokens (no learned scale) before its map.
        align: How its tokens reach the base's times: `overlap` = mean or linear by exact times; `nearest` = one token.
    """

    base: dict[str, Any]
    pool: list[dict[str, Any]] = Field(min_length=1)
    width: int | None = Field(default=None, ge=1)
    norm: bool = True
    align: Literal["overlap", "nearest"] = "overlap"

    @model_validator(mode="after")
    def _members_fit(self) -> Self:
        for name in OF_THE_BASE:
            if getattr(self, name) != EncoderConfig.model_fields[name].default:
                raise ValueError(f"'{name}' belongs to a member; write it under 'base' or 'pool'")
        for config in (self.base_config, *self.pool_configs):
            if isinstance(config, MixtureConfig):
                raise ValueError(f"a mixture ('{config.kind}') cannot be a member of a mixture")
        return self

    @cached_property
    def base_config(self) -> EncoderConfig:
        """Checked settings of the base."""
        config: EncoderConfig = registry.parse("encoders", self.base)
        return config

    @cached_property
    def pool_configs(self) -> list[EncoderConfig]:
        """Checked settings of the weak encoders."""
        return [registry.parse("encoders", spec) for spec in self.pool]

    @property
    def names(self) -> list[str]:
        """Names of the weak encoders: their kinds, numbered where a kind is there more than once.

        Example:
            >>> MixtureConfig(kind="mowe", base={"kind": "cnn"}, pool=[{"kind": "cnn"}] * 2).names
            ['cnn-1', 'cnn-2']
        """
        kinds = [config.kind for config in self.pool_configs]
        return [
            kind if kinds.count(kind) == 1 else f"{kind}-{kinds[: place + 1].count(kind)}"
            for place, kind in enumerate(kinds)
        ]

    @property
    def map_width(self) -> int:
        """Width to which each weak encoder is mapped."""
        return self.width or self.base_config.facts().dim

    def resolved(self) -> Self:
        """Return the config with the architectures of all members written into it."""
        base = self.base_config.resolved().model_dump()
        pool = [config.resolved().model_dump() for config in self.pool_configs] or self.pool
        return type(self).model_validate({**self.model_dump(), "base": base, "pool": pool})

    def out_dim(self) -> int:
        """Return the width of a token that leaves the mixture."""
        raise NotImplementedError

    def tokens_per_base_token(self) -> int:
        """Return how many tokens leave the mixture for each of the base."""
        return 1

    def facts(self) -> EncoderFacts:
        """Return the base's clock and the mixture's width."""
        base = self.base_config.facts()
        members = [base, *(config.facts() for config in self.pool_configs)]
        return EncoderFacts(
            dim=self.out_dim(),
            rate_hz=base.rate_hz * self.tokens_per_base_token(),
            max_seconds=base.max_seconds,
            windowed=all(facts.windowed for facts in members),
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return the tokens of a window: the base's, times those that each becomes."""
        return self.base_config.window_tokens(num_samples) * self.tokens_per_base_token()


class Maps(nn.Module):
    """One linear map per weak encoder, to a common width."""

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__()
        self.norm = config.norm
        dims = [member.facts().dim for member in config.pool_configs]
        self.maps = nn.ModuleList([nn.Linear(dim, config.map_width) for dim in dims])

    def forward(self, values: Tensor, member: int) -> Tensor:
        """Map the tokens (…, D_k) of one weak encoder to (…, width)."""
        normed = nn.functional.layer_norm(values, values.shape[-1:]) if self.norm else values
        mapped: Tensor = self.maps[member](normed)
        return mapped


class Mixture(Encoder):
    """A base and a pool. Subclasses set `Config`, build the part `router`, and implement `mix`."""

    Config: ClassVar[type[EncoderConfig]] = MixtureConfig

    def __init__(self, config: MixtureConfig) -> None:
        super().__init__(config)
        self.base = build_encoder(config.base_config.model_dump())
        self.pool = nn.ModuleList([build_encoder(member.model_dump()) for member in config.pool_configs])
        self.names = config.names

    def mix(self, base: Tensor, weak: list[Tensor], valid: Tensor, prompt: Tensor | None) -> Tensor:
        """Combine the encoders' tokens.

        Args:
            base: (C, N, D).
            weak: (C, N, D_k) of each weak encoder, on the base's clock.
            valid: (C, N) True = real.
            prompt: (C, D_text) mean embedding of the question, for mixtures that declare `prompt_dependent`.

        Returns:
            (C, N · tokens_per_base_token, D').
        """
        raise NotImplementedError

    def wanted(self, base: Tensor, valid: Tensor) -> Tensor:
        """Return (C, M) True = this clip needs this weak encoder; all of them, unless routing is hard."""
        return torch.ones(len(base), len(self.pool), dtype=torch.bool, device=base.device)

    def load_pretrained(self) -> None:
        """Read the published weights of every member; say which of the weak ones are not weak."""
        for member in self.feature_parts():
            member.load_pretrained()
        sizes = [sum(p.numel() for p in member.parameters()) for member in self.feature_parts()]
        for line in too_strong(self.names, sizes[0], sizes[1 : 1 + len(self.names)]):
            log.warning(line)

    def feature_parts(self) -> list[Encoder]:
        """Return the members: features depend on them alone."""
        return [self.base, *self.pool]

    def features(self, audio: Tensor, lengths: Tensor, *, start_s: float = 0.0, every: bool = False) -> AudioTokens:
        """Return all members' tokens side by side, on the base's clock.

        Args:
            audio: (C, S) float samples at 16 kHz, zero-padded.
            lengths: (C,) real samples of each clip, at least 1.
            start_s: Absolute time of the first sample.
            every: Run every weak encoder, also where routing does not want it: what is kept must serve any route.

        Returns:
            (C, N, D + ΣD_k); zeros where a weak encoder was not run.
        """
        windows = chunk.window_grid(lengths.tolist(), self.config.window_samples)
        rows, row_lengths = chunk.cut(audio, windows)
        counts = [self.config.base_config.window_tokens(window.length) for window in windows]
        own = self.base(rows, row_lengths).values  # (W, N, D)
        base, valid = chunk.stitch(own, counts, windows, len(audio))
        with torch.no_grad():
            wanted = torch.ones_like(self.wanted(base, valid)) if every else self.wanted(base, valid)
        by_window = wanted[torch.tensor([window.clip for window in windows], device=wanted.device)]  # (W, M)
        parts = [base]
        for k, member in enumerate(self.pool):
            tokens = self._aligned(member, rows, row_lengths, by_window[:, k], own.shape[1])  # type: ignore[arg-type]
            parts.append(chunk.stitch(tokens.to(own.dtype), counts, windows, len(audio))[0])
        return AudioTokens(values=torch.cat(parts, -1), valid=valid, rate_hz=self.base.facts.rate_hz, start_s=start_s)

    def _aligned(self, member: Encoder, rows: Tensor, lengths: Tensor, chosen: Tensor, num: int) -> Tensor:
        """Return (W, num, D_k): the chosen windows through one weak encoder, zeros elsewhere."""
        out = rows.new_zeros(len(rows), num, member.facts.dim)
        if not bool(chosen.any()):
            return out
        tokens = member(rows[chosen], lengths[chosen])
        rates = {"rate_hz": member.facts.rate_hz, "base_rate_hz": self.base.facts.rate_hz}
        nearest = self.config.align == "nearest"
        there = onto(tokens.values, tokens.counts(), num=num, nearest=nearest, **rates)
        return there if bool(chosen.all()) else out.to(there).index_put((chosen.nonzero()[:, 0],), there)

    def finish(self, features: AudioTokens, prompt: Tensor | None = None) -> AudioTokens:
        """Return the mixture's tokens from its members' features."""
        if self.facts.prompt_dependent and prompt is None:
            raise ConfigError(f"the mixture '{self.config.kind}' listens to the question; it was given none")
        widths = [member.facts.dim for member in self.feature_parts()]
        base, *weak = features.values.split(widths, -1)
        values = self.mix(base, weak, features.valid, prompt)
        per_token = self.config.tokens_per_base_token()
        valid = features.valid.repeat_interleave(per_token, 1)
        values = values.masked_fill(~valid[..., None], 0)
        return features.with_values(values, valid=valid, rate_hz=self.facts.rate_hz)

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, N, D') tokens of windows; a mixture that listens to the question is asked nothing."""
        features = self.features(windows, lengths)
        silent = torch.zeros(len(windows), getattr(self.config, "prompt_dim", 1), device=windows.device)
        return self.finish(features, silent if self.facts.prompt_dependent else None).values

    def forward(self, audio: Tensor, lengths: Tensor, *, start_s: float = 0.0) -> AudioTokens:
        """Encode clips; see `Encoder.forward`."""
        return self.finish(self.features(audio, lengths, start_s=start_s))


def too_strong(names: list[str], base: int, weak: list[int]) -> list[str]:
    """Return one line for each weak encoder with more than a tenth of the base's parameters.

    Example:
        >>> too_strong(["ast"], 100, [25])
        ["weak encoder 'ast' has 25 parameters, more than a tenth of the base's 100"]
    """
    return [
        f"weak encoder '{name}' has {size:,} parameters, more than a tenth of the base's {base:,}"
        for name, size in zip(names, weak, strict=True)
        if 10 * size > base
    ]
