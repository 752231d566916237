"""Events from the worker's threads to an event loop, together: one wake-up for all that wait, not one for each.

    worker ──put──► [ event, event, … ] ──one call into the loop──► the queue of each stream

A wake-up is a system call; sixteen streams would take sixteen of them at every token. Source: our choice.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import Any
from weakref import WeakKeyDictionary, ref


class Post:
    """Carries events to the queues of one event loop, in the order in which they were put.

    Args:
        loop: Where the queues are read.

    Example:
        >>> async def one() -> str:
        ...     queue, post = asyncio.Queue(), Post(asyncio.get_running_loop())
        ...     threading.Thread(target=post.put, args=(queue, "heard")).start()
        ...     return await queue.get()
        >>> asyncio.run(one())
        'heard'
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = ref(loop)
        self._lock = threading.Lock()
        self._waiting: list[tuple[asyncio.Queue[Any], Any]] = []

    def put(self, queue: asyncio.Queue[Any], event: Any) -> None:
        """Bring an event to a queue soon, from any thread; nothing happens when the loop has ended."""
        with self._lock:
            self._waiting.append((queue, event))
            first = len(self._waiting) == 1
        if first and (loop := self._loop()) is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody listens
                loop.call_soon_threadsafe(self._deliver)

    def _deliver(self) -> None:
        with self._lock:
            waiting, self._waiting = self._waiting, []
        for queue, event in waiting:
            queue.put_nowait(event)


_posts: WeakKeyDictionary[asyncio.AbstractEventLoop, Post] = WeakKeyDictionary()


def to_this_loop() -> Post:
    """Return the one way into the event loop that runs."""
    loop = asyncio.get_running_loop()
    if loop not in _posts:
        _posts[loop] = Post(loop)
    return _posts[loop]
