"""Audio and text models of transformers with tiny random weights, saved as folders like the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import soundfile
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, WhisperFeatureExtractor

from ossicle.evaluation.audio_lms import TransformersAudioLM

TEXT = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
CHAT = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% if m['content'] is string %}{{ m['content'] }}"
    "{% else %}{% for c in m['content'] %}{% if c['type'] == 'audio' %}<sound>{% else %}{{ c['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(*special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of bytes with some special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", *special]})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen2_audio(folder: Path) -> Path:
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, Qwen2AudioProcessor

    tokenizer = byte_tokenizer("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
    ears = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 24}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "max_source_positions": 100, **ears},
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    front = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    processor = Qwen2AudioProcessor(feature_extractor=front, tokenizer=tokenizer)
    return saved(folder, Qwen2AudioForConditionalGeneration, config, processor)


def audio_flamingo3(folder: Path) -> Path:
    from transformers import AudioFlamingo3Config, AudioFlamingo3ForConditionalGeneration, AudioFlamingo3Processor

    tokenizer = byte_tokenizer("<sound>")
    ears = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
    config = AudioFlamingo3Config(
        audio_config={
            "model_type": "audioflamingo3_encoder",
            "num_mel_bins": 16,
            "max_source_positions": 100,
            **ears,
        },
        text_config={"model_type": "qwen2", "vocab_size": len(tokenizer), **TEXT},
        audio_token_id=tokenizer.convert_tokens_to_ids("<sound>"),
    )
    front = WhisperFeatureExtractor(feature_size=16, chunk_length=2)
    processor = AudioFlamingo3Processor(front, tokenizer, chat_template=CHAT)
    return saved(folder, AudioFlamingo3ForConditionalGeneration, config, processor)


class TekkenLike(PreTrainedTokenizerFast):
    """Renders chats as Voxtral's tokenizer does: 375 audio tokens for every 30 s, the samples beside the ids."""

    def apply_chat_template(self, conversations: Any, **_: Any) -> dict[str, Any]:
        rows, sounds = [], []
        for turns in conversations:
            ids = [self.convert_tokens_to_ids("<|im_start|>")]
            for part in turns[0]["content"]:
                if part["type"] == "audio":
                    sounds.append(soundfile.read(part["path"], dtype="float32")[0])
                    ids += [self.convert_tokens_to_ids("[AUDIO]")] * 375 * -(-len(sounds[-1]) // 480000)
                else:
                    ids += self(part["text"])["input_ids"]
            rows.append([*ids, self.convert_tokens_to_ids("<|im_end|>")])
        width = max(map(len, rows))
        filled = [[self.pad_token_id] * (width - len(row)) + row for row in rows]
        mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
        return {"input_ids": filled, "attention_mask": mask, **({"audio": sounds} if sounds else {})}


def voxtral(folder: Path) -> TransformersAudioLM:
    """Voxtral's model, front end and processor; its tokenizer's package does not go with our numpy."""
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration, VoxtralProcessor

    plain = byte_tokenizer("[AUDIO]")
    tokenizer = TekkenLike(tokenizer_object=plain.backend_tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    ears = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    config = VoxtralConfig(
        audio_config={"model_type": "voxtral_encoder", "num_mel_bins": 16, **ears},
        text_config={"model_type": "llama", "vocab_size": len(tokenizer), "head_dim": 8, **TEXT},
        audio_token_id=tokenizer.convert_tokens_to_ids("[AUDIO]"),
    )
    processor = VoxtralProcessor(WhisperFeatureExtractor(feature_size=16), tokenizer)
    return TransformersAudioLM(loud(VoxtralForConditionalGeneration(config)), processor, name="voxtral")


def whisper(folder: Path) -> Path:
    """A transcriber whose words are noise, but whose mechanics are Whisper's."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor, WhisperTokenizer

    folder.mkdir(parents=True, exist_ok=True)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]
    (folder / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate([*letters, *special])}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = WhisperTokenizer(
        vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"), additional_special_tokens=special[1:]
    )
    start, end = (tokenizer.convert_tokens_to_ids(special[i]) for i in (1, 0))
    config = WhisperConfig(
        vocab_size=len(tokenizer),
        d_model=16,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        num_mel_bins=16,
        max_source_positions=1500,
        max_target_positions=64,
        bos_token_id=start,
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    processor = WhisperProcessor(WhisperFeatureExtractor(feature_size=16), tokenizer)
    return saved(folder, WhisperForConditionalGeneration, config, processor)


def text_lm(folder: Path) -> Path:
    """A tiny Llama with a chat template."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = byte_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
        **TEXT,
    )
    return saved(folder, LlamaForCausalLM, config, tokenizer)


def loud(model: Any) -> Any:
    """Draw weights so large that answers depend on everything that the model is given."""
    torch.manual_seed(0)
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.4)
    return model


def saved(folder: Path, kind: type, config: Any, processor: Any) -> Path:
    """Save a model and its processor as published models are."""
    loud(kind(config)).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
