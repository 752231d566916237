"""A tiny model with a real tokenizer, in four ways of hearing."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.tiny import TINY_ENCODERS, tiny_decoder_config
from ossicle.types import Waveform


@pytest.fixture(scope="session")
def tokenizer():
    from ossicle.training.tokenizer import train_bpe

    return train_bpe(["What do you hear? A dog barks, then rain."] * 8, 300)


@pytest.fixture(scope="session", params=["attend", "prepend", "cross", "pal"])
def engine(request, tokenizer):
    from ossicle.inference.engine import Engine
    from ossicle.model import AudioLM, AudioLMConfig
    from ossicle.processor import AudioProcessor

    kinds = {"pal": ["prepend", "attend"]}.get(request.param, [request.param])
    streams = [
        {"name": f"s{i}", "encoder": "s0" if i else dict(TINY_ENCODERS["cnn"]), "integration": {"kind": kind}}
        for i, kind in enumerate(kinds)
    ]
    marker, slot = AudioProcessor.add_tokens(tokenizer)
    torch.manual_seed(0)
    config = AudioLMConfig(
        tiny_decoder_config(vocab_size=len(tokenizer)), streams, audio_token_id=marker, audio_slot_id=slot
    )
    model = AudioLM.new(config)
    return Engine(model, AudioProcessor(tokenizer, streams=model.config.streams))


@pytest.fixture(scope="session")
def waves():
    rng = np.random.default_rng(0)
    return [Waveform(samples=rng.normal(0, 0.2, n).astype(np.float32)) for n in (4000, 30000, 52000)]
