"""One file of kept encoder outputs: memory-mapped, a checksum for every clip, narrow dtypes with the loss they cost.

    KEY|samples    KEY|STREAM (N, D)    KEY|STREAM|scale (N, 1), of int8 only    KEY|sum: CRC-32 of the clip's bytes
    int8:   q = round(x / s),   s = max |x| of the row / 127               loss of a stream = √(Σ (x − kept)² / Σ x²)

A row that is not finite in a narrow dtype keeps its clip in float32. A file is written whole, then renamed, by whoever
holds its claim; a clip whose bytes do not fit their checksum is as good as not there. Source: our choice.
"""

from __future__ import annotations

import fcntl
import json
import os
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ossicle.errors import DataError

LARGEST = 127
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "int8": torch.int8}


@dataclass(frozen=True, slots=True, kw_only=True)
class Features:
    """What is kept of one clip.

    Attributes:
        num_samples: Its length at 16 kHz.
        values: (N, D) tokens of each encoder, by the name of the stream that owns it.
        rates_hz: Tokens per second of each.
    """

    num_samples: int
    values: dict[str, Tensor]
    rates_hz: dict[str, float]


class Energies(dict[str, tuple[float, float]]):
    """Stream → (energy of what a dtype lost, energy of all), which add up over clips and files."""

    def add(self, stream: str, lost: float, whole: float) -> None:
        """Add a clip's."""
        before = self.get(stream, (0.0, 0.0))
        self[stream] = (before[0] + lost, before[1] + whole)

    def loss(self) -> dict[str, float]:
        """Return the relative root mean square error by stream."""
        return {name: round((lost / whole) ** 0.5, 6) if whole else 0.0 for name, (lost, whole) in self.items()}


def narrow(values: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Return (N, D) tokens in a dtype, and (N, 1) what int8 is multiplied with.

    Example:
        >>> narrow(torch.tensor([[1.0, -2.0]]), torch.int8)[0]
        tensor([[  64, -127]], dtype=torch.int8)
    """
    if dtype is torch.int8:
        scale = values.float().abs().amax(-1, keepdim=True) / LARGEST
        if bool(scale.isfinite().all()):
            steps = values.float() / scale.clamp_min(torch.finfo(torch.float32).tiny)
            return steps.round().to(torch.int8).contiguous(), scale.contiguous()
        return values.float().contiguous(), None
    less = values.to(dtype)
    return (less if bool(less.isfinite().all()) else values.float()).contiguous(), None


def widen(values: Tensor, scale: Tensor | None) -> Tensor:
    """Return tokens as numbers: those of int8 times their row's scale, others as they are."""
    return values if scale is None else values.float() * scale


def pack(key: str, features: Features, dtype: torch.dtype, energies: Energies) -> dict[str, Tensor]:
    """Return the tensors of one clip; what its dtype costs is added to `energies`."""
    tensors = {f"{key}|samples": torch.tensor(features.num_samples)}
    for name, values in features.values.items():
        kept, scale = narrow(values, dtype)
        tensors[f"{key}|{name}"] = kept
        if scale is not None:
            tensors[f"{key}|{name}|scale"] = scale
        exact = values.float()
        lost = (exact - widen(kept, scale).float()).square().sum()
        energies.add(name, float(lost), float(exact.square().sum()))
    tensors[f"{key}|sum"] = torch.tensor(_checksum(tensors))
    return tensors


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for name in sorted(tensors):
        total = zlib.crc32(tensors[name].reshape(-1).view(torch.uint8).numpy(), total)
    return total


def write(path: Path, tensors: dict[str, Tensor], energies: Energies) -> None:
    """Write a file whole or not at all.

    Raises:
        DataError: The disk is full, or the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    temporary = path.with_suffix(f".writing{os.getpid()}")
    try:
        save_file(tensors, temporary, metadata={"energies": json.dumps(energies)})
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise DataError(
            f"feature cache {path.parent}: cannot be written ({error}); whole files are kept, so run it again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


class Shard:
    """A file of kept outputs, opened.

    Args:
        path: The file; it is mapped into memory, not read.

    Raises:
        DataError: It is no whole file.
    """

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError, safe_open

        try:
            self.file: Any = safe_open(path, framework="pt")
        except (OSError, SafetensorError) as error:
            raise DataError(f"{path}: is damaged ({error})") from None
        self.names: dict[str, list[str]] = {}
        for name in self.file.keys():  # noqa: SIM118 (not a mapping)
            self.names.setdefault(name.partition("|")[0], []).append(name)
        self.energies = Energies(json.loads((self.file.metadata() or {}).get("energies", "{}")))
        self._checked: set[str] = set()

    def whole(self, key: str) -> bool:
        """Return whether a clip's bytes fit its checksum; they are read once."""
        if key in self._checked or f"{key}|sum" not in self.names[key]:
            return True
        parts = {name: self.file.get_tensor(name) for name in self.names[key] if not name.endswith("|sum")}
        if _checksum(parts) != int(self.file.get_tensor(f"{key}|sum")):
            return False
        self._checked.add(key)
        return True

    def get(self, key: str, rates_hz: dict[str, float]) -> Features | None:
        """Return what is kept of a clip; None where it is damaged."""
        if not self.whole(key):
            return None
        values = {}
        for name in rates_hz:
            scaled = f"{key}|{name}|scale" in self.names[key]
            scale = self.file.get_tensor(f"{key}|{name}|scale") if scaled else None
            values[name] = widen(self.file.get_tensor(f"{key}|{name}"), scale)
        return Features(num_samples=int(self.file.get_tensor(f"{key}|samples")), values=values, rates_hz=rates_hz)


@contextmanager
def claim(path: Path, *, wait: bool) -> Iterator[bool]:
    """Say whether this process alone may write a file; the claim ends with the block, or with the process.

    Args:
        path: The file.
        wait: Until nobody else holds it.
    """
    place = path.with_suffix(".claim")
    with place.open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            place.unlink(missing_ok=True)
