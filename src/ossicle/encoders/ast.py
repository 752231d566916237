"""AST: a Vision Transformer over patches of a filter bank.

    fbank (1024, 128) ──16×16 patches, stride 10──► 101 × 12 tokens + CLS + distillation ──blocks──► final norm = `last`

CLS and distillation tokens take part inside and are dropped at the end. Tokens are time-major: the 12 frequency patches
of one step lie together (the network itself is frequency-major), so that the tokens of a shorter clip are a prefix.
`frequency_mean` leaves one token per step. A window is the samples that fill the network's frames exactly; a shorter
`window_s` takes the position table's first steps.

Source: Gong et al., arXiv 2104.01778; frequency mean as LTU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from transformers import ASTConfig, ASTModel, PretrainedConfig

from ossicle.audio.chunk import ceil_div, conv_length
from ossicle.audio.features import kaldi_fbank, kaldi_samples, num_kaldi_frames
from ossicle.encoders.pretrained import PublishedConfig, PublishedEncoder, read_preprocessor
from ossicle.errors import CheckpointError
from ossicle.types import SAMPLE_RATE_HZ, EncoderFacts

NUM_SPECIAL = 2


class AstEncoderConfig(PublishedConfig):
    """Settings of `ast`.

    Attributes:
        frequency_mean: One token per time step: the mean over its frequency patches.
        mean: Mean of the filter bank over the training set.
        std: Its standard deviation; features are divided by twice that.
    """

    kind: str = "ast"
    frequency_mean: bool = False
    mean: float = -4.2677393
    std: float = 4.5689974

    network_config: ClassVar[type[PretrainedConfig]] = ASTConfig

    @model_validator(mode="after")
    def _at_least_a_patch(self) -> Self:
        if self.window_s is not None and num_kaldi_frames(round(self.window_s * SAMPLE_RATE_HZ)) < 16:
            raise ValueError(f"window_s is {self.window_s}: expected at least 0.175 s, the 16 frames of a patch")
        return self

    def adjusted(self, network: PretrainedConfig) -> PretrainedConfig:
        """Return the network's config with the window's number of frames."""
        if self.window_s is not None:
            network.max_length = num_kaldi_frames(round(self.window_s * SAMPLE_RATE_HZ))
        return network

    def front_end(self, folder: Path) -> dict[str, Any]:
        """Return mean and standard deviation as published."""
        return {key: value for key, value in read_preprocessor(folder).items() if key in ("mean", "std")}

    @property
    def grid(self) -> tuple[int, int]:
        """Frequency patches and time patches of a full window."""
        network = self.network
        return (
            conv_length(network.num_mel_bins, kernel=network.patch_size, stride=network.frequency_stride),
            conv_length(network.max_length, kernel=network.patch_size, stride=network.time_stride),
        )

    def facts(self) -> EncoderFacts:
        """Return width, rate and window of this size."""
        layers = len(self.taps()) or 1
        frequencies, steps = self.grid
        seconds = self.window_s or kaldi_samples(self.network.max_length) / SAMPLE_RATE_HZ
        return EncoderFacts(
            dim=layers * int(self.network.hidden_size),
            rate_hz=steps * (1 if self.frequency_mean else frequencies) / seconds,
            max_seconds=seconds,
            num_layers=layers,
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return the tokens of all time steps that start within the clip."""
        frequencies, steps = self.grid
        started = min(steps, ceil_div(num_kaldi_frames(num_samples), self.network.time_stride))
        return started if self.frequency_mean else started * frequencies


class AstEncoder(PublishedEncoder):
    """Filter bank, AST, taps, time-major tokens."""

    Config: ClassVar[type[PublishedConfig]] = AstEncoderConfig
    network_class = ASTModel

    def blocks(self) -> nn.ModuleList:
        """Return the Transformer's blocks."""
        blocks: nn.ModuleList = self.model.layers
        return blocks

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with the position table cut to the window's time steps."""
        name = "embeddings.position_embeddings"
        frequencies, steps = self.config.grid
        table = state[name][0]
        grid = table[NUM_SPECIAL:].unflatten(0, (frequencies, -1))  # (12, 101, D)
        if grid.shape[1] < steps:
            raise CheckpointError(
                f"{self.config.pretrained} has positions for {grid.shape[1]} steps, not {steps}; shorten window_s"
            )
        return state | {name: torch.cat([table[:NUM_SPECIAL], grid[:, :steps].flatten(0, 1)])[None]}

    def front_end(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, T, F) normalised filter banks of full windows."""
        network = self.config.network
        fbank = kaldi_fbank(windows, lengths, num_frames=network.max_length, num_mels=network.num_mel_bins)
        return (fbank - self.config.mean) / (2 * self.config.std)

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, N, D) tokens of full windows."""
        fbank = self.front_end(windows, lengths).to(self.model.dtype)
        taps = self.tapped(lambda: self.model(fbank).last_hidden_state)
        tokens = torch.cat(taps, -1)[:, NUM_SPECIAL:]
        grid = tokens.unflatten(1, self.config.grid).transpose(1, 2)  # (W, steps, frequencies, D)
        return grid.mean(2) if self.config.frequency_mean else grid.flatten(1, 2)
