"""Encoders that read samples: a stack of convolutions, then Transformer blocks (wav2vec 2.0 and its kin).

    samples ──[mean 0, variance 1]──► convolutions, stride 320 together ──+ positions──► blocks ──► 50 tokens/s

Sizes with a group norm in their first convolution average over the whole row, so that padding would change every token:
their windows run one length at a time. Sizes with layer norms run as one masked batch. Masking and dropping of layers
while training (SpecAugment, layerdrop) are off: they would make taps, and what a frozen encoder says, random.
The window has no limit of its own; 30 s is our choice.

Source: Baevski et al., arXiv 2006.11477; Hsu et al., arXiv 2106.07447; Chen et al., arXiv 2110.13900.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional
from transformers import PretrainedConfig

from ossicle.audio.chunk import conv_length, pad_rows, prefix_mask
from ossicle.audio.features import unit_variance
from ossicle.encoders.pretrained import PublishedConfig, PublishedEncoder, read_preprocessor
from ossicle.errors import UnsupportedError
from ossicle.types import SAMPLE_RATE_HZ, EncoderFacts


class WaveformConfig(PublishedConfig):
    """Settings of encoders that read samples.

    Attributes:
        window_s: Length of a window in seconds.
        normalize: Scale each window to mean 0 and variance 1; as published where `pretrained` says so.
    """

    window_s: float | None = Field(default=30.0, gt=0)
    normalize: bool = True

    def adjusted(self, network: PretrainedConfig) -> PretrainedConfig:
        """Return the network's config without random masking.

        Raises:
            UnsupportedError: The published model has an adapter on top, which changes the rate.
        """
        if getattr(network, "add_adapter", False):
            raise UnsupportedError(f"{self.kind}: a network with add_adapter; name a folder without an adapter on top")
        network.apply_spec_augment = False
        network.mask_time_prob = network.mask_feature_prob = 0.0
        network.layerdrop = 0.0
        return network

    def front_end(self, folder: Path) -> dict[str, Any]:
        """Return whether samples are normalised, as published."""
        found = read_preprocessor(folder)
        return {"normalize": found["do_normalize"]} if "do_normalize" in found else {}

    @property
    def shortest_samples(self) -> int:
        """Samples under one token."""
        samples = 1
        for kernel, stride in reversed(list(zip(self.network.conv_kernel, self.network.conv_stride, strict=True))):
            samples = (samples - 1) * stride + kernel
        return int(samples)

    def facts(self) -> EncoderFacts:
        """Return width, rate and window of this size."""
        layers = len(self.taps()) or 1
        seconds = self.window_s or 30.0
        return EncoderFacts(
            dim=layers * int(self.network.hidden_size),
            rate_hz=self.window_tokens(round(seconds * SAMPLE_RATE_HZ)) / seconds,
            max_seconds=seconds,
            num_layers=layers,
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return what the convolutions leave, at least 1."""
        length = max(num_samples, self.shortest_samples)
        for kernel, stride in zip(self.network.conv_kernel, self.network.conv_stride, strict=True):
            length = conv_length(length, kernel=kernel, stride=stride)
        return length


class WaveformEncoder(PublishedEncoder):
    """Samples, convolutions, blocks, taps."""

    Config: ClassVar[type[PublishedConfig]] = WaveformConfig

    def blocks(self) -> nn.ModuleList:
        """Return the Transformer's blocks."""
        blocks: nn.ModuleList = self.model.encoder.layers
        return blocks

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors without the mask embedding, which only SpecAugment uses."""
        return {name: value for name, value in state.items() if name != "masked_spec_embed"}

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, N, D) tokens, each row's real ones first."""
        rows = unit_variance(windows, lengths) if self.config.normalize else windows.float()
        lengths = lengths.clamp_min(self.config.shortest_samples)
        rows = functional.pad(rows, (0, max(0, int(lengths.max()) - rows.shape[1]))).to(self.model.dtype)
        network = self.config.network
        if network.feat_extract_norm == "layer" and not getattr(network, "conv_pos_batch_norm", False):
            mask = None if bool((lengths == rows.shape[1]).all()) else prefix_mask(lengths, rows.shape[1])
            return self._run(rows, mask)
        tokens: list[Tensor] = [rows] * len(rows)
        for length in sorted(set(lengths.tolist())):
            places = (lengths == length).nonzero()[:, 0]
            for place, row in zip(places.tolist(), self._run(rows[places, :length], None), strict=True):
                tokens[place] = row
        return pad_rows(tokens)[0]

    def _run(self, rows: Tensor, mask: Tensor | None) -> Tensor:
        """Return (W, N, D) tokens of (W, S) samples."""
        return torch.cat(self.tapped(lambda: self.model(rows, attention_mask=mask).last_hidden_state), -1)
