"""Several processes of one run, as torchrun starts them: each takes its share of every step's micro-batches.

    step s:  micro-batches s·a … s·a + a−1      process r of n takes r, r + n, r + 2n, …
             gradients, loss and label counts are summed over all processes, then divided once

A gradient that a process does not have counts as zero there, so no process skips a collective because of its data; one
that nobody has stays absent. A process that ends takes the others with it, in one line each; started again by torchrun
(`--max-restarts`) the run goes on from its last checkpoint. With one process everything here does nothing.
Source: our choice.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn

from ossicle.errors import ConfigError, UserError

if TYPE_CHECKING:
    from ossicle.training.recipe import Stage

LOST = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Timed out waiting")
"""How gloo says that a peer is gone."""


def rank() -> int:
    """Return the number of this process, 0 when it is alone."""
    return distributed.get_rank() if distributed.is_available() and distributed.is_initialized() else 0


def world() -> int:
    """Return how many processes there are."""
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def is_main() -> bool:
    """This process writes files and speaks."""
    return rank() == 0


def wait() -> None:
    """Wait until all processes are here."""
    if world() > 1:
        distributed.barrier()


def agree(value: Any) -> Any:
    """Return the main process's value in all processes."""
    if world() == 1:
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0)
    return box[0]


@contextlib.contextmanager
def joined(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that torchrun started, and yield this one's device; alone, nothing happens.

    Args:
        device: What was asked for; with CUDA each process takes its own GPU.

    Raises:
        UserError: Another process is gone, so that this one cannot go on.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    local = int(os.environ.get("LOCAL_RANK", "0"))
    own = torch.device("cuda", local) if device.type == "cuda" else device
    if own.type == "cuda":
        torch.cuda.set_device(own)
    _meet("nccl" if own.type == "cuda" else "gloo")
    try:
        yield own
    except RuntimeError as error:
        if not _lost(error):
            raise
        raise UserError(
            f"process {rank()} of {world()}: another process of the run is gone, so this one stops; what ended it "
            "stands above; go on with --resume, or let torchrun do it: --max-restarts 3"
        ) from None
    finally:
        distributed.destroy_process_group()


def _meet(backend: str) -> None:
    """Join the group; after a restart under names of its own.

    torchrun keeps its store over a restart, and in it the addresses of the processes that have ended: without other
    names a process may try to reach one of those.
    """
    if not restarted():
        distributed.init_process_group(backend)
        return
    store, number, count = next(distributed.rendezvous("env://"))
    names = distributed.PrefixStore(f"try {os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    distributed.init_process_group(backend, store=names, rank=number, world_size=count)


def _lost(error: RuntimeError) -> bool:
    """Return whether an error of a collective means that a peer no longer answers."""
    return isinstance(error, distributed.DistError) or any(sign in str(error) for sign in LOST)


def restarted() -> bool:
    """Return whether torchrun started this run again after a process of it had ended."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def shared(stage: Stage) -> Stage:
    """Return the stage with micro-batches that divide among the processes; the effective batch stays.

    Raises:
        ConfigError: It does not divide at any size.
    """
    count = world()
    if stage.accumulation % count == 0:
        return stage
    for micro in range(stage.micro, 0, -1):
        if stage.batch_size % (micro * count) == 0:
            return stage.model_copy(update={"micro_batch_size": micro})
    raise ConfigError(
        f"stage '{stage.name}': batch_size {stage.batch_size} cannot be shared by {count} processes; make it a multiple"
    )


def micro_batches(stage: Stage, step: int) -> range:
    """Return the numbers of this process's micro-batches of an optimiser step."""
    start = step * stage.accumulation
    return range(start + rank(), start + stage.accumulation, world())


def sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum gradients over all processes, in one flat buffer for each dtype."""
    if world() == 1 or not parameters:
        return
    present = torch.tensor([float(p.grad is not None) for p in parameters], device=parameters[0].device)
    distributed.all_reduce(present)
    live = [p for p, count in zip(parameters, present.tolist(), strict=True) if count]
    for dtype in sorted({p.dtype for p in live}, key=str):  # a set of dtypes has another order in each process
        group = [p for p in live if p.dtype == dtype]
        flat = torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in group])
        distributed.all_reduce(flat)
        for parameter, part in zip(group, flat.split([p.numel() for p in group]), strict=True):
            parameter.grad = part.view_as(parameter).clone()


def sum_numbers(numbers: Sequence[float], device: torch.device) -> list[float]:
    """Return each number summed over all processes."""
    if world() == 1:
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(total)
    return list(total.tolist())


def average_buffers(model: nn.Module) -> None:
    """Let running statistics be the mean over all processes."""
    if world() == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            distributed.all_reduce(buffer)
            buffer.div_(world())
