"""Step times and memory of one variant in this process.

`activation_bytes` is what autograd keeps for backward: distinct storages, parameters left out. `peak_bytes` is the
high-water mark of the process (the allocator's on CUDA) minus what was resident before the first step.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor


def resident_bytes() -> int:
    """Return the memory this process holds now."""
    status = Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return high_water_bytes()


def high_water_bytes() -> int:
    """Return the most memory this process ever held."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def kept_for_backward(run: Callable[[], Tensor], parameters: Iterable[Tensor]) -> int:
    """Return the bytes of the storages that `run` keeps for backward."""
    own = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    kept: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = run()
    total = sum(kept.values())
    result.backward()
    return total


class Peak:
    """Memory above what was there at the start, on the device at hand."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self.before = torch.cuda.memory_allocated(device)
        else:
            self.before = resident_bytes()

    def bytes(self) -> int:
        """Return the peak so far."""
        now = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else high_water_bytes()
        return max(0, now - self.before)


def seconds(run: Callable[[], object], device: torch.device, clock: str = "wall") -> float:
    """Return how long one call takes, the device's queue included.

    Args:
        run: The call.
        device: Where it computes.
        clock: `wall`, or `cpu`: seconds of all threads of this process, which a busy machine disturbs less.
    """
    now = time.process_time if clock == "cpu" else time.perf_counter
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = now()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return now() - began


PEAKS_BF16 = {
    "H200": 989.4,
    "H100 PCIe": 756.0,
    "H100": 989.4,
    "A100": 312.0,
    "L40S": 362.0,
    "L4": 121.0,
}
"""Dense bf16 TFLOP/s of tensor cores by part of a device's name (NVIDIA's data sheets); the first that fits counts."""


def peak_tflops(device_name: str, dtype: str) -> float | None:
    """Return what a device's data sheet promises for products in bf16, None where it is not known here.

    Example:
        >>> peak_tflops("NVIDIA H100 80GB HBM3", "bf16")
        989.4
    """
    if dtype != "bf16":
        return None
    return next((peak for part, peak in PEAKS_BF16.items() if part in device_name), None)
