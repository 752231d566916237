"""A recipe to a model and its processor: with weights to train, or on the meta device to look at.

tokenizer (pretrained | bpe on the recipe's text) ──► AudioLMConfig ──► AudioLM.new ──► adapters
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from ossicle.chat import template, with_system
from ossicle.data.source import Source
from ossicle.errors import CheckpointError, ConfigError
from ossicle.inference.engine import BUNDLED, bundled
from ossicle.model import AudioLM, AudioLMConfig, cast, check_config
from ossicle.processor import AudioProcessor
from ossicle.training import lora, quantize
from ossicle.training.recipe import LanguageModelSpec, ModelSpec, Recipe
from ossicle.training.tokenizer import train_bpe


@dataclass(frozen=True, slots=True, kw_only=True)
class Built:
    """A model to train.

    Attributes:
        model: With adapters hung in.
        processor: Its processor.
        adapters: peft's tuners, for folding at the end.
        pretrained: Prefixes of parameters that were read from published weights and can be read again.
    """

    model: AudioLM
    processor: AudioProcessor
    adapters: list[Any]
    pretrained: tuple[str, ...] = ()


def build(recipe: Recipe, sources: Mapping[str, Source]) -> Built:
    """Return the model of a recipe with its starting weights, the same for the same recipe.

    Raises:
        ConfigError: Something does not fit.
        CheckpointError: Published weights are not here.
    """
    torch.manual_seed(recipe.seed)
    spec = recipe.model
    if spec.start is not None:
        folder = start_folder(spec.start)
        model, processor = AudioLM.from_pretrained(folder, dtype=torch.float32), AudioProcessor.from_pretrained(folder)
        model.config.focus = _focus(spec) or model.config.focus
        check_config(model.config)
        _instruct(processor, spec.system)
        return Built(model=model, processor=processor, adapters=_adapt(model, spec))
    assert spec.language_model is not None
    tokenizer = _tokenizer(spec, (text for source in sources.values() for text in source.texts()))
    marker, slot = AudioProcessor.add_tokens(tokenizer)
    decoder = _pretrained_decoder(spec.language_model) if spec.language_model.pretrained else None
    if decoder is None:
        text_config = _text_config(spec.language_model, max(len(tokenizer), _bpe_size(spec)), tokenizer)
    else:
        if len(tokenizer) > decoder.get_input_embeddings().weight.shape[0]:
            decoder.resize_token_embeddings(len(tokenizer))
        text_config = decoder.config
    config = AudioLMConfig(text_config, recipe.streams(), marker, slot, focus=_focus(spec))
    check_config(config)
    torch.manual_seed(recipe.seed)
    model = AudioLM.new(config, decoder)
    if spec.language_model.quantization is None:
        cast(model.language_model, getattr(torch, spec.language_model.dtype))
    processor = AudioProcessor(tokenizer, model.config.streams)
    _instruct(processor, spec.system)
    read = ["language_model."] if decoder is not None else []
    owned = [stream for stream in spec.streams if isinstance(stream.encoder, dict)]
    read += [f"streams.{stream.name}.encoder." for stream in owned if stream.encoder.get("pretrained")]
    return Built(model=model, processor=processor, adapters=_adapt(model, spec), pretrained=tuple(read))


def outline(recipe: Recipe) -> AudioLM:
    """Return the model of a recipe on the meta device: names and shapes without weights, network or data.

    Raises:
        ConfigError: The decoder's sizes are neither in the recipe nor in a local folder.
    """
    spec = recipe.model
    if spec.start is not None:
        config = AudioLMConfig.from_pretrained(start_folder(spec.start))
    else:
        assert spec.language_model is not None
        config = AudioLMConfig(_text_config(spec.language_model, _bpe_size(spec)), recipe.streams(), focus=_focus(spec))
    with torch.device("meta"):
        model = AudioLM(config)
        _adapt(model, spec)
    return model


def _instruct(processor: AudioProcessor, system: str | None) -> None:
    """Let the template that is saved begin every conversation that has no system prompt of its own with this one."""
    if system is not None:
        told = with_system(str(processor.chat_template), system)
        processor.chat_template = processor.tokenizer.chat_template = told


def _focus(spec: ModelSpec) -> dict[str, Any] | None:
    return None if spec.focus is None else spec.focus.model_dump()


def start_folder(start: str) -> Path:
    """Return the folder of a model to start from, by name or path.

    Raises:
        CheckpointError: There is none.
    """
    folder = bundled(start) if start in BUNDLED else Path(start).expanduser()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"model.start '{start}': no folder with a config.json; give one, or {', '.join(BUNDLED)}")
    return folder


def _bpe_size(spec: ModelSpec) -> int:
    return spec.tokenizer.vocab_size if spec.tokenizer.kind == "bpe" else 0


def _adapt(model: AudioLM, spec: ModelSpec) -> list[Any]:
    if spec.lora is None:
        return []
    return lora.add(model, spec.lora.model_dump(exclude={"parts"}), spec.lora.parts)


def _tokenizer(spec: ModelSpec, texts: Iterable[str]) -> Any:
    """Return the tokenizer, with a chat template."""
    wanted = spec.tokenizer
    if wanted.kind == "bpe":
        return train_bpe(texts, wanted.vocab_size, chat_template=spec.template or "plain")
    assert spec.language_model is not None
    name = wanted.pretrained or spec.language_model.pretrained
    if name is None:
        raise ConfigError("model.tokenizer: name a 'pretrained' one, or use {kind: bpe, vocab_size: 512}")
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, revision=wanted.revision or spec.language_model.revision)
    except OSError as error:
        raise CheckpointError(f"tokenizer '{name}' cannot be read: {str(error).splitlines()[0]}") from None
    if spec.template is not None or tokenizer.chat_template is None:
        tokenizer.chat_template = template(spec.template or "plain")
        if tokenizer.eos_token is None:
            raise ConfigError(f"tokenizer '{name}' has no end-of-text token, so no answer would learn to end")
    return tokenizer


def _pretrained_decoder(spec: LanguageModelSpec) -> Any:
    held = {} if spec.quantization is None else {"quantization_config": quantize.settings(spec.quantization)}
    try:
        return AutoModelForCausalLM.from_pretrained(
            spec.pretrained, revision=spec.revision, dtype=getattr(torch, spec.dtype), use_safetensors=True, **held
        )
    except OSError as error:
        raise CheckpointError(
            f"language model '{spec.pretrained}' cannot be read: {str(error).splitlines()[0]}"
        ) from None


def _text_config(spec: LanguageModelSpec, vocab_size: int, tokenizer: Any = None) -> PreTrainedConfig:
    """Return the decoder's config; `vocab_size` is the least it may have."""
    if spec.architecture is None:
        folder = Path(str(spec.pretrained)).expanduser()
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"model.language_model: '{spec.pretrained}' is not a local folder, so its sizes are unknown offline; "
                "write them under 'architecture'"
            )
        return AutoConfig.from_pretrained(folder)
    settings = dict(spec.architecture)
    settings["vocab_size"] = max(vocab_size, settings.get("vocab_size", 0))
    if tokenizer is not None:
        settings.setdefault("pad_token_id", tokenizer.pad_token_id)
        settings.setdefault("eos_token_id", tokenizer.eos_token_id)
        settings.setdefault("bos_token_id", tokenizer.bos_token_id)
    try:
        return AutoConfig.for_model(**settings)
    except (ValueError, TypeError, StrictDataclassError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ConfigError(f"model.language_model.architecture: {reason}") from None
