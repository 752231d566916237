"""SSLAM: a ViT-B over a filter bank, trained by self-supervision on mixtures.

    fbank (1024, 128) ──16×16 patches──► 64 × 8 tokens + sin-cos positions ──CLS in front, norm, blocks──► tokens

What differs from most ViTs: blocks are post-norm, h = LN(h + attention(h)), h = LN(h + mlp(h)); a LayerNorm stands
before block 0 and none after the last; frames after a clip's end are zero *before* normalising and are attended to;
positions are fixed, half of the width for frequency and half for time, and CLS has none. Tokens are time-major, 8 to a
step, and CLS is dropped at the end. A window is the samples that fill its frames exactly.

Source: Alex et al., SSLAM (ICLR 2025) (official code `extract_features`), after EAT.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ossicle.audio.chunk import ceil_div
from ossicle.audio.features import kaldi_fbank, kaldi_samples, num_kaldi_frames
from ossicle.encoders.base import Encoder, EncoderConfig
from ossicle.encoders.pretrained import choose_taps, fetch, load_renamed, outputs_of, pinned
from ossicle.types import SAMPLE_RATE_HZ, EncoderFacts

PATCH = 16
NUM_MELS = 128
BINS = NUM_MELS // PATCH
MEAN, SCALE = -4.268, 2 * 4.569
NORM_EPS = 1e-6


class SslamConfig(EncoderConfig):
    """Settings of `sslam`; the defaults are the published base size.

    Attributes:
        dim: Width.
        depth: Blocks.
        heads: Attention heads.
        frames: Frames of a full window, a multiple of 16; `window_s` overrides it.
    """

    kind: str = "sslam"
    dim: int = Field(default=768, ge=4, multiple_of=4)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    frames: int = Field(default=1024, ge=PATCH, multiple_of=PATCH)

    @model_validator(mode="after")
    def _whole_heads(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}: expected a multiple of heads, {self.heads}")
        return self

    @property
    def steps(self) -> int:
        """Time patches of a full window."""
        if self.window_s is None:
            return self.frames // PATCH
        return ceil_div(num_kaldi_frames(round(self.window_s * SAMPLE_RATE_HZ)), PATCH)

    def taps(self) -> list[int]:
        """Return the tapped blocks, counted from 0; `last` is the last block, which no norm follows."""
        return choose_taps(self.kind, self.layers, self.depth) or [self.depth - 1]

    def facts(self) -> EncoderFacts:
        """Return width, rate and window of this size."""
        seconds = self.window_s or kaldi_samples(self.frames) / SAMPLE_RATE_HZ
        layers = len(self.taps())
        return EncoderFacts(
            dim=layers * self.dim, rate_hz=self.steps * BINS / seconds, max_seconds=seconds, num_layers=layers
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return the tokens of all time steps that start within the clip."""
        return BINS * min(self.steps, ceil_div(num_kaldi_frames(num_samples), PATCH))

    def resolved(self) -> Self:
        """Return the config with the size and exact revision of `pretrained` written into it."""
        if self.pretrained is None or self.model_fields_set & {"dim", "depth", "heads"}:
            return self
        folder = fetch(self.pretrained, self.revision)
        path = folder / "config.json"
        published = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        names = {"embed_dim": "dim", "depth": "depth", "num_heads": "heads"}
        found = {ours: published.get(theirs, getattr(self, ours)) for theirs, ours in names.items()}
        found["revision"] = pinned(self.pretrained, folder)
        return type(self).model_validate(self.model_dump() | found)


class Attention(nn.Module):
    """Self-attention with one projection for queries, keys and values."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (W, N, D)."""
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.proj(mixed.transpose(1, 2).flatten(2))
        return out


class Mlp(nn.Module):
    """Two linear layers with a GELU between, four times as wide inside."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.fc2 = nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (W, N, D)."""
        out: Tensor = self.fc2(nn.functional.gelu(self.fc1(x)))
        return out


class Block(nn.Module):
    """A Transformer block, post-norm (SSLAM) or pre-norm (LTU's AST)."""

    def __init__(self, dim: int, heads: int, *, norm_eps: float, post_norm: bool) -> None:
        super().__init__()
        self.post_norm = post_norm
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = Attention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Return (W, N, D)."""
        if self.post_norm:
            x = self.norm1(x + self.attn(x))
            out: Tensor = self.norm2(x + self.mlp(x))
        else:
            x = x + self.attn(self.norm1(x))
            out = x + self.mlp(self.norm2(x))
        return out


class PatchEmbed(nn.Module):
    """16×16 patches of an image (W, Y, X) to (W, Y/16, X/16, D)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(1, dim, PATCH, PATCH)

    def forward(self, image: Tensor) -> Tensor:
        """Return the patches on their grid."""
        grid: Tensor = self.proj(image[:, None])
        return grid.permute(0, 2, 3, 1)


class SslamEncoder(Encoder):
    """Filter bank, patches, post-norm blocks, tokens without CLS."""

    Config: ClassVar[type[EncoderConfig]] = SslamConfig

    def __init__(self, config: SslamConfig) -> None:
        config = config.resolved()
        super().__init__(config)
        self.local_encoder = PatchEmbed(config.dim)
        self.extra_tokens = nn.Parameter(0.02 * torch.randn(1, 1, config.dim))
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, norm_eps=NORM_EPS, post_norm=True) for _ in range(config.depth)
        )

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, N, D) tokens of full windows."""
        return self.encode_features(self.front_end(windows, lengths))

    def front_end(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, T, F) normalised filter banks of full windows."""
        frames = PATCH * self.config.steps
        fbank = kaldi_fbank(windows, lengths, num_frames=frames, num_mels=NUM_MELS, remove_mean=True)
        return (fbank - MEAN) / SCALE

    def encode_features(self, fbank: Tensor) -> Tensor:
        """Return (W, N, D) tokens of (W, T, F) normalised filter banks."""
        grid = self.local_encoder(fbank.to(self.norm.weight.dtype)).flatten(1, 2)  # (W, N, D), time-major
        grid = grid + sincos_positions(grid.shape[1] // BINS, BINS, self.config.dim).to(grid)
        start = self.norm(torch.cat([self.extra_tokens.expand(len(grid), -1, -1), grid], 1))
        states = outputs_of(self.blocks, self.config.taps(), lambda: nn.Sequential(*self.blocks)(start))
        return torch.cat(states, -1)[:, 1:]

    def load_pretrained(self) -> None:
        """Read the published weights: a pre-training or fine-tuned checkpoint as safetensors.

        Raises:
            CheckpointError: No safetensors there, or tensors that do not fit.
        """
        if self.config.pretrained is not None:
            load_renamed(self, self.config.pretrained, self.config.revision, our_name)


def our_name(published: str) -> str:
    """Return our name of a published tensor.

    Example:
        >>> our_name("modality_encoders.IMAGE.context_encoder.norm.weight"), our_name("model.blocks.0.norm1.bias")
        ('norm.weight', 'blocks.0.norm1.bias')
    """
    bare = re.sub(r"^(model\.|modality_encoders\.IMAGE\.)*", "", published)
    return re.sub(r"^(context_encoder\.norm|pre_norm)\.", "norm.", bare)


@lru_cache(maxsize=16)
def sincos_positions(steps: int, bins: int, dim: int) -> Tensor:
    """Return (steps · bins, dim) fixed positions, time-major; half of the width is frequency, the second half time."""
    with torch.inference_mode(False), torch.device("cpu"):
        omega = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim // 4))
        time = torch.arange(steps, dtype=torch.float64).repeat_interleave(bins)[:, None] * omega
        frequency = torch.arange(bins, dtype=torch.float64).repeat(steps)[:, None] * omega
        return torch.cat([frequency.sin(), frequency.cos(), time.sin(), time.cos()], -1).float()
