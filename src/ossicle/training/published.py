"""Published checkpoints of LTU and LTU-AS to a model of ossicle: names mapped, every tensor accounted for.

    base_model.model.model.audio_encoder.time_tr.…     streams.audio.connector.time_tr.…        LTU-AS
    base_model.model.model.audio_encoder.blocks_a.…    streams.audio.encoder.blocks.…           LTU
    …model.audio_proj.1.weight                         streams.audio.connector.<its last linear>
    …self_attn.q_proj.lora_A[.default].weight          language_model.….q_proj.lora_A.default.weight
    …model.layers.…, model.norm, lm_head               language_model.…

What fits is decided on the meta device from names and shapes, before a weight is copied. A checkpoint without the
decoder's own weights is laid over `model.language_model.pretrained`. Source: official code (YuanGongND/ltu).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ossicle.encoders.tensors import read_tensors
from ossicle.errors import CheckpointError
from ossicle.training import lora
from ossicle.training.build import Built, build, outline
from ossicle.training.recipe import Loaded, Recipe

WRAPPED = re.compile(r"^(?:module\.)?(?:base_model\.model\.)?")
WITHOUT_EFFECT = re.compile(r"rotary_emb\.inv_freq$")
"""Tables that old versions of transformers saved and that are computed now."""
ROWS_PER_TOKEN = ("embed_tokens.weight", "lm_head.weight")
"""Tensors with a row per token; ours have two more, for the marker and the slot."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of every tensor.

    Attributes:
        loaded: Published name → ours.
        missing: Ours that the checkpoint should have and has not.
        unexpected: Published ones that the recipe's model has no place for.
        misshapen: `name (published shape, expected shape)`.
        ignored: Published ones that have no effect.
        decoder: The checkpoint holds the decoder's own weights too.
    """

    loaded: dict[str, str] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    misshapen: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    decoder: bool = False

    def problem(self) -> str:
        """Return what does not fit in one line, empty when everything does."""
        kinds = {"missing": self.missing, "unexpected": self.unexpected, "of another shape": self.misshapen}
        parts = [f"{len(names)} {kind}, first {names[0]}" for kind, names in kinds.items() if names]
        return "; ".join(parts)

    def facts(self) -> dict[str, Any]:
        """Return it for JSON."""
        lists = {key: getattr(self, key) for key in ("missing", "unexpected", "misshapen", "ignored")}
        return {"loaded": self.loaded, **lists, "decoder": self.decoder}


def our_name(published: str, model: Any) -> str | None:
    """Return our name of a published tensor, None where the model has no such part.

    Args:
        published: Its name in the checkpoint.
        model: The `AudioLM` it is for; one stream, adapters hung in.
    """
    name = WRAPPED.sub("", published)
    stream_name, stream = next(iter(model.streams.items()))
    if found := re.match(r"(?:model\.)?audio_encoder\.((?:time_tr|layer_tr|down_layer)\..+)$", name):
        return f"streams.{stream_name}.connector.{found[1]}"
    if re.match(r"(?:model\.)?audio_encoder\.", name):
        translate = getattr(stream.encoder, "our_name", None)
        inside = translate(name) if translate else None
        return None if inside is None else f"streams.{stream_name}.encoder.{inside}"
    if found := re.match(r"(?:model\.)?audio_proj\.1\.(weight|bias)$", name):
        last = next((n for n in ("projection", "layers") if hasattr(stream.connector, n)), "projection")
        return f"streams.{stream_name}.connector.{last}.1.{found[1]}"
    name = re.sub(r"\.(lora_[AB])(?:\.default)?\.weight$", r".\1.default.weight", name)
    return f"language_model.{name}"


def compare(state: dict[str, Tensor], model: Any) -> Report:
    """Return what of a checkpoint fits a model, and what does not.

    Args:
        state: Published tensors.
        model: From `build.outline`, or a real one.
    """
    ours = dict(model.state_dict())
    loaded: dict[str, str] = {}
    unexpected, misshapen, ignored = [], [], []
    for published, tensor in state.items():
        name = our_name(published, model)
        if name is not None and name not in ours:
            stem, _, last = name.rpartition(".")
            name = f"{stem}.base_layer.{last}"
        if WITHOUT_EFFECT.search(published):
            ignored.append(published)
        elif name is None or name not in ours:
            unexpected.append(published)
        elif not _fits(name, tensor.shape, ours[name].shape):
            misshapen.append(f"{published} ({list(tensor.shape)}, expected {list(ours[name].shape)})")
        else:
            loaded[published] = name
    there = set(loaded.values())
    decoder = any(name.startswith("language_model.") and "lora_" not in name for name in there)
    wanted = [name for name in ours if _wanted(name, model, decoder)]
    lost = {entry.split(" ")[0] for entry in misshapen}
    missing = sorted(set(wanted) - there - {str(our_name(name, model)) for name in lost})
    found = {"unexpected": sorted(unexpected), "misshapen": misshapen, "ignored": sorted(ignored)}
    return Report(loaded=loaded, missing=missing, decoder=decoder, **found)


def _fits(name: str, published: torch.Size, ours: torch.Size) -> bool:
    if name.endswith(ROWS_PER_TOKEN) and len(published) == len(ours) == 2:
        return published[1] == ours[1]  # an outline knows no tokenizer, so rows may differ
    return published == ours


def _wanted(name: str, model: Any, decoder: bool) -> bool:
    """Return whether a checkpoint should hold one of our tensors."""
    if name.startswith("language_model."):
        return "lora_" in name or decoder
    part = name.split(".")[2]
    return part == "connector" or (part == "encoder" and hasattr(model.streams[name.split(".")[1]].encoder, "our_name"))


def import_ltu(loaded: Loaded, checkpoints: Sequence[Path], *, partial: bool = False) -> tuple[Built, Report]:
    """Return the model of a recipe with the weights of a published checkpoint; adapters are folded in.

    Args:
        loaded: Recipe `ltu`, `ltu-as`, or one of its form.
        checkpoints: Files or folders, a later one wins: the authors' base bundle and the checkpoint over it.
        partial: Go on when tensors are missing or left over; what is missing keeps its starting weights.

    Raises:
        CheckpointError: What does not fit, in one line, before anything is built.

    Example:
        >>> import_ltu(load("ltu-as"), [Path("ltuas_long_noqa_a6.bin")])  # doctest: +SKIP
    """
    outlined = outline(loaded.recipe)
    if len(outlined.streams) != 1:
        raise CheckpointError(f"recipe '{loaded.recipe.name}' has {len(outlined.streams)} streams; LTU's form has one")
    state = read_tensors(checkpoints)
    report = compare(state, outlined)
    named = ", ".join(str(path) for path in checkpoints)
    if not report.loaded or (report.problem() and not partial):
        hint = "give all files of the checkpoint, another recipe, or --partial"
        raise CheckpointError(f"{named} does not fit recipe '{loaded.recipe.name}': {report.problem()}; {hint}")
    built = build(_recipe(loaded.recipe, report, checkpoints), {})
    with torch.no_grad():
        ours = dict(built.model.state_dict())
        for published, name in report.loaded.items():
            rows = min(len(state[published]), len(ours[name])) if ours[name].dim() else None
            ours[name][:rows].copy_(state[published][:rows]) if rows else ours[name].copy_(state[published])
    lora.fold(built.adapters)
    return built, report


def _recipe(recipe: Recipe, report: Report, checkpoints: Sequence[Path]) -> Recipe:
    """Return the recipe without what the checkpoint brings itself."""
    values = recipe.model_dump()
    language, tokenizer = values["model"]["language_model"], values["model"]["tokenizer"]
    folders = [path for path in checkpoints if (path / "tokenizer_config.json").is_file()]
    if tokenizer["pretrained"] is None:
        tokenizer["pretrained"] = str(folders[-1]) if folders else language["pretrained"]
    if report.decoder and not any(name.startswith("language_model.") for name in report.missing):
        language |= {"pretrained": None, "revision": None}
    for stream in values["model"]["streams"]:
        stream["connector"] = {**stream["connector"], **({"init": None} if "init" in stream["connector"] else {})}
    return Recipe.model_validate(values)


def write_model(built: Built, folder: Path) -> None:
    """Write the model and its processor; the folder appears whole or not at all."""
    import shutil
    import tempfile

    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        built.model.eval().save_pretrained(aside)
        built.processor.save_pretrained(aside)
        aside.chmod(0o755)
        if folder.exists():
            folder.rmdir()
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
