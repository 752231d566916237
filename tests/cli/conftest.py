"""A tiny random model folder, and one recording to ask it about."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A folder with an ossicle model of random weights: two streams, a byte-sized vocabulary."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    from ossicle.chat import PLAIN_TOKENS, template
    from ossicle.model import AudioLM, AudioLMConfig
    from ossicle.processor import AudioProcessor

    alphabet = ["<pad>", "<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz "]
    letters = {letter: i for i, letter in enumerate(alphabet)}
    words = Tokenizer(models.WordLevel(letters, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.add_special_tokens({"additional_special_tokens": PLAIN_TOKENS})
    marker, slot = AudioProcessor.add_tokens(tokenizer)
    tokenizer.chat_template = template("plain")
    encoder = {"kind": "cnn"}
    text = {
        "model_type": "llama", "vocab_size": len(tokenizer), "hidden_size": 32, "intermediate_size": 48,
        "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "pad_token_id": 0,
        "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    streams = [
        {"name": "sound", "encoder": encoder, "integration": {"kind": "attend"}},
        {"name": "gist", "encoder": "sound", "integration": {"kind": "prepend"}},
    ]
    torch.manual_seed(0)
    config = AudioLMConfig(text, streams, audio_token_id=marker, audio_slot_id=slot)
    folder = tmp_path_factory.mktemp("tiny-model")
    model = AudioLM.new(config)
    model.save_pretrained(folder)
    AudioProcessor(tokenizer, streams=model.config.streams).save_pretrained(folder)
    return folder


@pytest.fixture
def clip(tmp_path):
    """A second of a tone."""
    path = tmp_path / "tone.wav"
    soundfile.write(path, np.sin(np.arange(16000) / 9).astype(np.float32) / 3, 16000)
    return path
