"""Options that several verbs share, so that they read the same everywhere.

Example:
    def ask(clips: list[str], json: JsonOption = False, device: DeviceOption = Device.auto) -> None: ...
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Device(StrEnum):
    """Where to compute; `auto` takes CUDA, else Apple's MPS, else the CPU."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"
    mps = "mps"


class Dtype(StrEnum):
    """Number format of weights and activations; `auto` follows the device and the checkpoint."""

    auto = "auto"
    float32 = "float32"
    bfloat16 = "bfloat16"
    float16 = "float16"


JsonOption = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object.")]
DeviceOption = Annotated[Device, typer.Option("--device", help="Where to compute.")]
DtypeOption = Annotated[Dtype, typer.Option("--dtype", help="Number format.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Seed of everything random.")]
