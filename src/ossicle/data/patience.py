"""A time limit on reading one recording: a share that stalls must not stop a run.

What takes longer is given up as an `AudioError`, as a recording that cannot be read is; the thread that still waits is
left behind. Source: our choice.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ossicle.errors import AudioError

R = TypeVar("R")


def within(seconds: float, read: Callable[[], R], name: str) -> R:
    """Return what `read` returns, if it does so in time.

    Args:
        seconds: How long is waited.
        read: Reads one recording.
        name: Of the recording, for the error.

    Raises:
        AudioError: It took longer. What `read` raises is raised here.

    Example:
        >>> within(1.0, lambda: 3, "clip.wav")
        3
    """
    done: list[R] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(read())
        except BaseException as error:  # noqa: BLE001 (raised again below, in the thread that asked)
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise AudioError(f"{name}: took longer than {seconds:g} s to read")
    return done[0]
