"""The decoder cut among processes (FSDP2), from outside: what a process holds of it is one share of every weight.

    language_model   one unit a layer ──all-gather──► whole while it runs ──reduce-scatter──► a share of the gradient
                     embeddings, last norm and head are one unit more, whole from a step's first use to its backward
    streams          in every process, gradients summed explicitly: which of them run depends on the data

Every process runs every layer forward and backward, whatever its batch holds: the text's embeddings always ask for a
gradient, so that a loss without audio over a frozen decoder still takes part. A stage is sharded anew from the
checkpoint of the one before, because precision and what trains differ between stages.
A share is a `DTensor`; checkpoints hold shares as safetensors with their place in the whole, so that any number of
processes can read them, one included. Source: torch, `torch.distributed.fsdp.fully_shard` and
`torch.distributed.checkpoint`; what is a unit is our choice.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ossicle.training import processes


def shard(model: Any, *, lower: torch.dtype | None, device: torch.device) -> None:
    """Cut a model's decoder among the processes, in place; freezing and checkpointing are set before.

    Args:
        model: The whole model, alike in every process.
        lower: Dtype in which weights are gathered and computed with; gradients are reduced in float32. None = as held.
        device: Where the shares go.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    from ossicle.integration.memory import layers_of

    mesh = init_device_mesh(device.type, (processes.world(),))
    reduced = None if lower is None else torch.float32
    policy = MixedPrecisionPolicy(param_dtype=lower, reduce_dtype=reduced, cast_forward_inputs=False)
    replicated = set(model.streams.parameters())
    for layer in layers_of(model.language_model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    root: Any = fully_shard(model, mesh=mesh, mp_policy=policy, ignored_params=replicated)
    for unit in [*layers_of(model.language_model), root]:
        unit.set_force_sum_reduction_for_comms(True)  # gloo knows no scaled sum
        unit.set_gradient_divide_factor(1.0)  # the loop divides by the global number of labels
    model.get_input_embeddings().register_forward_hook(_ask_for_a_gradient)


def _ask_for_a_gradient(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return output.requires_grad_() if torch.is_grad_enabled() else output


def is_share(tensor: Tensor) -> bool:
    """Return whether a tensor is one process's share of a larger one."""
    from torch.distributed.tensor import DTensor

    return isinstance(tensor, DTensor)


def own(tensor: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds: all of it, unless it is a share."""
    part: Any = tensor
    return part.to_local() if is_share(tensor) else tensor


def like(value: Tensor, parameter: Tensor) -> Tensor:
    """Return a whole tensor cut as a parameter is."""
    from torch.distributed.tensor import distribute_tensor

    if not is_share(parameter):
        return value.to(parameter.device)
    place: Any = parameter
    return distribute_tensor(value.to(parameter.device), place.device_mesh, place.placements, src_data_rank=None)


def clip_gradients(parameters: Iterable[nn.Parameter], limit: float) -> float:
    """Scale gradients down to a norm over all of them, shares of all processes included; return the norm before."""
    listed = list(parameters)
    if not any(is_share(p) for p in listed):
        return float(nn.utils.clip_grad_norm_(listed, limit))
    whole, cut = 0.0, 0.0
    for parameter in listed:
        assert parameter.grad is not None
        square = float(own(parameter.grad).float().pow(2).sum())
        if is_share(parameter):
            cut += square
        else:
            whole += square
    norm = float((whole + processes.sum_numbers([cut], listed[0].device)[0]) ** 0.5)
    scale = limit / (norm + 1e-6)
    if scale < 1:
        for parameter in listed:
            assert parameter.grad is not None
            parameter.grad.mul_(scale)
    return norm


def write(folder: Path, shares: Mapping[str, Tensor]) -> None:
    """Write every process's shares into a folder, as safetensors; all processes call it.

    Raises:
        OSError: A process could not write.
    """
    from torch.distributed import checkpoint as saved
    from torch.distributed.checkpoint import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.api import CheckpointException

    writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
    try:
        saved.save(dict(shares), storage_writer=writer)
    except CheckpointException as error:
        raise OSError(str(next(iter(error.failures.values()))[0])) from None


def read(folder: Path, into: Mapping[str, Tensor]) -> None:
    """Fill tensors, shares or whole ones, from what any number of processes wrote; each process reads what it needs."""
    if not into:
        return
    from torch.distributed import checkpoint as saved
    from torch.distributed.checkpoint import HuggingFaceStorageReader

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")  # it is not: nobody waits for others here
        saved.load(dict(into), storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)


def names(folder: Path) -> set[str]:
    """Return the names of the tensors whose shares lie in a folder."""
    from safetensors import safe_open

    found: set[str] = set()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            found |= set(file.keys())
    return found
