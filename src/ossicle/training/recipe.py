"""The schema of a recipe: a model, named sources of data, and a curriculum of stages.

    name: nano-smoke
    seed: 0
    model:
      language_model: {architecture: {model_type: llama, hidden_size: 128, …}}        or {pretrained: …, revision: …}
      tokenizer: {kind: bpe, vocab_size: 512}                                         or {pretrained: …}
      streams: [{name: sound, encoder: {kind: cnn}, connector: {kind: mlp}, integration: {kind: attend}}]
    data:
      sounds: {kind: world_sounds, samples: 2000}
    stages:
      - {name: all, train: [encoder, connector], mix: [{source: sounds}], learning_rate: 1e-3, steps: 400}

A recipe is a name that ships with ossicle or a file; `base:` names another one that it changes.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from ossicle import config, registry
from ossicle.config import Document, Section
from ossicle.data.mix import MixEntry, num_batches
from ossicle.data.sample import InputMode
from ossicle.data.source import SourceConfig, source_class
from ossicle.errors import ConfigError, suggest
from ossicle.focus import FocusConfig
from ossicle.streams import StreamConfig, plan
from ossicle.training.freeze import PARTS
from ossicle.training.optim import Schedule
from ossicle.training.quantize import QuantizationSpec

FOLDER = Path(__file__).parent.parent / "recipes"
"""Where the recipes lie that ship with ossicle."""


class LanguageModelSpec(Section):
    """The decoder.

    Attributes:
        architecture: Its sizes as transformers' config has them, with `model_type`; needed without `pretrained`, and
            beside it so that sizes are known without a network.
        pretrained: Hub id or local folder of the weights it starts from; None = random weights.
        revision: Commit of the hub repository.
        dtype: Dtype its weights are held in.
        quantization: Hold the `pretrained` decoder's linear layers in four bits; None = in `dtype`.
    """

    architecture: dict[str, Any] | None = None
    pretrained: str | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantization: QuantizationSpec | None = None

    @model_validator(mode="after")
    def _has_something(self) -> LanguageModelSpec:
        if self.pretrained is None and "model_type" not in (self.architecture or {}):
            raise ValueError("give 'pretrained', or an 'architecture' with its 'model_type'")
        if self.quantization is not None and self.pretrained is None:
            raise ValueError(
                "'quantization' is for 'pretrained' weights; random ones have to train, which 4 bits cannot"
            )
        return self


class TokenizerSpec(Section):
    """The tokenizer.

    Attributes:
        kind: `pretrained`, or `bpe`: byte-level, trained on the recipe's own text.
        pretrained: Hub id or local folder; None = that of the language model.
        revision: Commit of the hub repository.
        vocab_size: Of `bpe`.
    """

    kind: Literal["pretrained", "bpe"] = "pretrained"
    pretrained: str | None = None
    revision: str | None = None
    vocab_size: int = Field(default=512, ge=300)


class LoraSpec(Section):
    """Adapters, under peft's names.

    Attributes:
        r: Rank.
        lora_alpha: Scale is `lora_alpha / r`.
        lora_dropout: On the adapters' input.
        target_modules: Names of the linear layers, or `all-linear`.
        parts: Parts of the model they hang in.
    """

    r: int = Field(default=8, ge=1)
    lora_alpha: float = 16
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str] | Literal["all-linear"] = Field(default_factory=lambda: ["q_proj", "v_proj"])
    parts: list[str] = Field(default_factory=lambda: ["language_model"])


class ModelSpec(Section):
    """What is built: decoder, tokenizer, streams, adapters.

    Attributes:
        language_model: The decoder.
        tokenizer: Its tokenizer.
        streams: As `AudioLMConfig` takes them.
        template: Chat template for a tokenizer that brings none (see `ossicle.chat`); None = its own, or `plain`.
        lora: Adapters; None = none.
        system: System prompt of every conversation that has none of its own.
        focus: What of long recordings is heard; None = all of it, or as in `start`.
        start: Model folder, or name of a shipped model, trained further; it brings decoder, tokenizer and streams.
    """

    language_model: LanguageModelSpec | None = None
    tokenizer: TokenizerSpec = TokenizerSpec()
    streams: list[StreamConfig] = Field(default_factory=list)
    template: str | None = None
    lora: LoraSpec | None = None
    system: str | None = None
    focus: FocusConfig | None = None
    start: str | None = None

    @model_validator(mode="after")
    def _has_parts(self) -> ModelSpec:
        if self.start is None and (self.language_model is None or not self.streams):
            raise ValueError("give 'language_model' and 'streams', or 'start'")
        if self.start is not None and (self.language_model is not None or self.streams):
            raise ValueError("'start' brings decoder and streams with it; leave 'language_model' and 'streams' out")
        return self


class Stage(Section):
    """One stage of a curriculum.

    Attributes:
        name: Its name.
        objective: What is minimised, by `kind`.
        train: Parts, prefixes or regular expressions (see `training.freeze`); all else is frozen.
        mix: What samples are drawn from.
        learning_rate: Peak.
        part_rates: Peak rates of single parts that differ from it.
        batch_size: Samples of one optimiser step.
        micro_batch_size: Samples that go through the model at once; None = `batch_size`.
        steps: Optimiser steps; or give `epochs`.
        epochs: Passes over the mix.
        warmup_steps: Steps of rising learning rate; or give `warmup_ratio`, a share of all steps.
        warmup_ratio: Share of the steps, when `warmup_steps` is 0.
        schedule: How the rate falls.
        weight_decay: Of matrices.
        betas: Of AdamW.
        max_grad_norm: Gradients are clipped to this norm.
        precision: `auto` = bf16 autocast where the machine has it.
        loss_on: `assistant` turns, or `all` text (as LTU-AS does).
        cutoff_tokens: Text beyond so many tokens is cut off, its end-of-answer token with it; None = never.
        compat: `ltu` = batches and loss as the official LTU code makes them (see `data.ltu_batch`).
        input_mode: `joint`; `audio_only` = transcripts are left out; `text_only` = audio is left out.
        audio_dropout: Share of samples whose audio is taken out, so that blind answers are answers.
        audio_shuffle: Share of samples that hear another sample's audio.
        feature_cache: Keep the outputs of frozen encoders on disk.
        feature_dtype: As which numbers they are kept (`ossicle data cache` tells what each loses); `auto` = `fp32`
            where the stage computes in it, else `fp16`.
        gradient_checkpointing: Recompute activations of the decoder.
        compile: Compile norms and feed-forward blocks of the decoder: faster and lighter on a GPU, slow to begin.
        checkpoint_every: Steps between checkpoints; the end of a stage always has one.
    """

    name: str
    objective: dict[str, Any] = Field(default_factory=lambda: {"kind": "next_token"})
    train: list[str] = Field(min_length=1)
    mix: list[MixEntry] = Field(default_factory=list)
    learning_rate: float = Field(gt=0)
    part_rates: dict[str, float] = Field(default_factory=dict)
    batch_size: int = Field(default=32, ge=1)
    micro_batch_size: int | None = Field(default=None, ge=1)
    steps: int | None = Field(default=None, ge=1)
    epochs: float | None = Field(default=None, gt=0)
    warmup_steps: int = Field(default=0, ge=0)
    warmup_ratio: float = Field(default=0.0, ge=0, le=1)
    schedule: Schedule = Schedule()
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    max_grad_norm: float = Field(default=1.0, gt=0)
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    loss_on: Literal["assistant", "all"] = "assistant"
    cutoff_tokens: int | None = Field(default=None, ge=1)
    compat: Literal["ltu"] | None = None
    input_mode: InputMode = "joint"
    audio_dropout: float = Field(default=0.05, ge=0, le=1)
    audio_shuffle: float = Field(default=0.02, ge=0, le=1)
    feature_cache: bool = False
    feature_dtype: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    checkpoint_every: int = Field(default=200, ge=1)

    @model_validator(mode="after")
    def _is_whole(self) -> Stage:
        if (self.steps is None) == (self.epochs is None):
            raise ValueError("give either 'steps' or 'epochs'")
        if self.batch_size % self.micro:
            raise ValueError(f"'batch_size' {self.batch_size} is no multiple of 'micro_batch_size' {self.micro}")
        if self.audio_dropout + self.audio_shuffle > 1:
            raise ValueError("'audio_dropout' and 'audio_shuffle' are together more than 1")
        return self

    @property
    def micro(self) -> int:
        """Samples that go through the model at once."""
        return self.micro_batch_size or self.batch_size

    @property
    def accumulation(self) -> int:
        """Micro-batches of one optimiser step."""
        return self.batch_size // self.micro

    def num_steps(self, num_samples: int | None) -> int:
        """Return the optimiser steps, given the samples of one epoch (None = endless).

        Raises:
            ConfigError: `epochs` of an endless mix.
        """
        if self.steps is not None:
            return self.steps
        if not num_samples or self.epochs is None:
            raise ConfigError(f"stage '{self.name}': an endless source has no epochs; give 'steps'")
        return num_batches(self.epochs, num_samples, self.batch_size)

    def warmup(self, steps: int) -> int:
        """Return the steps of warm-up among `steps`."""
        return self.warmup_steps or math.ceil(self.warmup_ratio * steps)


class Recipe(Section):
    """Everything a run is made from.

    Attributes:
        name: Its name.
        seed: Of weights, order and generators.
        model: What is built.
        data: Sources by name, each with its `kind`.
        stages: The curriculum.
        report_to: Trackers beside the log, which is always written.
        keep_checkpoints: Newest checkpoints kept within a run.
        parallel: Several processes hold the whole model each (`replicate`), or a share of its decoder (`shard`: FSDP2).
        description: One line for people.
    """

    name: str
    description: str = ""
    seed: int = 0
    model: ModelSpec
    data: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stages: list[Stage] = Field(min_length=1)
    report_to: list[Literal["tensorboard", "wandb"]] = Field(default_factory=list)
    keep_checkpoints: int = Field(default=2, ge=1)
    parallel: Literal["replicate", "shard"] = "replicate"

    @model_validator(mode="after")
    def _can_be_cut(self) -> Recipe:
        decoder = self.model.language_model
        if self.parallel == "shard" and decoder is not None and decoder.quantization is not None:
            raise ValueError("'parallel: shard' cannot cut a decoder in 4 bits; take 'quantization' out, or replicate")
        return self

    def sources(self) -> dict[str, SourceConfig]:
        """Return the checked settings of every source."""
        return {
            name: config.validate(source_class(spec.get("kind", "")).Config, spec, where=f"data.{name}")
            for name, spec in self.data.items()
        }

    def streams(self) -> list[dict[str, Any]]:
        """Return the streams as `AudioLMConfig` takes them."""
        return [stream.model_dump() for stream in self.model.streams]


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A checked recipe, and the folder that its relative paths start from."""

    recipe: Recipe
    folder: Path


def shipped() -> list[str]:
    """Return the names of the recipes that ship with ossicle."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find(name: str) -> Path:
    """Return the file of a recipe, by path or by shipped name.

    Raises:
        ConfigError: Neither.
    """
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        raise ConfigError(f"recipe '{name}': no such file; 'ossicle list recipes' shows those that ship")
    inside = FOLDER / f"{name}.yaml"
    if not inside.is_file():
        raise ConfigError(f"recipe '{name}': neither a file nor a recipe of ossicle; {suggest(name, shipped())}")
    return inside


def load(name: str, overrides: Sequence[str] = ()) -> Loaded:
    """Return a checked recipe: the schema, every part's own settings, and what they say about each other.

    Args:
        name: A file, or the name of a shipped recipe.
        overrides: `a.b=c`, applied last.

    Raises:
        ConfigError: One line with file and line.
    """
    path = find(name)
    document = config.read(path, find_base=lambda base, by: _base(base, by))
    for override in overrides:
        document.set(override)
    recipe = document.check(Recipe)
    check_parts(recipe, document)
    return Loaded(recipe=recipe, folder=path.parent)


def _base(name: str, named_by: Path) -> Path:
    beside = named_by.parent / name
    return beside if beside.is_file() else FOLDER / f"{name.removesuffix('.yaml')}.yaml"


def check_parts(recipe: Recipe, document: Document) -> None:
    """Check what the schema leaves open: each part by its kind, each stage against the sources.

    Raises:
        ConfigError: With file and line.
    """
    for number, stream in enumerate(document.values["model"].get("streams") or []):
        for room, key in (("encoders", "encoder"), ("connectors", "connector"), ("integration", "integration")):
            if isinstance(stream.get(key), dict):
                _check_part(document, ("model", "streams", number, key), room)
    if recipe.model.streams:
        _located(document, ("model", "streams"), lambda: plan(recipe.streams()))
    for number, stage in enumerate(recipe.stages):
        at = ("stages", number)
        if "objective" in document.values["stages"][number]:
            _check_part(document, (*at, "objective"), "training.objectives")
        for place, entry in enumerate(stage.mix):
            if entry.source not in recipe.data:
                raise ConfigError(
                    f"{document.place((*at, 'mix', place, 'source'))}: '{entry.source}' is no source under 'data'; "
                    f"{suggest(entry.source, list(recipe.data))}"
                )
        for place, pattern in enumerate(stage.train):
            near = difflib.get_close_matches(pattern, PARTS, n=1, cutoff=0.8)
            if pattern not in PARTS and near:
                where = document.place((*at, "train", place))
                raise ConfigError(f"{where}: '{pattern}' is no part of a model; did you mean '{near[0]}'?")
        beside = [s.name for s in recipe.model.streams if s.integration.get("kind") != "prepend"]
        if stage.compat == "ltu" and beside:
            raise ConfigError(
                f"{document.place((*at, 'compat'))}: compat: ltu is for prepended audio, but stream '{beside[0]}' "
                "is not prepended; set integration: {kind: prepend}, or take compat out"
            )
        names = [other.name for other in recipe.stages[:number]]
        if stage.name in names:
            raise ConfigError(f"{document.place((*at, 'name'))}: two stages are called '{stage.name}'")
    for name, spec in recipe.data.items():
        found = _located(document, ("data", name), lambda spec=spec: source_class(str(spec.get("kind", ""))))
        document.check(found.Config, spec, at=("data", name))


def _check_part(document: Document, at: config.Location, room: str) -> None:
    spec: Any = document.values
    for step in at:
        spec = spec[step]
    if not isinstance(spec, dict) or "kind" not in spec:
        known = ", ".join(sorted(registry.names(room)))
        raise ConfigError(f"{document.place(at)}: '{config.dotted(at)}' has no 'kind'; known: {known}")
    found = _located(document, (*at, "kind"), lambda: registry.lookup(room, spec["kind"]))
    document.check(found.Config, spec, at=at)


def _located(document: Document, at: config.Location, ask: Any) -> Any:
    """Return what `ask` returns; its mistake gets the place it was written at."""
    try:
        return ask()
    except ConfigError as error:
        raise ConfigError(f"{document.place(at)}: {error}") from None
