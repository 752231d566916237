"""CLAP's audio tower: HTSAT, a Swin Transformer over a log-mel at 48 kHz.

    log-mel dB (1001, 64) ──stretched to 1024, cut into 4 stretches of time, laid under each other──► image (256, 256)
      ──stages with 4 × 4 patches, halved three times──► (4 stretches × 2 frequencies, 8 times) ──norm──► 32 times × 2

Tokens are time-major, 64 for 10 s; a clip shorter than the window is repeated, as published, and its tokens are those
of the first repetition. `layers` taps *stages* (before their halving), averaged down to the last stage's grid; stages
have different widths, so several together count as one wide layer. Fused models get the same spectrogram four times:
no window is longer than they take, and the random crops they were trained on are not needed.

Source: Wu et al., arXiv 2211.06687; Chen et al. (HTSAT), arXiv 2202.00874; extractor of transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn
from transformers import ClapAudioConfig, ClapAudioModel, PretrainedConfig

from ossicle.audio.chunk import ceil_div
from ossicle.audio.features import ClapBank, clap_log_mel
from ossicle.encoders.pretrained import PublishedConfig, PublishedEncoder, read_preprocessor
from ossicle.types import SAMPLE_RATE_HZ, EncoderFacts

FRAMES_PER_S = 100


class ClapEncoderConfig(PublishedConfig):
    """Settings of `clap`.

    Attributes:
        low_hz: Lower edge of the first mel filter.
        high_hz: Upper edge of the last one.
    """

    kind: str = "clap"
    low_hz: float = 50.0
    high_hz: float = 14000.0

    network_config: ClassVar[type[PretrainedConfig]] = ClapAudioConfig
    section: ClassVar[str | None] = "audio_config"

    @model_validator(mode="after")
    def _fits_the_image(self) -> Self:
        if self.window_s is not None and (self.architecture is not None or self.pretrained is None):
            longest = (self.width - 1) / FRAMES_PER_S
            if not 0 < self.window_s <= longest:
                raise ValueError(f"window_s is {self.window_s}: expected up to {longest} s, the width of its image")
        return self

    def front_end(self, folder: Path) -> dict[str, Any]:
        """Return the edges of the filter bank as published."""
        found = read_preprocessor(folder)
        names = {"frequency_min": "low_hz", "frequency_max": "high_hz"}
        return {ours: float(found[theirs]) for theirs, ours in names.items() if theirs in found}

    @property
    def stretches(self) -> int:
        """Stretches of time that lie under each other in the image."""
        return int(self.network.spec_size // self.network.num_mel_bins)

    @property
    def width(self) -> int:
        """Frames of a full window, stretched: the image's columns times its stretches."""
        return int(self.network.spec_size * self.stretches)

    @property
    def grid(self) -> tuple[int, int]:
        """Time steps and frequency bins of the last stage."""
        stride = self.network.patch_stride
        stride = stride if isinstance(stride, int) else stride[0]
        side = self.network.spec_size // stride // 2 ** (self.num_blocks() - 1)
        return side * self.stretches, side // self.stretches

    def num_blocks(self) -> int:
        """Return how many stages `layers` can tap."""
        return len(self.network.depths)

    def facts(self) -> EncoderFacts:
        """Return width, rate and window of this size."""
        seconds = self.window_s or float((self.width - 1) // FRAMES_PER_S)
        first = self.network.patch_embeds_hidden_size
        stages = self.taps() or [self.num_blocks() - 1]
        steps, bins = self.grid
        return EncoderFacts(
            dim=sum(first * 2**stage for stage in stages),
            rate_hz=steps * bins / seconds,
            sample_rate_hz=3 * SAMPLE_RATE_HZ,
            max_seconds=seconds,
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return the tokens of all time steps that start within the clip."""
        steps, bins = self.grid
        return ceil_div(num_samples * steps, self.window_samples) * bins


class ClapEncoder(PublishedEncoder):
    """48 kHz log-mel, HTSAT, stages, time-major tokens."""

    Config: ClassVar[type[PublishedConfig]] = ClapEncoderConfig
    network_class = ClapAudioModel
    renames: ClassVar[dict[str, str]] = {r"^(clap\.)?audio_model\.": ""}

    def blocks(self) -> nn.ModuleList:
        """Return the stages."""
        blocks: nn.ModuleList = self.model.audio_encoder.layers
        return blocks

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, N, D) tokens of full windows."""
        network = self.config.network
        bank = ClapBank(network.num_mel_bins, self.config.low_hz, self.config.high_hz, network.enable_fusion)
        mels = clap_log_mel(windows, lengths, bank=bank, num_samples=self.config.window_samples)[:, None]
        if network.enable_fusion:
            mels = mels.expand(-1, 4, -1, -1)
        longer = torch.zeros(len(mels), 1, dtype=torch.bool, device=mels.device)
        taps = self.config.taps()
        states = self.model(
            mels.to(self.model.dtype),
            is_longer=longer,
            output_hidden_states=True,
            output_hidden_states_before_downsampling=True,
        )
        if not taps:
            return states.last_hidden_state.permute(0, 3, 2, 1).flatten(1, 2)  # (W, steps · bins, D)
        return torch.cat([self._tokens(states.hidden_states[1 + stage]) for stage in taps], -1)

    def _tokens(self, image: Tensor) -> Tensor:
        """Return (W, N, D) of a stage's (W, D, stretches · bins, columns), averaged to the last stage's grid."""
        steps, bins = self.config.grid
        stretches = self.config.stretches
        factor = image.shape[2] // (stretches * bins)
        image = nn.functional.avg_pool2d(image, factor)
        image = image.unflatten(2, (stretches, bins))  # (W, D, stretches, bins, columns)
        return image.permute(0, 2, 4, 3, 1).reshape(len(image), steps * bins, -1)
