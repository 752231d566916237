"""WavLM: samples to 50 tokens per second, any size; see `waveform` for how windows and padding are treated.

Source: Chen et al., arXiv 2110.13900.
"""

from __future__ import annotations

from typing import ClassVar

from transformers import PretrainedConfig, WavLMConfig, WavLMModel

from ossicle.encoders.pretrained import PublishedConfig
from ossicle.encoders.waveform import WaveformConfig, WaveformEncoder


class WavlmEncoderConfig(WaveformConfig):
    """Settings of `wavlm`: those of every encoder that reads samples."""

    kind: str = "wavlm"

    network_config: ClassVar[type[PretrainedConfig]] = WavLMConfig


class WavlmEncoder(WaveformEncoder):
    """WavLM's convolutions and blocks."""

    Config: ClassVar[type[PublishedConfig]] = WavlmEncoderConfig
    network_class = WavLMModel
