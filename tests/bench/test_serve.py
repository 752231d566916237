"""The load's client and clips, against a real server with a worker that needs no model."""

from __future__ import annotations

import asyncio
import base64

import numpy as np
import pytest

from ossicle.audio.io import load_audio
from ossicle.bench.clients import ask, body, clip, gather
from ossicle.bench.serve import Setting, run
from ossicle.errors import ConfigError
from ossicle.serve.keys import Keys
from ossicle.serve.limits import ApiError, Limits
from ossicle.serve.state import State
from serve.conftest import Echo, running


def test_clips_are_fresh_and_the_seed_makes_them():
    random = np.random.default_rng(0)
    one, other = clip(random, 0.5), clip(random, 0.5)
    assert one != other and one == clip(np.random.default_rng(0), 0.5)
    assert len(load_audio(base64.b64decode(one)).samples) == 8000


def test_the_client_reads_streams_usage_and_refusals():
    state = State("echo", Keys(), Limits())
    state.worker = Echo()
    random = np.random.default_rng(0)
    with running(state) as url:
        told = asyncio.run(gather(url, [body(random, 0.2, tokens=4, system="Be brief.") for _ in range(3)]))
        assert [(one.status, one.tokens, len(one.gaps_s)) for one in told] == [(200, 3, 5)] * 3
        assert all(0 < one.first_s <= one.total_s and not one.error for one in told)
        assert state.worker.jobs[0].sampling.endless and len(state.worker.jobs[0].clips) == 1
        state.worker.refuse = ApiError("busy", status=429, code="overloaded", retry_s=2)
        refused = asyncio.run(ask(url, body(random, 0, tokens=4)))
        assert (refused.status, refused.error, refused.tokens) == (429, "overloaded", 0)


def test_an_unknown_part_is_refused():
    with pytest.raises(ConfigError, match="no part 'fast'; expected some of throughput, "):
        run(Setting(), ["fast", "mixed"])


@pytest.mark.slow
@pytest.mark.alone
def test_prefixes_are_no_help_under_another_system_prompt():
    from ossicle.bench.prefix import second_questions

    told = second_questions("nano", repeats=2, seed=0)
    assert told["ratio_same"] < told["ratio_other"] < 1
