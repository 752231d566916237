"""What trains: the only file that sets `requires_grad`. A stage names parts, prefixes or regular expressions.

    connector          streams.<any>.connector              streams.sound.encoder     that part of that stream
    encoder            streams.<any>.encoder, no router     model\\.layers\\.3          a regular expression, for names
    integration        streams.<any>.integration
    router             routers inside mixtures
    lora               adapters, wherever they hang
    language_model     the decoder without its adapters

A frozen part is put in `eval()`: its dropout is off and its running statistics stand still.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from ossicle.errors import ConfigError, suggest

ROUTER = re.compile(r"(^|\.)\w*router\w*(\.|$)")
LORA = re.compile(r"(^|\.)lora_")
STREAM_PART = re.compile(r"^(streams\.[^.]+\.(?:encoder|connector|integration))\.")
PARTS = ("connector", "encoder", "integration", "router", "lora", "language_model")


@dataclass(frozen=True, slots=True, kw_only=True)
class PartCount:
    """Parameters of one part: how many there are, and how many train."""

    part: str
    total: int
    trainable: int


def part_of(name: str) -> str:
    """Return the part that a parameter belongs to, as the table names it.

    Example:
        >>> part_of("streams.sound.connector.layers.0.weight")
        'streams.sound.connector'
    """
    if LORA.search(name):
        return "lora"
    if ROUTER.search(name):
        return "router"
    found = STREAM_PART.match(name)
    return found.group(1) if found else name.split(".")[0]


def matches(name: str, pattern: str) -> bool:
    """Return whether a parameter is meant by a part name, a dotted prefix or a regular expression."""
    part = part_of(name)
    if pattern in PARTS:
        return part == pattern or (part.startswith("streams.") and part.endswith(f".{pattern}"))
    if name == pattern or name.startswith(f"{pattern}."):
        return not LORA.search(name) or "lora_" in pattern
    return pattern not in PARTS and re.search(pattern, name) is not None


def set_trainable(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Let exactly the named parameters train, freeze all others, and set the modes that go with it.

    Returns:
        Names of the parameters that train.

    Raises:
        ConfigError: A pattern is no regular expression, or nothing in the model answers to it.
    """
    names = [name for name, _ in model.named_parameters()]
    chosen: set[str] = set()
    for pattern in patterns:
        try:
            found = {name for name in names if matches(name, pattern)}
        except re.error as error:
            raise ConfigError(f"train: '{pattern}' is neither a part nor a regular expression ({error})") from None
        if not found:
            known = sorted({*PARTS, *(part_of(name) for name in names)})
            raise ConfigError(f"train: nothing in this model is called '{pattern}'; {suggest(pattern, known)}")
        chosen |= found
    for name, parameter in model.named_parameters():
        if name in chosen and not parameter.is_floating_point():
            raise ConfigError(f"train: '{name}' is held in 4 bits and cannot train; train 'lora' on it instead")
        parameter.requires_grad_(name in chosen)
    set_modes(model)
    return [name for name in names if name in chosen]


def set_modes(model: nn.Module) -> None:
    """Put the model in `train()`, and every module whose parameters are all frozen in `eval()`."""
    model.train()
    _still(model, top=True)


def _still(module: nn.Module, *, top: bool = False) -> None:
    parameters = list(module.parameters())
    if not top and parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        _still(child)


def table(model: nn.Module) -> list[PartCount]:
    """Return how many parameters each part has, and how many of them train, in the model's order."""
    total: dict[str, int] = {}
    trainable: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        part = part_of(name)
        total[part] = total.get(part, 0) + parameter.numel()
        trainable[part] = trainable.get(part, 0) + (parameter.numel() if parameter.requires_grad else 0)
    return [PartCount(part=part, total=total[part], trainable=trainable[part]) for part in total]


def table_text(rows: Sequence[PartCount], stage: str) -> str:
    """Return the table for people, its sum last."""
    width = max(len(row.part) for row in rows)
    lines = [f"stage '{stage}' trains:"]
    both = [*rows, PartCount(part="total", total=sum(r.total for r in rows), trainable=sum(r.trainable for r in rows))]
    for row in both:
        share = row.trainable / row.total if row.total else 0.0
        lines.append(f"  {row.part:<{width}}  {row.trainable:>14,} of {row.total:>14,}  {share:>6.1%}")
    return "\n".join(lines)
