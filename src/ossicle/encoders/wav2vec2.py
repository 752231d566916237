"""wav2vec 2.0: samples to 50 tokens per second, any size; see `waveform` for how windows and padding are treated.

Source: Baevski et al., arXiv 2006.11477.
"""

from __future__ import annotations

from typing import ClassVar

from transformers import PretrainedConfig, Wav2Vec2Config, Wav2Vec2Model

from ossicle.encoders.pretrained import PublishedConfig
from ossicle.encoders.waveform import WaveformConfig, WaveformEncoder


class Wav2Vec2EncoderConfig(WaveformConfig):
    """Settings of `wav2vec2`: those of every encoder that reads samples."""

    kind: str = "wav2vec2"

    network_config: ClassVar[type[PretrainedConfig]] = Wav2Vec2Config


class Wav2Vec2Encoder(WaveformEncoder):
    """wav2vec 2.0's convolutions and blocks."""

    Config: ClassVar[type[PublishedConfig]] = Wav2Vec2EncoderConfig
    network_class = Wav2Vec2Model
