"""Low-rank adapters, hung in from outside and folded in again.

    W x  ──►  W x + (alpha / r) · B A x          A (r, in) random, B (out, r) zero: nothing changes at the start

They hang in every linear layer whose name ends in one of `target_modules`, also where `attend` projects audio: keys and
values of audio pass the same modules. They are held in float32, whatever the type of W. Source: Hu et al., arXiv
2106.09685; the layers are peft's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from ossicle.errors import ConfigError, require


def add(model: nn.Module, settings: dict[str, Any], parts: Sequence[str]) -> list[Any]:
    """Hang adapters into parts of a model.

    Args:
        model: The whole model.
        settings: `r`, `lora_alpha`, `lora_dropout`, `target_modules`, as peft names them.
        parts: Dotted names of parts, for example `language_model`.

    Returns:
        peft's tuners, for `fold`.

    Raises:
        ConfigError: No such part, or no such layer in it.
        MissingExtraError: peft is not installed.
    """
    peft = require("peft", "train")
    tuners = []
    for part in parts:
        try:
            inside = model.get_submodule(part)
        except AttributeError:
            known = ", ".join(name for name, _ in model.named_children())
            raise ConfigError(f"lora: the model has no part '{part}'; it has {known}") from None
        targets = _linears(inside) if settings["target_modules"] == "all-linear" else settings["target_modules"]
        config = peft.LoraConfig(**{**settings, "target_modules": targets})
        try:
            tuners.append(peft.tuners.lora.LoraModel(inside, {"default": config}, "default"))
        except ValueError as error:
            raise ConfigError(f"lora: {part}: {str(error).splitlines()[0]}") from None
        for name, parameter in inside.named_parameters():
            if "lora_" in name:  # small steps are lost in the bf16 of a decoder, and so is the decay of their moments
                parameter.data = parameter.data.float()
    return tuners


def fold(tuners: Sequence[Any]) -> None:
    """Fold the adapters into the weights they hang on and take them out; the model computes what it did before."""
    for tuner in tuners:
        tuner.merge_and_unload()


def _linears(part: nn.Module) -> list[str]:
    """Return the last names of the linear layers of a part, its output head left out."""
    head = part.get_output_embeddings() if hasattr(part, "get_output_embeddings") else None
    return sorted(
        {name.split(".")[-1] for name, m in part.named_modules() if isinstance(m, nn.Linear) and m is not head}
    )
