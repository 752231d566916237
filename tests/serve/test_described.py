"""Requests made from the OpenAPI page itself, fitting and not: answers are as the page says, none is a 500."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable

from serve.conftest import Echo, running

schemathesis = pytest.importorskip("schemathesis")
KEY = {"Authorization": "Bearer right"}
CHECKS = ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
MODES = schemathesis.GenerationMode


@schemathesis.serializer("audio/pcm", "audio/*")
def as_bytes(context, value):
    """What a piece of a live stream is sent as."""
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


class Hearing(Echo):
    """Stands in for chat, and lets live streams be heard by nano."""

    def __init__(self):
        from ossicle.inference.engine import load

        super().__init__()
        self.thread, self.engine = ThreadPoolExecutor(1), load("nano", device="cpu")

    def call(self, do, *, alone=False):
        return self.thread.submit(do, self.engine)

    def close(self):
        self.thread.shutdown()


@pytest.fixture(scope="module")
def client(state):
    state.worker = Hearing()
    with running(state) as url, httpx.Client(base_url=url, headers=KEY, timeout=60) as it:
        yield it


def on_an_open_stream(client, case):
    """Let a request about a live stream be about one that is open, which made-up ids never are."""
    answer = client.post("/v1/audio/streams", headers=KEY)
    assert answer.status_code == 200, answer.text
    (name,) = case.path_parameters
    case.path_parameters[name] = answer.json()["id"]
    return f"/v1/audio/streams/{answer.json()['id']}"


def tried(client, examples):
    """Try every operation of the page with requests that fit it and requests that do not; return how many."""
    page = schemathesis.openapi.from_url(f"{client.base_url}/openapi.json")
    known = {check.__name__: check for check in schemathesis.checks.CHECKS.get_all()}
    checks, count = [known[name] for name in CHECKS], 0
    quiet = {"suppress_health_check": list(HealthCheck), "phases": [Phase.generate], "derandomize": True}
    for operation in (result.ok() for result in page.get_all_operations()):
        bodied = operation.method.lower() == "post"
        for mode in MODES if bodied else [MODES.POSITIVE]:

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(max_examples=examples if bodied else 2, deadline=None, database=None, **quiet)
            def one(case):
                nonlocal count
                count += 1
                stream = on_an_open_stream(client, case) if case.path_parameters and count % 2 else None
                answer = case.call_and_validate(headers=KEY, checks=checks, timeout=30)
                if stream is not None:
                    assert answer.status_code != 404, "it is open"
                    client.delete(stream, headers=KEY)

            with contextlib.suppress(Unsatisfiable):  # an operation without a body or a range has no wrong request
                one()
    return count


def test_answers_are_as_described(client):
    assert tried(client, 4) >= 12


@pytest.mark.slow
def test_many_answers_are_as_described(client):
    assert tried(client, 400) >= 1000
