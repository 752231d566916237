"""HuBERT: samples to 50 tokens per second, any size; see `waveform` for how windows and padding are treated.

Source: Hsu et al., arXiv 2106.07447.
"""

from __future__ import annotations

from typing import ClassVar

from transformers import HubertConfig, HubertModel, PretrainedConfig

from ossicle.encoders.pretrained import PublishedConfig
from ossicle.encoders.waveform import WaveformConfig, WaveformEncoder


class HubertEncoderConfig(WaveformConfig):
    """Settings of `hubert`: those of every encoder that reads samples."""

    kind: str = "hubert"

    network_config: ClassVar[type[PretrainedConfig]] = HubertConfig


class HubertEncoder(WaveformEncoder):
    """HuBERT's convolutions and blocks."""

    Config: ClassVar[type[PublishedConfig]] = HubertEncoderConfig
    network_class = HubertModel
