"""How the threads of a server share cores, memory and Python's lock.

    an ear, the answering thread     half of the cores each, for PyTorch counts them by thread
    all threads                      the lock for a millisecond at a time; memory that was used is used again

No thread steps back for another: one that does so while it holds Python's lock stops them all (tried, `docs/log.md`).
Source: our choice.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys

MALLOC = {-3: 32 << 20, -1: 64 << 20, -8: 4}
"""glibc's settings: bytes from which memory comes from the kernel and goes back (M_MMAP_THRESHOLD), free bytes that are
kept (M_TRIM_THRESHOLD), and how many pools threads share (M_ARENA_MAX), so that not each keeps its own."""


def share_the_machine() -> None:
    """Let a server's threads share Python's lock and the process's memory.

    A thread that wants the lock waits for at most a millisecond, not five: a short question has few of them. And memory
    that was given back is kept for what comes next: the kernel fills fresh pages with zeros, thousands for a clip.
    """
    sys.setswitchinterval(0.001)
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        adjust = ctypes.CDLL(None).mallopt
        for what, value in MALLOC.items():
            adjust(what, value)


def half_of_the_cores(cores: int) -> None:
    """Let PyTorch use half of the cores in the thread that calls; it counts them by thread."""
    import torch

    torch.set_num_threads(max(1, cores // 2))
