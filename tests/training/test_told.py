"""What a recipe says of conversations is saved with the model: its system prompt, and how an answer ends."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from ossicle.errors import ConfigError
from ossicle.processor import AudioProcessor
from ossicle.tiny import tiny_decoder_config
from ossicle.training.build import Built, build
from ossicle.training.recipe import load
from ossicle.training.tokenizer import train_bpe
from smallest_recipe import SMALLEST

ASKED = [{"role": "user", "content": "<audio>What is it?"}, {"role": "assistant", "content": "Rain."}]


def built(folder: Path, **model: Any) -> Built:
    recipe = copy.deepcopy(SMALLEST)
    recipe["model"] |= model
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    return build(load(str(folder / "recipe.yaml")).recipe, {})


def base_model(folder: Path, **tokens: str) -> Path:
    """A decoder as base models are published: in bf16, with a tokenizer that knows no conversations."""
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(tiny_decoder_config(), dtype=torch.bfloat16).save_pretrained(folder)
    words = train_bpe(["What is it? Rain."] * 9, 280).backend_tokenizer
    PreTrainedTokenizerFast(tokenizer_object=words, **tokens).save_pretrained(folder)
    return folder


def test_the_system_prompt_goes_where_the_model_goes(tmp_path: Path) -> None:
    system = 'Be "brief" {{ and }} sure.\nSagt {% es %} höflich 🙂'
    processor = built(tmp_path, system=system).processor
    processor.save_pretrained(tmp_path / "model")
    for there in (processor, AudioProcessor.from_pretrained(tmp_path / "model")):
        told = there.tokenizer.decode(there.training_ids(ASKED, [1600])[0])
        assert told.startswith(f"<|system|>{system}<|end|><|user|>")
        asked = there.tokenizer.decode(there.prompt_ids(ASKED[:1], [1600]))
        assert told.startswith(asked)
        own = [{"role": "system", "content": "Sing."}, *ASKED[:1]]
        assert there.tokenizer.decode(there.prompt_ids(own, [1600])).startswith("<|system|>Sing.<|end|><|user|>")


def test_a_base_model_learns_to_end_its_answers(tmp_path: Path) -> None:
    decoder = base_model(tmp_path / "base", eos_token="<|pad|>")
    language_model = {"pretrained": str(decoder), "dtype": "bfloat16"}
    it = built(tmp_path, language_model=language_model, tokenizer={"kind": "pretrained"})
    ids, labels = it.processor.training_ids(ASKED, [1600])
    learned = [token for token in labels if token != -100]
    assert learned[-1] == ids[-1] == it.processor.tokenizer.eos_token_id
    assert it.processor.tokenizer.decode(learned, skip_special_tokens=True) == "Rain."
    assert it.model.language_model.lm_head.weight.dtype == torch.bfloat16
    assert it.model.language_model.model.rotary_emb.inv_freq.dtype == torch.float32


def test_a_tokenizer_without_an_end_is_refused(tmp_path: Path) -> None:
    decoder = base_model(tmp_path / "base", pad_token="<|pad|>")
    with pytest.raises(ConfigError, match="has no end-of-text token"):
        built(tmp_path, language_model={"pretrained": str(decoder)}, tokenizer={"kind": "pretrained"})
