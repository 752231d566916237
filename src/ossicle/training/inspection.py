"""What a recipe or a model is, without weights, data or network: everything is built on the meta device.

recipe ──► model on meta ──► parameters by part; each stage's freezing applied in turn ──► what trains
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ossicle.data.mix import Mix
from ossicle.data.source import Need, SourceContext, source_class
from ossicle.encoders.base import build_encoder
from ossicle.encoders.tensors import expanded
from ossicle.errors import UserError
from ossicle.integration.base import layer_indices
from ossicle.integration.memory import ATTENTION, attention_backend
from ossicle.mixtures.base import too_strong
from ossicle.model import AudioLM, AudioLMConfig
from ossicle.training import estimate, freeze
from ossicle.training.build import outline, start_folder
from ossicle.training.recipe import Loaded, Recipe, Stage
from ossicle.training.run import prepare
from ossicle.types import SAMPLE_RATE_HZ

COUNTED_BELOW = 30_000_000
"""Encoders with fewer weights than this are run once to count their operations."""


def inspect_recipe(loaded: Loaded) -> dict[str, Any]:
    """Return parameters, stages, streams and needs of a recipe.

    Raises:
        ConfigError: The recipe does not fit together.
    """
    model = outline(loaded.recipe)
    context = SourceContext(folder=loaded.folder, seed=loaded.recipe.seed)
    needs = [asdict(need) for need in needs_of(loaded.recipe, context)]
    streams = stream_facts(model)
    work = encoder_work(model, streams)
    return {
        "name": loaded.recipe.name,
        "parameters": _parameters(model),
        "stages": [_stage(model, loaded.recipe, stage, context, work) for stage in loaded.recipe.stages],
        "streams": streams,
        "attention": _attention(model),
        "needs": needs,
    }


def encoder_work(model: AudioLM, streams: list[dict[str, Any]]) -> dict[str, int]:
    """Return operations per second of audio of each encoder, by the stream that owns it."""
    owners = {name for name, stream in model.streams.items() if stream.plan.owner == name}
    return {row["name"]: row["flops_per_s"] for row in streams if row["name"] in owners}


def inspect_folder(folder: Path) -> dict[str, Any]:
    """Return parameters and streams of a model folder; it has no stages and needs nothing.

    Raises:
        CheckpointError: There is no model.
    """
    config = AudioLMConfig.from_pretrained(start_folder(str(folder)))
    with torch.device("meta"):
        model = AudioLM(config)
    facts = {"parameters": _parameters(model), "stages": [], "streams": stream_facts(model), "needs": []}
    facts["attention"] = _attention(model)
    return {"name": str(folder), **facts}


def needs_of(recipe: Recipe, context: SourceContext) -> Iterator[Need]:
    """Yield everything that a recipe wants from outside: published weights first, then data."""
    spec = recipe.model
    if spec.start is not None:
        yield _weights("model to start from", spec.start)
    if spec.language_model is not None and spec.language_model.pretrained is not None:
        yield _weights("language model", spec.language_model.pretrained)
    if spec.tokenizer.pretrained is not None:
        yield _weights("tokenizer", spec.tokenizer.pretrained)
    for stream in spec.streams:
        for name in _pretrained_in(stream.encoder):
            yield _weights(f"encoder of stream '{stream.name}'", name)
        if init := stream.connector.get("init"):
            there = expanded(init).exists()
            yield Need(what=f"start of the connector of stream '{stream.name}'", source=str(init), present=there)
    for stage in recipe.stages:
        if stage.objective.get("transcribe") not in (None, "ctc"):
            yield _weights(f"what transcribes in stage '{stage.name}'", stage.objective["transcribe"])
    for settings in recipe.sources().values():
        yield from source_class(settings.kind).needs(settings, context)


def _pretrained_in(spec: Any) -> list[str]:
    """Return every `pretrained` inside an encoder, the members of a mixture included."""
    if isinstance(spec, list):
        return [name for item in spec for name in _pretrained_in(item)]
    if not isinstance(spec, dict):
        return []
    own = [spec["pretrained"]] if isinstance(spec.get("pretrained"), str) else []
    return own + [name for value in spec.values() for name in _pretrained_in(value)]


def _weights(what: str, name: str) -> Need:
    """Return the need of published weights, looked for in a folder, in the wheel and in the hub's cache."""
    from huggingface_hub import try_to_load_from_cache

    from ossicle.inference.engine import BUNDLED, bundled

    model, of_a_model, _ = name.partition("#")
    folder = bundled(model) if model in BUNDLED else expanded(model)
    if folder.is_dir() or of_a_model:
        size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
        return Need(what=f"{what}: {name}", source=str(folder), present=(folder / "config.json").is_file(), bytes=size)
    cached = name.count("/") == 1 and isinstance(try_to_load_from_cache(name, "config.json"), str)
    return Need(what=f"{what}: {name}", source=f"https://huggingface.co/{name}", present=cached)


def _parameters(model: nn.Module) -> dict[str, Any]:
    rows = freeze.table(model)
    return {"total": sum(row.total for row in rows), "by_part": {row.part: row.total for row in rows}}


def _stage(
    model: AudioLM, recipe: Recipe, stage: Stage, context: SourceContext, work: dict[str, int]
) -> dict[str, Any]:
    """Return what one stage trains, and about what it takes, after freezing the outline as it says."""
    prepare(model, stage)
    rows = freeze.table(model)
    sample = estimate.Sample()
    steps = _steps(recipe, stage, context)
    flops = None if steps is None else steps * stage.batch_size * estimate.train_flops(model, stage, work, sample)
    return {
        "name": stage.name,
        "trainable": sum(row.trainable for row in rows),
        "by_part": {row.part: row.trainable for row in rows},
        "effective_batch": stage.batch_size,
        "learning_rate": stage.learning_rate,
        "steps": steps,
        "epochs": stage.epochs,
        "memory_bytes": estimate.memory_bytes(model, stage, sample),
        "flops": flops,
        "hours": None if flops is None else estimate.hours(flops),
    }


def _steps(recipe: Recipe, stage: Stage, context: SourceContext) -> int | None:
    """Return the steps of a stage; None when they depend on data that is not here."""
    if stage.steps is not None:
        return stage.steps
    settings = recipe.sources()
    used = {entry.source for entry in stage.mix}
    try:
        sources = {name: source_class(settings[name].kind)(settings[name], context) for name in used}
        mix = Mix(sources, stage.mix)
    except UserError:
        return None
    return stage.num_steps(None if mix.endless else mix.num_samples)


def stream_facts(model: AudioLM) -> list[dict[str, Any]]:
    """Return what each stream is made of, how many tokens it gives and what its encoder costs."""
    layers = model.config.text_config.num_hidden_layers
    rows = []
    for name, stream in model.streams.items():
        plan = stream.plan
        chosen = getattr(plan.integration, "layers", "all")
        seen = chosen if isinstance(chosen, int) else sorted(layer_indices(chosen, layers))
        rows.append(
            {
                "name": name,
                "encoder": plan.encoder.kind if plan.owner == name else " + ".join(plan.owners),
                "connector": plan.connector.kind,
                "integration": plan.integration.kind,
                "layers": seen,
                "tokens_per_10s": plan.num_tokens(10 * SAMPLE_RATE_HZ),
                **_work(model.streams[plan.owner].encoder),
            }
        )
    return rows


def _attention(model: AudioLM) -> dict[str, str]:
    """Return by kind of device how the decoder attends; audio rows and gated blocks leave it as it is."""
    attended = model.language_model.config._attn_implementation == ATTENTION
    return {device: attention_backend(device) if attended else "sdpa" for device in ("cpu", "cuda")}


def _work(encoder: Any) -> dict[str, Any]:
    """Return an encoder's work; of a mixture also each member's, base first, and which weak ones are not weak."""
    parts = encoder.feature_parts()
    if parts == [encoder]:
        return {"flops_per_s": flops_per_s(encoder)}
    sizes = [sum(parameter.numel() for parameter in part.parameters()) for part in parts]
    names = [f"base {encoder.config.base_config.kind}", *encoder.names]
    rows = [
        {"name": name, "parameters": size, "flops_per_s": flops_per_s(part)}
        for name, size, part in zip(names, sizes, parts, strict=True)
    ]
    warnings = too_strong(encoder.names, sizes[0], sizes[1:])
    return {"flops_per_s": sum(row["flops_per_s"] for row in rows), "members": rows, "warnings": warnings}


def flops_per_s(encoder: Any) -> int:
    """Return the encoder's operations for a second of audio, one multiply-add being two.

    A small encoder is run once on a full window with random weights, and counted. For a large one it is two operations
    per weight and token, which leaves out attention's products.
    """
    settings = encoder.config
    samples = settings.window_samples
    weights = sum(parameter.numel() for parameter in encoder.parameters() if parameter.dim() > 1)
    pooled = getattr(settings, "pool", 1)  # tokens are pooled after the network has worked on all of them
    total = 2 * weights * settings.window_tokens(samples) * max(1, pooled)
    if weights <= COUNTED_BELOW:
        small = build_encoder({**settings.model_dump(), "pretrained": None}).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            small.encode_windows(torch.zeros(1, samples), torch.tensor([samples]))
        total = counter.get_total_flops()
    return round(total / samples * SAMPLE_RATE_HZ)


def _cost(row: dict[str, Any]) -> str:
    """Return memory and hours of a stage for people."""
    memory = f"{row['memory_bytes'] / 2**30:.2f} GiB"
    if row["hours"] is None:
        return memory
    return f"{memory}, {_time(row['hours']['gpu'])} on a GPU, {_time(row['hours']['laptop'])} on a laptop"


def _time(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 0.95 else f"{max(1, round(60 * hours))} min"


def text_of(facts: dict[str, Any]) -> str:
    """Return the same for people."""
    total = facts["parameters"]["total"]
    lines = [f"{facts['name']}: {total:,} parameters"]
    lines += [f"  {part:<32} {count:>15,}" for part, count in facts["parameters"]["by_part"].items()]
    lines += [
        f"stream {row['name']}: {row['encoder']} → {row['connector']} → {row['integration']}, "
        f"{row['tokens_per_10s']} tokens per 10 s, {row['flops_per_s'] / 1e9:.2f} GFLOPs per second of audio"
        for row in facts["streams"]
    ]
    for row in facts["streams"]:
        for member in row.get("members", []):
            work = f"{member['parameters']:,} parameters, {member['flops_per_s'] / 1e9:.2f} GFLOPs per second of audio"
            lines.append(f"  {row['name']}: {member['name']}: {work}")
        lines += [f"  warning: {warning}" for warning in row.get("warnings", [])]
    lines += [f"attention on {device}: {how}" for device, how in facts["attention"].items()]
    for row in facts["stages"]:
        steps = f"{row['steps']:,} steps" if row["steps"] is not None else f"{row['epochs']} epochs"
        lines.append(
            f"stage {row['name']}: {row['trainable']:,} train ({row['trainable'] / total:.1%}), {steps} of "
            f"{row['effective_batch']}, learning rate {row['learning_rate']:g}, about {_cost(row)}"
        )
        lines += [f"  {part:<32} {count:>15,}" for part, count in row["by_part"].items() if count]
    for need in facts["needs"]:
        lines.append(f"needs {need['what']} ({need['source']}): {'here' if need['present'] else 'NOT HERE'}")
    return "\n".join(lines)
