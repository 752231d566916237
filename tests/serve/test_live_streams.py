"""Live streams over HTTP: chunks and questions, whose they are, and what is refused."""

from __future__ import annotations

from concurrent.futures import Future

import httpx
import numpy as np
import pytest

from model.conftest import engine, tokenizer  # noqa: F401 - fixtures
from ossicle.serve.keys import Keys
from ossicle.serve.limits import Limits
from ossicle.serve.state import State
from ossicle.types import Waveform
from serve.conftest import running, wav


class Here:
    """A worker without a thread."""

    def __init__(self, model):
        self.engine = model

    def call(self, do, *, alone=False):
        done = Future()
        try:
            done.set_result(do(self.engine))
        except Exception as error:  # noqa: BLE001 - handed to the caller
            done.set_exception(error)
        return done


@pytest.fixture
def client(engine):  # noqa: F811
    state = State("tiny", Keys(["right", "other"]), Limits(audio_s=4.0))
    state.worker = Here(engine)
    with running(state) as url, httpx.Client(base_url=url, headers={"Authorization": "Bearer right"}, timeout=60) as it:
        yield it


def test_chunks_are_heard_and_asked_about_as_one_recording(client, engine):  # noqa: F811
    opened = client.post("/v1/audio/streams")
    assert opened.status_code == 200
    place = f"/v1/audio/streams/{opened.json()['id']}"
    assert client.post(f"{place}/ask", json={"question": "What?"}).status_code == 400  # nothing heard yet
    assert client.post(place, content=wav(0.7)).json()["duration_s"] == pytest.approx(0.7)
    more = (np.random.default_rng(0).normal(0, 0.1, 30000) * 32767).astype("<i2")
    told = client.post(place, content=more.tobytes(), headers={"content-type": "audio/pcm"}).json()
    assert told["duration_s"] == pytest.approx(0.7 + 30000 / 16000)
    from ossicle.audio.io import load_audio

    whole = np.concatenate([load_audio(wav(0.7)).samples, more.astype(np.float32) / 32768])
    said = client.post(f"{place}/ask", json={"question": "What do you hear?", "max_tokens": 6}).json()
    alone = engine.answer([(Waveform(samples=whole), "What do you hear?")], max_new_tokens=6)[0]
    assert (said["answer"], said["audio_tokens"]) == (alone.text, alone.audio_tokens)
    assert client.post(place, content=wav(3.0)).json()["error"]["code"] == "audio_too_long"
    other = {"Authorization": "Bearer other"}
    assert client.post(f"{place}/ask", json={"question": "?"}, headers=other).status_code == 404
    assert client.delete(place).json()["deleted"] and client.delete(place).status_code == 404


def test_what_is_wrong_is_said_in_one_shape(client, engine, monkeypatch):  # noqa: F811
    place = f"/v1/audio/streams/{client.post('/v1/audio/streams').json()['id']}"
    for body, kind in ((b"junk", "audio/wav"), (b"odd", "audio/pcm")):
        answer = client.post(place, content=body, headers={"content-type": kind})
        assert answer.status_code == 400 and answer.json()["error"]["message"]
    for body in ("{", "[]", '{"question": ""}', '{"question": "x", "max_tokens": 0}'):
        answer = client.post(f"{place}/ask", content=body)
        assert answer.status_code == 400 and answer.json()["error"]["message"]
    assert client.post("/v1/audio/streams", headers={"Authorization": "Bearer wrong"}).status_code == 401
    for stream in engine.model.streams.values():
        monkeypatch.setattr(type(stream.plan.connector), "windowed", False)
    answer = client.post("/v1/audio/streams")
    assert answer.status_code == 400 and "looks across windows" in answer.json()["error"]["message"]


def test_what_was_given_up_before_it_began_is_not_counted(engine, monkeypatch):  # noqa: F811
    state = State("tiny", Keys(["right"]), Limits(audio_s=4.0, deadline_s=0.3))
    state.worker = Here(engine)
    with running(state) as url, httpx.Client(base_url=url, headers={"Authorization": "Bearer right"}) as one:
        place = f"/v1/audio/streams/{one.post('/v1/audio/streams').json()['id']}"
        assert one.post(place, content=wav(1.0)).json()["duration_s"] == pytest.approx(1.0)
        with monkeypatch.context() as busy:
            busy.setattr(state.worker, "call", lambda do: Future())
            assert one.post(place, content=wav(2.0)).status_code == 504
        assert one.post(place, content=wav(0.5)).json()["duration_s"] == pytest.approx(1.5)


def test_a_question_cannot_pass_for_the_templates_own_marks(client, engine, monkeypatch):  # noqa: F811
    from ossicle.inference.live import LiveStream

    asked, answer = [], LiveStream.answer
    noted = lambda self, question, **options: asked.append(question) or answer(self, question, **options)  # noqa: E731
    monkeypatch.setattr(LiveStream, "answer", noted)
    place = f"/v1/audio/streams/{client.post('/v1/audio/streams').json()['id']}"
    client.post(place, content=wav(0.7))
    mark = next(token for token in engine.processor.tokenizer.all_special_tokens if len(token) > 2)
    assert client.post(f"{place}/ask", json={"question": f"What?{mark}", "max_tokens": 2}).status_code == 200
    assert mark not in asked[0]


def test_chunks_sent_at_once_add_up_and_stay_within_the_limit(client, engine):  # noqa: F811
    from concurrent.futures import ThreadPoolExecutor

    place = f"/v1/audio/streams/{client.post('/v1/audio/streams').json()['id']}"
    with ThreadPoolExecutor(6) as pool:
        told = list(pool.map(lambda _: client.post(place, content=wav(1.0)).json(), range(6)))
    lengths = sorted(round(one["duration_s"], 3) for one in told if "duration_s" in one)
    assert lengths == [1.0, 2.0, 3.0, 4.0]
    assert {one["error"]["code"] for one in told if "error" in one} == {"audio_too_long"}
