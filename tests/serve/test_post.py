"""Events reach their queues in order, and many of them with one wake-up."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref

from ossicle.serve.post import Post, _posts, to_this_loop


def test_what_waits_together_comes_in_order_with_one_wake_up(monkeypatch):
    async def both():
        loop, queues = asyncio.get_running_loop(), [asyncio.Queue(), asyncio.Queue()]
        calls, wake = [], loop.call_soon_threadsafe
        monkeypatch.setattr(loop, "call_soon_threadsafe", lambda *words: (calls.append(words), wake(*words)))
        post = Post(loop)

        def work():  # while it runs, the event loop waits for it
            for number in range(64):
                post.put(queues[number % 2], number)

        worker = threading.Thread(target=work)
        worker.start()
        worker.join()
        first = [await queues[0].get() for _ in range(32)]
        second = [await queues[1].get() for _ in range(32)]
        post.put(queues[0], "more")
        return first, second, await queues[0].get(), len(calls)

    first, second, more, calls = asyncio.run(both())
    assert (first, second, more) == ([*range(0, 64, 2)], [*range(1, 64, 2)], "more")
    assert calls == 2


def test_many_threads_lose_nothing():
    async def gathered():
        queue, post = asyncio.Queue(), to_this_loop()
        assert post is to_this_loop()

        def work(number):
            for count in range(200):
                post.put(queue, (number, count))

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        return [await queue.get() for _ in range(800)]

    got = asyncio.run(gathered())
    for number in range(4):
        assert [count for one, count in got if one == number] == list(range(200))


def test_a_loop_that_has_ended_is_let_go_and_hears_nothing():
    async def kept():
        return to_this_loop(), asyncio.Queue(), weakref.ref(asyncio.get_running_loop())

    post, queue, loop = asyncio.run(kept())
    post.put(queue, "late")
    assert queue.empty()
    gc.collect()
    assert loop() is None
    assert all(each is not post for each in _posts.values())
