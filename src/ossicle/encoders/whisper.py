"""Whisper's encoder, any size, any window up to its 30 s, any of its layers.

    log-mel (F, T) ──conv, conv/2──► (T/2, D) + sinusoid ──blocks──► taps ──mean of `pool`──► (N, k·D)
                                                              └──final norm──► `last`

A window shorter than 30 s takes the first rows of the position table: `window_s: 10` attends to 500 positions, not
to 1500. Each window is filled with silence before the log-mel, all of it is encoded, and the tokens of the filling are
dropped.

Source: Radford et al., arXiv 2212.04356; windows and taps as LTU-AS. `compat: ltu` differs on
purpose from everything else here: the whole clip's log-mel is cut or filled (with 0.0) to one window, and every token
of that window is real.
"""

from __future__ import annotations

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from transformers import PretrainedConfig, WhisperConfig
from transformers.models.whisper.modeling_whisper import WhisperEncoder as WhisperNetwork

from ossicle.audio.chunk import ceil_div
from ossicle.audio.features import HOP_SAMPLES, ltu_whisper_log_mel, whisper_log_mel
from ossicle.encoders.pretrained import PublishedConfig, PublishedEncoder
from ossicle.errors import CheckpointError
from ossicle.types import SAMPLE_RATE_HZ, AudioTokens, EncoderFacts

POSITION_SAMPLES = 2 * HOP_SAMPLES
POSITIONS_PER_S = SAMPLE_RATE_HZ // POSITION_SAMPLES


class WhisperEncoderConfig(PublishedConfig):
    """Settings of `whisper`.

    Attributes:
        pool: Mean over so many of the 50 tokens per second; divides the window.
        compat: `ltu` = pad and cut as LTU-AS does; one window per clip.
    """

    kind: str = "whisper"
    pool: int = Field(default=1, ge=1)
    compat: Literal["ltu"] | None = None

    network_config: ClassVar[type[PretrainedConfig]] = WhisperConfig

    @model_validator(mode="after")
    def _whole_pools(self) -> Self:
        if self.window_s is not None and round(self.window_s * POSITIONS_PER_S) < 1:
            raise ValueError(f"window_s is {self.window_s}: expected at least {1 / POSITIONS_PER_S} s")
        if (self.architecture is not None or self.pretrained is None) and self.positions % self.pool:
            raise ValueError(f"pool is {self.pool}: expected a divisor of the window's {self.positions} tokens")
        return self

    def adjusted(self, network: PretrainedConfig) -> PretrainedConfig:
        """Return the network's config with the window's number of positions."""
        if self.window_s is not None:
            network.max_source_positions = round(self.window_s * POSITIONS_PER_S)
        return network

    @property
    def positions(self) -> int:
        """Tokens of a full window before pooling."""
        return int(self.network.max_source_positions)

    def num_blocks(self) -> int:
        """Return how many blocks `layers` can tap."""
        return int(self.network.encoder_layers)

    def facts(self) -> EncoderFacts:
        """Return width, rate and window of this size."""
        layers = len(self.taps()) or 1
        return EncoderFacts(
            dim=layers * int(self.network.d_model),
            rate_hz=POSITIONS_PER_S / self.pool,
            max_seconds=self.positions / POSITIONS_PER_S,
            num_layers=layers,
            windowed=self.compat is None,
        )

    def window_tokens(self, num_samples: int) -> int:
        """Return the tokens that hold at least one real sample."""
        return ceil_div(num_samples, POSITION_SAMPLES * self.pool)

    def num_tokens(self, num_samples: int) -> int:
        """Return the tokens of a clip; under `compat: ltu` always those of one full window."""
        return super().num_tokens(num_samples if self.compat is None else self.window_samples)


class WhisperEncoder(PublishedEncoder):
    """Log-mel, Whisper's encoder, taps, pooling."""

    Config: ClassVar[type[PublishedConfig]] = WhisperEncoderConfig
    network_class = WhisperNetwork
    renames: ClassVar[dict[str, str]] = {r"^(model\.)?encoder\.": ""}

    def blocks(self) -> nn.ModuleList:
        """Return the encoder's blocks."""
        blocks: nn.ModuleList = self.model.layers
        return blocks

    def fitted(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the tensors with the first rows of the position table."""
        name = "embed_positions.weight"
        if len(state[name]) < self.config.positions:
            window_s = len(state[name]) / POSITIONS_PER_S
            raise CheckpointError(
                f"{self.config.pretrained} has positions for {window_s} s; window_s may be at most that"
            )
        return state | {name: state[name][: self.config.positions]}

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Return (W, N, D) tokens of full windows."""
        mels = self.config.network.num_mel_bins
        return self.encode_features(whisper_log_mel(windows, num_mels=mels, num_samples=self.config.window_samples))

    def encode_features(self, log_mel: Tensor) -> Tensor:
        """Return (W, N, D) tokens of a (W, F, T) log-mel of full windows."""
        taps = self.tapped(lambda: self.model(log_mel.to(self.model.dtype)).last_hidden_state)
        tokens = torch.cat(taps, -1)  # (W, N · pool, D)
        return tokens.unflatten(1, (-1, self.config.pool)).mean(2)

    def forward(self, audio: Tensor, lengths: Tensor, *, start_s: float = 0.0) -> AudioTokens:
        """Encode clips; see `Encoder.forward`."""
        if self.config.compat is None:
            return super().forward(audio, lengths, start_s=start_s)
        mels, frames = self.config.network.num_mel_bins, 2 * self.config.positions
        values = self.encode_features(ltu_whisper_log_mel(audio, lengths, num_mels=mels, num_frames=frames))
        valid = torch.ones(values.shape[:2], dtype=torch.bool, device=values.device)
        return AudioTokens(values=values, valid=valid, rate_hz=self.facts.rate_hz, start_s=start_s)
