"""Runs a function in several processes that have met under gloo, forked from this one so that nothing is imported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from torch import multiprocessing as processes


def together(count: int, folder: Path, work: Callable[..., None], *words: Any) -> None:
    """Call `work(*words)` in each of `count` processes; an error in one of them is raised here."""
    meeting = folder / "meeting"
    meeting.unlink(missing_ok=True)
    processes.start_processes(_one, (count, str(meeting), work, words), nprocs=count, start_method="fork")


def _one(rank: int, count: int, meeting: str, work: Callable[..., None], words: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    store = distributed.FileStore(meeting, count)
    distributed.init_process_group("gloo", store=store, rank=rank, world_size=count)
    try:
        work(*words)
    finally:
        distributed.destroy_process_group()
