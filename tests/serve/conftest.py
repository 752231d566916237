"""A server around a worker that needs no model: it says how many clips it heard and what was asked last."""

from __future__ import annotations

import contextlib
import io
import threading
import time

import httpx
import numpy as np
import pytest
import soundfile

pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")


def wav(seconds=0.2, rate_hz=16000, hz=440.0, kind="WAV"):
    """Return a recording's bytes."""
    samples = np.sin(np.arange(int(seconds * rate_hz)) * 2 * np.pi * hz / rate_hz).astype(np.float32) / 3
    held = io.BytesIO()
    soundfile.write(held, samples, rate_hz, format=kind)
    return held.getvalue()


class Echo:
    """Stands in for the worker."""

    def __init__(self):
        self.jobs, self.refuse, self.silent = [], None, False

    def submit(self, job):
        from ossicle.serve.job import Done, Piece

        if self.refuse is not None:
            raise self.refuse
        self.jobs.append(job)
        if self.silent:
            return
        text = f"{len(job.clips)} clips: {job.messages[-1]['content']}"
        for word in text.split(" "):
            chance = [{"token": word, "logprob": -0.5, "bytes": [], "top_logprobs": []}]
            job.emit(Piece(text=word + " ", logprobs=chance if job.sampling.top_logprobs is not None else None))
        took = {"prompt_tokens": 7, "completion_tokens": 3, "audio_tokens": 5, "cached_tokens": 5}
        job.emit(Done(reason="stop", hits=2, saved_s=0.25, **took))

    def call(self, do, *, alone=False):
        from concurrent.futures import Future

        done = Future()
        done.set_result({"streams": []})
        return done

    def close(self):
        pass


@contextlib.contextmanager
def running(state, head_s=10.0):
    """Serve a state on a free port of this machine; gives the address."""
    from ossicle.serve.run import open_port, server_of

    opened = open_port("127.0.0.1", 0)
    server = server_of(state, drain_s=2, head_s=head_s)
    server.capture_signals = contextlib.nullcontext
    thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{opened.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)
        opened.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The one folder that local audio is read from, with a secret beside it."""
    place = tmp_path_factory.mktemp("media")
    (place / "inside").mkdir()
    (place / "inside/clip.wav").write_bytes(wav())
    (place / "secret.wav").write_bytes(wav())
    (place / "inside/link.wav").symlink_to(place / "secret.wav")
    return place / "inside"


@pytest.fixture(scope="module")
def state(folder):
    from ossicle.serve.keys import Keys
    from ossicle.serve.limits import Limits
    from ossicle.serve.state import State

    limits = Limits(body_bytes=300_000, audio_s=4.0, audios=3, media_folder=folder, upload_s=5.0)
    made = State("echo", Keys(["right", "other"]), limits)
    made.worker = Echo()
    return made


@pytest.fixture(scope="module")
def client(state):
    """A client with the right key."""
    with running(state) as url, httpx.Client(base_url=url, headers={"Authorization": "Bearer right"}, timeout=60) as it:
        yield it
