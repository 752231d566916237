"""What every encoder is: a `Config` that knows its facts and token counts without weights, and a module that encodes.

    audio (C, S) ──► windows (W, S') ──► front end (W, T, F) ──► encode (W, N, D) ──► stitched (C, N', D)

A family implements three things: `EncoderConfig.facts`, `EncoderConfig.window_tokens`, and `Encoder.encode_windows`.
Cutting, batching of windows and stitching happen here, once for all. Each window is normalised by itself.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ossicle import registry
from ossicle.audio import chunk
from ossicle.config import Section
from ossicle.types import SAMPLE_RATE_HZ, AudioTokens, EncoderFacts

WINDOWS_PER_PASS = 16
"""Without gradients, this many windows are encoded at once, so that an hour of audio needs no more memory than this."""


class EncoderConfig(Section):
    """Settings that every encoder has.

    Attributes:
        kind: Name in the table of `encoders`.
        window_s: Length of a window in seconds; None = the family's own.
        layers: Hidden layers to tap: `last` (after the family's final norm), `all` block outputs, or indices of blocks.
        pretrained: Hub id or local folder whose weights a new model starts from; None = random weights.
        revision: Commit of the hub repository; pin it.
    """

    kind: str
    window_s: float | None = None
    layers: Literal["last", "all"] | list[int] = "last"
    pretrained: str | None = None
    revision: str | None = None

    def facts(self) -> EncoderFacts:
        """Return what this encoder declares about itself."""
        raise NotImplementedError

    def window_tokens(self, num_samples: int) -> int:
        """Return how many tokens one window of `num_samples` (1 to a full window) gives; at least 1."""
        raise NotImplementedError

    def resolved(self) -> EncoderConfig:
        """Return the config with the architecture of `pretrained` written into it, so that it stands alone."""
        return self

    @property
    def window_samples(self) -> int:
        """Samples (at 16 kHz) of one full window."""
        return round(self.facts().max_seconds * SAMPLE_RATE_HZ)

    def num_tokens(self, num_samples: int) -> int:
        """Return how many tokens a clip of `num_samples` at 16 kHz gives."""
        full, rest = divmod(num_samples, self.window_samples)
        whole = full * self.window_tokens(self.window_samples) if full else 0
        return whole + (self.window_tokens(rest) if rest else 0)


class Encoder(nn.Module):
    """Audio at 16 kHz to tokens. Subclasses set `Config` and implement `encode_windows`."""

    Config: ClassVar[type[EncoderConfig]] = EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config: Any = config
        self.facts = config.facts()

    def encode_windows(self, windows: Tensor, lengths: Tensor) -> Tensor:
        """Encode windows.

        Args:
            windows: (W, S) float32 samples at 16 kHz, zero after each row's length.
            lengths: (W,) real samples of each row, 1 to a full window.

        Returns:
            (W, N, D); the first `config.window_tokens(length)` rows of each window are real.
        """
        raise NotImplementedError

    def load_pretrained(self) -> None:
        """Read the weights of `config.pretrained` into this module; nothing to do without one."""

    def feature_parts(self) -> list[Encoder]:
        """Return the encoders that `features` depends on: this one; of a mixture, its members without its routers."""
        return [self]

    def detour(self) -> Any:
        """Return what decides the tokens for the moment, beside weights and settings; None where nothing does."""
        return None

    def features(self, audio: Tensor, lengths: Tensor, *, start_s: float = 0.0, every: bool = False) -> AudioTokens:
        """Return what may be kept of clips: the tokens; of a mixture, its members' tokens before they are mixed.

        Args:
            audio: As in `forward`; so are `lengths` and `start_s`.
            lengths: See `audio`.
            start_s: See `audio`.
            every: Of a mixture: run also the members that routing would leave out.
        """
        tokens: AudioTokens = self(audio, lengths, start_s=start_s)
        return tokens

    def finish(self, features: AudioTokens, prompt: Tensor | None = None) -> AudioTokens:
        """Return the encoder's tokens from its features.

        Args:
            features: From `features`.
            prompt: (C, D_text) mean embedding of each clip's question, for encoders that declare `prompt_dependent`.
        """
        return features

    def forward(self, audio: Tensor, lengths: Tensor, *, start_s: float = 0.0) -> AudioTokens:
        """Encode clips of any length.

        Args:
            audio: (C, S) float samples at 16 kHz, zero-padded.
            lengths: (C,) real samples of each clip, at least 1.
            start_s: Absolute time of the first sample.

        Returns:
            (C, N, D) tokens; `num_tokens(length)` of each row are real.
        """
        windows = chunk.window_grid(lengths.tolist(), self.config.window_samples)
        rows, row_lengths = chunk.cut(audio, windows)
        step = len(windows) if torch.is_grad_enabled() or self.training else WINDOWS_PER_PASS
        parts = [
            self.encode_windows(rows[i : i + step], row_lengths[i : i + step]) for i in range(0, len(windows), step)
        ]
        counts = [self.config.window_tokens(window.length) for window in windows]
        values, valid = chunk.stitch(torch.cat(parts), counts, windows, len(audio))
        return AudioTokens(values=values, valid=valid, rate_hz=self.facts.rate_hz, start_s=start_s)


def build_encoder(spec: dict[str, Any]) -> Encoder:
    """Return a new encoder with random weights from `{kind: …}`.

    Example:
        >>> build_encoder({"kind": "cnn"}).facts.dim
        192
    """
    config = registry.parse("encoders", spec)
    encoder: Encoder = registry.lookup("encoders", config.kind)(config)
    return encoder
