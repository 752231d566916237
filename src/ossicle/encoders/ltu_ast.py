"""LTU's audio branch: a pre-norm ViT over a filter bank, averaged to 32 tokens for ten seconds.

    fbank (1024, 128) ──16×16 patches──► 8 × 64, frequency-major, + positions + modality ──12 blocks, norm──►
      ──mean over 8 frequencies, mean of 2 steps──► 32 tokens ──÷ 50

No CLS. The division matters only through the eps of a LayerNorm that follows (1e-5 in LTU). Frames after a clip's end
are zero *before* normalising, which makes them loud, and every token of a window is real, as in LTU; unlike LTU, a
longer clip goes on in a second window.

Source: LTU (arXiv 2305.10790) (official code `CAVMAEFTAudio`); CAV-MAE, arXiv 2210.07839.
"""

from __future__ import annotations

import re
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from ossicle.audio.features import kaldi_fbank, kaldi_samples
from ossicle.encoders.base import Encoder, EncoderConfig
from ossicle.encoders.pretrained import choose_taps, load_renamed, outputs_of
from ossicle.encoders.sslam import Block, PatchEmbed, sincos_positions
from ossicle.types import SAMPLE_RATE_HZ, EncoderFacts

FRAMES, BINS, STEPS = 1024, 8, 64
MEAN, STD = -5.081, 4.4849
NORM_EPS = 1e-5
OUTPUT_SCALE = 1 / 50


class LtuAstConfig(EncoderConfig):
    """Settings of `ltu_ast`; the defaults are the published size.

    Attributes:
        dim: Width, a multiple of 4.
        depth: Blocks.
        heads: Attention heads; divides `dim`.
        pool: Mean over so many time steps; divides 64.
    """

    kind: str = "ltu_ast"
    dim: int = Field(default=768, ge=4, multiple_of=4)
    depth: int = Field(default=12, ge=1)
    heads: int = Field(default=12, ge=1)
    pool: int = Field(default=2, ge=1, le=STEPS)

    def taps(self) -> list[int]:
        """Return the tapped blocks, counted from 0; empty = after the final norm."""
        return choose_taps(self.kind, self.layers, self.depth)

    def facts(self) -> EncoderFacts:
        """Return width, rate and window."""
        layers = len(self.taps()) or 1
        seconds = self.window_s or kaldi_samples(FRAMES) / SAMPLE_RATE_HZ
        return EncoderFacts(
            dim=layers * self.dim, rate_hz=STEPS / self.pool / seconds, max_seconds=seconds, num_layers=layers
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return the tokens of a window, however much of it is real."""
        return STEPS // self.pool


def start_positions(dim: int) -> Tensor:
    """Return (512, dim) the positions before training: frequency-major, time in the first half of the width."""
    by_time = sincos_positions(STEPS, BINS, dim).unflatten(0, (STEPS, BINS))
    return by_time.transpose(0, 1).flatten(0, 1).roll(dim // 2, -1)


class LtuAstEncoder(Encoder):
    """Filter bank, patches, blocks, means."""

    Config: ClassVar[type[EncoderConfig]] = LtuAstConfig

    def __init__(self, config: LtuAstConfig) -> None:
        super().__init__(config)
        self.patches = PatchEmbed(config.dim)
        self.positions = nn.Parameter(torch.empty(1, BINS * STEPS, config.dim))
        with torch.no_grad():
            self.positions.copy_(start_positions(config.dim))
        self.modality = nn.Parameter(torch.zeros(1, 1, config.dim))
        self.blocks = nn.ModuleList(
            Block(config.dim, config.heads, norm_eps=NORM_EPS, post_norm=False) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim, eps=NORM_EPS)
        self.unused = nn.ModuleList(nn.ModuleDict(self._unused(block)) for block in range(config.depth))
        self.unused.requires_grad_(False)

    def _unused(self, block: int) -> dict[str, nn.Module]:
        """Return the norms of other modalities: without effect, but part of LTU's checkpoint and parameter count."""
        own = ("", "_v") if block == self.config.depth - 1 else ("_a", "_v")
        names = [f"norm{number}{kind}" for number in (1, 2) for kind in own]
        return {name: nn.LayerNorm(self.config.dim, eps=NORM_EPS) for name in names}

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, N, D) tokens of full windows."""
        fbank = kaldi_fbank(windows, lengths, num_frames=FRAMES, remove_mean=True)
        return self.encode_features((fbank - MEAN) / STD)

    def encode_features(self, fbank: Tensor) -> Tensor:
        """Return (W, N, D) tokens of (W, T, F) normalised filter banks."""
        image = fbank.to(self.norm.weight.dtype).transpose(1, 2)  # (W, F, T): kernels are frequency by time
        grid = self.patches(image).flatten(1, 2)  # (W, 8 · 64, D)
        start = grid + self.positions + self.modality
        taps = self.config.taps()
        blocks = nn.Sequential(*self.blocks)
        states = outputs_of(self.blocks, taps, lambda: blocks(start)) if taps else [self.norm(blocks(start))]
        tokens = torch.cat(states, -1).unflatten(1, (BINS, STEPS)).mean(1)  # (W, 64, D)
        return tokens.unflatten(1, (-1, self.config.pool)).mean(2) * OUTPUT_SCALE

    def load_pretrained(self) -> None:
        """Read LTU's audio branch from safetensors, alone or as part of its checkpoint."""
        if self.config.pretrained is not None:
            load_renamed(self, self.config.pretrained, self.config.revision, self.our_name)

    def our_name(self, published: str) -> str | None:
        """Return our name of a published tensor, None for one of another modality's own."""
        name = re.sub(r"^.*?audio_encoder\.", "", published)
        first_shared = self.config.depth - 1
        name = re.sub(r"^blocks_a\.(\d+)\.(norm\d_[av]\.)", r"unused.\1.\2", name)
        name = re.sub(r"^blocks_u\.0\.(norm\d(?:_v)?\.)", rf"unused.{first_shared}.\1", name)
        if name.startswith("unused.") or "_v." in name:
            return name if name.startswith("unused.") else None
        name = re.sub(r"^blocks_u\.(\d+)\.", lambda found: f"blocks.{first_shared + int(found[1])}.", name)
        whole = {"pos_embed_a": "positions", "modality_a": "modality"}
        parts = {"patch_embed_a.": "patches.", "blocks_a.": "blocks.", "norm_a.": "norm.", "norm1_a.": "norm1."}
        for old, new in {**parts, "norm2_a.": "norm2."}.items():
            name = name.replace(old, new)
        return whole.get(name, name)
