"""A frequency-strided convolutional stem under a small Transformer: nano's own encoder, and a natural weak one.

    samples ──► log-mel (100 Hz, F) ──► [conv 3×3 · BatchNorm · ReLU] × 2 per block, strides (2,2) (2,2) (2,2) (1,2)
            ──► (T/8, F/16 · C) ──linear──► dim ──► pre-norm Transformer blocks without positions ──► 12.5 tokens/s

From a few hundred short recordings such a stem learns in minutes what a patch or Conv1d stem of the same size does not.
Everything past a window's last frame is zero after each convolution, and zero is digital silence: padding cannot be
told from nothing, so neither padding nor the other rows of a batch change a token.

Source: after PANNs (Kong et al., arXiv 1912.10211, CNN10: two 3×3 convolutions with BatchNorm per block). Deviations:
strides instead of average pooling, no global pooling, self-attention on top.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from ossicle.audio import chunk
from ossicle.audio.features import log_mel
from ossicle.encoders.base import Encoder, EncoderConfig
from ossicle.errors import ConfigError
from ossicle.types import EncoderFacts

HOP_SAMPLES = 160
TIME_STRIDES = (2, 2, 2, 1)
FRAMES_PER_TOKEN = 8
FRAME_RATE_HZ = 100.0
Stage = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
FRAMES_AT_ONCE = 1024
"""Frames that go through the stem together on a CPU: what two convolutions hand each other then stays in its cache."""


class CnnConfig(EncoderConfig):
    """Settings of `cnn`; the defaults are nano's.

    Attributes:
        window_s: Length of a window in seconds.
        num_mels: Mel bands, a multiple of 16.
        channels: Channels of the four convolution blocks.
        dim: Width of a token.
        depth: Transformer blocks.
        heads: Attention heads; they divide `dim`.
        dropout: In the Transformer, while training.
    """

    kind: str = "cnn"
    window_s: float | None = 10.0
    num_mels: int = Field(default=64, multiple_of=16, gt=0)
    channels: tuple[int, int, int, int] = (16, 48, 96, 160)
    dim: int = 192
    depth: int = Field(default=2, ge=1)
    heads: int = Field(default=4, ge=1)
    dropout: float = 0.1

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.dim % self.heads:
            raise ValueError(f"dim is {self.dim}: expected a multiple of heads, {self.heads}")
        return self

    def taps(self) -> list[int]:
        """Return the blocks whose output is tapped, counted from 0; empty = after the last block's norm."""
        if self.layers == "last":
            return []
        wanted = list(range(self.depth)) if self.layers == "all" else self.layers
        for index in wanted:
            if not -self.depth <= index < self.depth:
                raise ConfigError(f"cnn: layers holds {index}; this encoder has blocks 0 to {self.depth - 1}")
        return [index % self.depth for index in wanted]

    def facts(self) -> EncoderFacts:
        """Return 12.5 tokens/s of `dim`, times the tapped layers."""
        num_layers = max(1, len(self.taps()))
        return EncoderFacts(
            dim=self.dim * num_layers,
            rate_hz=FRAME_RATE_HZ / FRAMES_PER_TOKEN,
            max_seconds=self.window_s or 10.0,
            num_layers=num_layers,
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return a token for every 8 frames begun."""
        return chunk.ceil_div(chunk.ceil_div(num_samples, HOP_SAMPLES), FRAMES_PER_TOKEN)


class ConvBlock(nn.Module):
    """Two 3×3 convolutions with BatchNorm and ReLU, the first one strided; frames past the end stay zero."""

    def __init__(self, inputs: int, outputs: int, time_stride: int) -> None:
        super().__init__()
        self.time_stride = time_stride
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=(time_stride, 2), padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def stage(self) -> Stage:
        """Return what maps (W, C, T, F) and real frames (W,) to (W, C', T/stride, F/2) and theirs."""
        first, second = _normed(self.conv1, self.norm1), _normed(self.conv2, self.norm2)

        def run(x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
            counts = (counts + self.time_stride - 1) // self.time_stride
            x = _silenced(first(x).relu_(), counts)
            return _silenced(second(x).relu_(), counts), counts

        return run


def _staged(stages: Sequence[Stage], x: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """Run the stem over windows (W, 1, T, F) with `counts` (W,) real frames."""
    for stage in stages:
        x, counts = stage(x, counts)
    return x, counts


def _normed(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
    """Return a convolution and its norm; where nothing is learnt they are one convolution, a sixth faster on CPU."""
    if norm.training or torch.is_grad_enabled() or norm.running_var is None or norm.running_mean is None:
        return lambda x: norm(conv(x))
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    weight = (conv.weight * scale[:, None, None, None]).contiguous(memory_format=torch.channels_last)
    bias = norm.bias - norm.running_mean * scale
    return lambda x: nn.functional.conv2d(x, weight, bias, conv.stride, conv.padding)  # type: ignore[arg-type]


def _silenced(x: Tensor, counts: Tensor) -> Tensor:
    """Return (W, C, T, F) with zeros past each window's real frames."""
    if torch.is_grad_enabled() or x.device.type != "cpu":
        return x * chunk.prefix_mask(counts, x.shape[2])[:, None, :, None]
    for window, count in enumerate(counts.tolist()):
        if count < x.shape[2]:  # in place, and only what is padding
            x[window, :, count:] = 0
    return x


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and feed-forward, without positions."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * dim, dim))
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (W, N, D); `valid` (W, N) says which tokens may be attended to."""
        qkv = self.qkv(self.norm1(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)  # (3, W, H, N, D/H)
        heard = nn.functional.scaled_dot_product_attention(*qkv, attn_mask=valid[:, None, None])
        x = x + self.drop(self.out(heard.transpose(1, 2).flatten(2)))
        return x + self.drop(self.mlp(self.norm2(x)))


class CnnEncoder(Encoder):
    """Convolutional stem and small Transformer: 12.5 tokens/s from 16 kHz audio.

    Example:
        >>> encoder = CnnEncoder(CnnConfig())
        >>> encoder(torch.zeros(1, 16000), torch.tensor([16000])).values.shape
        torch.Size([1, 13, 192])
    """

    Config: ClassVar[type[EncoderConfig]] = CnnConfig

    def __init__(self, config: CnnConfig) -> None:
        super().__init__(config)
        widths = (1, *config.channels)
        self.stem = nn.ModuleList(ConvBlock(widths[i], widths[i + 1], stride) for i, stride in enumerate(TIME_STRIDES))
        self.project = nn.Linear(config.channels[-1] * (config.num_mels // 16), config.dim)
        self.blocks = nn.ModuleList(
            TransformerBlock(config.dim, config.heads, config.dropout) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.dim)

    def log_mel(self, windows: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Return (W, T, F) log-mel, scaled so that digital silence is 0, and the real frames (W,) of each window."""
        mel = log_mel(windows, lengths, num_mels=self.config.num_mels, hop_samples=HOP_SAMPLES).transpose(1, 2)
        return (mel + 8) / 2, (lengths + HOP_SAMPLES - 1) // HOP_SAMPLES

    def encode_mel(self, mel: Tensor, counts: Tensor) -> Tensor:
        """Return (W, N, D) from log-mel frames (W, T, F) and the real frames (W,) of each window."""
        x = mel.to(self.project.weight.dtype).unsqueeze(-1).permute(0, 3, 1, 2)  # (W, 1, T, F), channels last: faster
        step = len(x) if x.device.type != "cpu" or torch.is_grad_enabled() else max(1, FRAMES_AT_ONCE // x.shape[2])
        stages = [block.stage() for block in self.stem]
        parts = [_staged(stages, *part) for part in zip(x.split(step), counts.split(step), strict=True)]
        x, counts = (torch.cat(part) for part in zip(*parts, strict=True))
        x = self.project(x.transpose(1, 2).flatten(2))  # (W, N, D)
        valid = chunk.prefix_mask(counts, x.shape[1])
        tapped, wanted = [], self.config.taps()
        for index, block in enumerate(self.blocks):
            x = block(x, valid)
            tapped += [x] * wanted.count(index)
        return torch.cat(tapped, -1) if wanted else self.norm(x)

    def load_pretrained(self) -> None:
        """Read an encoder of an ossicle model: of the stream in `MODEL#STREAM`, or of the first that has such a one."""
        from ossicle.encoders.pretrained import load_renamed
        from ossicle.encoders.taught import load_taught

        if self.config.pretrained is not None and "#" in self.config.pretrained:
            load_taught(self, self.config.pretrained)
        elif self.config.pretrained is not None:
            load_renamed(self, self.config.pretrained, self.config.revision, lambda name: name.split(".encoder.")[-1])

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Encode windows (W, S) with `lengths` (W,) real samples."""
        return self.encode_mel(*self.log_mel(windows, lengths))
