"""A recipe cut to a size that any machine trains in seconds: depth, width and steps only.

Every class, stage, freeze rule, router and reader stays, and so does the order of things; published weights become
random ones of the same family. What learns nothing at this size still shows that everything is wired.
"""

from __future__ import annotations

import math
from typing import Any

from ossicle import registry
from ossicle.tiny import TINY_ENCODERS
from ossicle.training.recipe import Loaded, Recipe

SMALL = {
    "hidden_size": 64,
    "d_model": 64,
    "dim": 48,
    "width": 48,
    "embed_dim": 48,
    "intermediate_size": 128,
    "encoder_ffn_dim": 128,
    "ffn_dim": 128,
    "head_dim": 16,
    "num_hidden_layers": 4,
    "encoder_layers": 3,
    "depth": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "encoder_attention_heads": 4,
    "heads": 4,
    "num_layers": 3,
    "hidden": 64,
    "prompt_dim": 64,
    "vocab_size": 600,
}
"""Setting to the most it may be in a small run, wherever it stands in a model's settings."""
SMALL_CHANNELS = 16
STEPS = 3
BATCH = 4
SOUNDS = 40
TINY_DEPTH = 2
"""Every tiny encoder has at least so many layers."""
WEIGHTLESS = ("pretrained", "revision", "init")


def shrink(loaded: Loaded) -> Loaded:
    """Return the recipe with small parts, few steps and small batches.

    Example:
        >>> from ossicle.training.recipe import load
        >>> shrink(load("nano-smoke")).recipe.stages[0].steps
        3
    """
    values = loaded.recipe.model_dump()
    model = values["model"]
    if model["language_model"] is not None:
        model["language_model"]["architecture"] = _decoder(model["language_model"]["architecture"])
        model["language_model"] |= {"pretrained": None, "revision": None, "dtype": "float32"}
        model["language_model"]["quantization"] = None
        model["tokenizer"] = {"kind": "bpe", "vocab_size": 400}
    layers = (model["language_model"] or {}).get("architecture", {}).get("num_hidden_layers")
    for stream in model["streams"]:
        if isinstance(stream["encoder"], dict):
            stream["encoder"] = _encoder(stream["encoder"])
        stream["connector"] = _smaller(registry.parse("connectors", stream["connector"]).model_dump())
        if layers is not None:
            stream["integration"] = _fewer_layers(stream["integration"], layers)
    for stage in values["stages"]:
        micro = min(stage["micro_batch_size"] or stage["batch_size"], BATCH // 2)
        pieces = 1 if stage["micro_batch_size"] in (None, stage["batch_size"]) else 2
        stage |= {"steps": STEPS, "epochs": None, "batch_size": micro * pieces, "micro_batch_size": micro}
        stage |= {"warmup_steps": min(stage["warmup_steps"], 1), "checkpoint_every": STEPS}
        stage["objective"] = _fewer_sounds(stage["objective"])
        stage["mix"] = [{**entry, "max_samples": min(entry["max_samples"] or 64, 64)} for entry in stage["mix"]]
    return Loaded(recipe=Recipe.model_validate(values), folder=loaded.folder)


def _fewer_sounds(objective: dict[str, Any]) -> dict[str, Any]:
    """Return an objective that synthesises a handful of sounds where it would make thousands."""
    known = registry.parse("training.objectives", objective).model_dump()
    if "synthesised" not in known:
        return objective
    return {**objective, "synthesised": {name: min(count, SOUNDS) for name, count in known["synthesised"].items()}}


def _encoder(spec: dict[str, Any]) -> dict[str, Any]:
    """Return an encoder, or a mixture and its members, at a small size; taps keep their relative depth."""
    if isinstance(spec.get("base"), dict):
        pool = [_encoder(member) for member in spec.get("pool", [])]
        return {**_smaller(spec), "base": _encoder(spec["base"]), "pool": pool}
    tiny = TINY_ENCODERS.get(spec["kind"], {})
    sizes = {key: value for key, value in tiny.items() if key not in ("kind", "window_s", "num_mels")}
    small = {**_smaller(spec), **sizes}
    if isinstance(small.get("layers"), list):
        small["layers"] = _spread(small["layers"], TINY_DEPTH)
    return small


def _decoder(architecture: dict[str, Any] | None) -> dict[str, Any]:
    """Return small sizes for a decoder of the same family, its proportions of heads kept."""
    if architecture is None:
        return {"model_type": "llama", **{key: SMALL[key] for key in DECODER_KEYS}}
    small = _smaller(architecture)
    heads, groups = architecture.get("num_attention_heads"), architecture.get("num_key_value_heads")
    if heads and groups:
        small["num_key_value_heads"] = max(1, small["num_attention_heads"] * groups // heads)
    return {**small, "vocab_size": SMALL["vocab_size"]}


DECODER_KEYS = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")


def _smaller(value: Any) -> Any:
    """Return settings with every known size cut, at any depth; published weights are left behind."""
    if isinstance(value, list):
        return [_smaller(item) for item in value]
    if not isinstance(value, dict):
        return value
    out: dict[str, Any] = {}
    for key, item in value.items():
        if key in WEIGHTLESS and isinstance(item, str):
            out[key] = None
        elif key in SMALL and isinstance(item, int) and not isinstance(item, bool):
            out[key] = min(item, SMALL[key])
        elif key == "channels":
            out[key] = [min(width, SMALL_CHANNELS) for width in item]
        elif key == "layers" and isinstance(item, list):
            out[key] = _spread(item, SMALL["num_hidden_layers"])
        else:
            out[key] = _smaller(item)
    return out


def _fewer_layers(integration: dict[str, Any], layers: int) -> dict[str, Any]:
    """Return an integration whose layers lie inside a shallower decoder."""
    chosen = integration.get("layers")
    if isinstance(chosen, list):
        return {**integration, "layers": _spread(chosen, layers)}
    if isinstance(chosen, dict) and "skip_first" in chosen:
        return {**integration, "layers": {"skip_first": min(chosen["skip_first"], layers - 1)}}
    return integration


def _spread(chosen: list[int], layers: int) -> list[int]:
    """Return the same relative places in `layers` layers, without repeats."""
    if not chosen or max(chosen) < layers:
        return chosen
    top = max(chosen) + 1
    return sorted({math.floor(index * layers / top) for index in chosen})
