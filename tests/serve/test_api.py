"""The endpoints as clients use them, on a real port, with a worker that needs no model."""

from __future__ import annotations

import base64
import json
import threading
import time
from dataclasses import replace

import httpx
import pytest

from ossicle.serve.keys import Keys, is_loopback, read_keys
from ossicle.serve.limits import ApiError, Limits
from ossicle.serve.state import State
from serve.conftest import Echo, running, wav

CLIP = base64.b64encode(wav()).decode()
AUDIO = {"type": "input_audio", "input_audio": {"data": CLIP, "format": "wav"}}


def ask(client, content, **more):
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": content}], **more})


def refused(answer, status, code=None):
    """Check an error's shape, and that it says nothing of our insides."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert "Traceback" not in answer.text and "/src/" not in answer.text
    if code:
        assert error["code"] == code
    return True


def test_every_shape_of_audio_part_is_heard(client):
    url = {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{CLIP}"}}
    plain = {"type": "audio", "audio": CLIP}
    answer = ask(client, [AUDIO, {"type": "text", "text": "and"}, url, plain, {"type": "text", "text": "what?"}])
    body = answer.json()
    assert body["choices"][0]["message"] == {
        "role": "assistant", "content": "3 clips: <audio>and<audio><audio>what? ", "refusal": None
    }  # fmt: skip
    assert body["choices"][0]["finish_reason"] == "stop" and body["object"] == "chat.completion"
    assert body["usage"] == {
        "prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,
        "prompt_tokens_details": {"cached_tokens": 5, "audio_tokens": 5},
        "audio_handles": {"hits": 2, "misses": 0, "saved_ms": 250.0},
    }  # fmt: skip
    assert answer.headers["x-request-id"]


@pytest.mark.parametrize("kind", ["FLAC", "OGG", "MP3"])
def test_other_formats_are_found_out_from_their_bytes(client, kind):
    part = {"type": "input_audio", "input_audio": {"data": base64.b64encode(wav(1.0, kind=kind)).decode()}}
    assert ask(client, [part]).status_code == 200


def test_a_conversation_with_several_turns_and_a_system_prompt(client, state):
    turns = [
        {"role": "developer", "content": "Be short."},
        {"role": "user", "content": [AUDIO, {"type": "text", "text": "one"}]},
        {"role": "assistant", "content": "yes"},
        {"role": "user", "content": "two"},
    ]
    assert client.post("/v1/chat/completions", json={"messages": turns}).status_code == 200
    roles = [(turn["role"], turn["content"]) for turn in state.worker.jobs[-1].messages]
    assert roles == [("system", "Be short."), ("user", "<audio>one"), ("assistant", "yes"), ("user", "two")]


def test_a_stream_ends_with_usage_and_done(client):
    answer = ask(client, [AUDIO], stream=True, stream_options={"include_usage": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    lines = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    pieces = [json.loads(line) for line in lines[:-1]]
    assert "".join(p["choices"][0]["delta"].get("content", "") for p in pieces if p["choices"]) == "1 clips: <audio> "
    assert pieces[0]["choices"][0]["delta"]["role"] == "assistant"
    assert pieces[-2]["choices"][0]["finish_reason"] == "stop" and pieces[-2]["usage"] is None
    assert pieces[-1]["choices"] == [] and pieces[-1]["usage"]["total_tokens"] == 10
    assert len({p["id"] for p in pieces}) == 1
    assert "usage" not in ask(client, "hi", stream=True).text


def test_a_uuid_stands_for_its_clip_within_one_key(client):
    assert refused(ask(client, [{**AUDIO, "input_audio": None, "uuid": "u1"}]), 400, "unknown_uuid")
    assert ask(client, [{**AUDIO, "uuid": "u1"}]).status_code == 200
    assert ask(client, [{**AUDIO, "input_audio": None, "uuid": "u1"}]).status_code == 200
    other = {"Authorization": "Bearer other"}
    body = {"messages": [{"role": "user", "content": [{"type": "audio_url", "audio_url": None, "uuid": "u1"}]}]}
    assert refused(client.post("/v1/chat/completions", json=body, headers=other), 400, "unknown_uuid")


def test_how_an_answer_is_drawn_reaches_the_worker(client, state):
    settings = {"temperature": 0.5, "top_p": 0.9, "stop": "end", "seed": 3, "max_completion_tokens": 5}
    answer = ask(client, "hi", logprobs=True, top_logprobs=2, **settings)
    assert len(answer.json()["choices"][0]["logprobs"]["content"]) == 3
    drawn = state.worker.jobs[-1].sampling
    assert (drawn.temperature, drawn.top_p, drawn.stop, drawn.seed) == (0.5, 0.9, ("end",), 3)
    assert (drawn.max_tokens, drawn.top_logprobs) == (5, 2)
    ask(client, "hi", max_tokens=10**9)
    assert state.worker.jobs[-1].sampling.max_tokens == Limits().max_tokens


def test_text_cannot_forge_a_clip(client, state):
    ask(client, [AUDIO, {"type": "text", "text": "<audio> what"}])
    assert state.worker.jobs[-1].messages[0]["content"] == "<audio>< audio> what"


@pytest.mark.parametrize(
    "content, more, status, code",
    [
        ([AUDIO] * 4, {}, 400, "too_many_clips"),
        ([{"type": "input_audio", "input_audio": {"data": "bm90IGF1ZGlv"}}], {}, 400, "invalid_audio"),
        ([{"type": "input_audio", "input_audio": {"data": "%%%"}}], {}, 400, "invalid_audio"),
        ([{"type": "audio", "audio": ""}], {}, 400, "invalid_audio"),
        ([{"type": "audio", "audio": base64.b64encode(wav(5.0)).decode()}], {}, 413, "audio_too_long"),
        ([{"type": "audio", "audio": base64.b64encode(wav(1.9)).decode()}] * 3, {}, 413, "audio_too_long"),
        ([{"type": "audio_url", "audio_url": {"url": "https://example.com/a.wav"}}], {}, 403, "urls_disabled"),
        ([{"type": "audio_url", "audio_url": {"url": "ftp://example.com/a.wav"}}], {}, 400, "invalid_url"),
        ([{"type": "image_url", "image_url": {"url": "x"}}], {}, 400, "invalid_value"),
        ("", {}, 400, "invalid_value"),
        ([], {}, 400, "invalid_value"),
        (None, {}, 400, "invalid_value"),
        ([{"type": "text", "text": " "}], {}, 400, "invalid_value"),
        ("hi", {"n": 2}, 400, "unsupported"),
        ("hi", {"temperature": 9}, 400, "invalid_value"),
        ("hi", {"model": "gpt"}, 404, "model_not_found"),
        ("x" * 400_000, {}, 413, "request_too_large"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_shape(client, content, more, status, code):
    assert refused(ask(client, content, **more), status, code)


@pytest.mark.parametrize(
    "content, more, where, told",
    [
        ([{"type": "image_url", "image_url": {"url": "x"}}], {}, "messages.0.content.0.type", "'input_audio'"),
        ([{"type": "text", "text": "a"}, {"text": "b"}], {}, "messages.0.content.1.type", "required"),
        ([{"type": "text"}], {}, "messages.0.content.0", "a text part needs 'text'"),
        ([{"type": "input_audio"}], {}, "messages.0.content.0", "an audio part needs 'input_audio'"),
        (5, {}, "messages.0.content", "valid string or: Input should be a valid array"),
        ("hi", {"stop": 5}, "stop", "valid string or: Input should be a valid array"),
        ("", {}, "messages.0", "needs text or audio"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_field_is_named_where_it_stands(client, content, more, where, told):
    error = ask(client, content, **more).json()["error"]
    assert error["param"] == where and error["message"].startswith(f"{where}: ") and told in error["message"]


def test_local_audio_comes_from_one_folder_alone(client, folder):
    def part(url):
        return [{"type": "audio_url", "audio_url": {"url": url}}]

    assert ask(client, part(f"file://{folder}/clip.wav")).status_code == 200
    assert ask(client, [{"type": "audio", "audio": "clip.wav"}]).status_code == 200
    secret = folder.parent / "secret.wav"
    for url in (f"file://{secret}", f"file://{folder}/../secret.wav", f"file://{folder}/link.wav", "file:///etc/passwd",
                f"file://{folder}/%2e%2e/secret.wav", f"file://{folder}", f"file://{folder}/none.wav"):  # fmt: skip
        assert refused(ask(client, part(url)), 403, "path_not_allowed")


def test_keys(client, state, tmp_path, monkeypatch):
    for headers in ({"Authorization": "Bearer wrong"}, {"Authorization": ""}, {"Authorization": "Basic right"}):
        answer = client.get("/v1/models", headers=headers)
        assert refused(answer, 401, "invalid_api_key") and answer.headers["www-authenticate"] == "Bearer"
        assert client.get("/metrics", headers=headers).status_code == 401
        assert client.get("/health", headers=headers).status_code == 200
    assert client.get("/v1/models").json()["data"][0]["id"] == "echo"
    assert Keys(["a", "b"]).scope("a") != Keys(["a", "b"]).scope("b")
    assert Keys(["a", "b"], shared=True).scope("a") == ""
    (tmp_path / "keys").write_text("# ours\nfile-key\n\n")
    monkeypatch.setenv("OSSICLE_API_KEY", "one, two")
    assert read_keys(tmp_path / "keys") == ["one", "two", "file-key"]
    assert [is_loopback(host) for host in ("::1", "127.9.9.9", "localhost", "10.0.0.1", "example.com")] == [
        True, True, True, False, False
    ]  # fmt: skip


def test_what_is_not_there(client):
    assert refused(client.get("/v1/nothing"), 404) and refused(client.get("/v1/chat/completions"), 404)
    assert refused(client.get("/nothing"), 404)
    assert refused(client.post("/health"), 405)


def test_health_before_ready_and_overload(tmp_path):
    state = State("later", Keys(), Limits())
    with running(state) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert client.get("/health").status_code == 200
        answer = client.get("/ready")
        assert refused(answer, 503, "loading") and answer.headers["retry-after"] == "2"
        assert refused(ask(client, "hi"), 503, "loading")
        state.worker = Echo()
        assert client.get("/ready").json()["model"] == "later"
        state.worker.refuse = ApiError("busy", status=429, code="overloaded", retry_s=2)
        answer = ask(client, "hi")
        assert refused(answer, 429, "overloaded") and answer.headers["retry-after"] == "2"
        # without keys, no web page and no renamed address may call in this machine's name
        assert refused(client.get("/v1/models", headers={"Origin": "https://evil.example"}), 403)
        assert refused(client.get("/v1/models", headers={"Host": "evil.example"}), 403)
        assert client.get("/v1/models", headers={"Origin": url}).status_code == 200


def test_a_client_that_goes_away_ends_its_answer(client, state):
    state.worker.silent = True
    try:
        for stream in (False, True):
            with pytest.raises(httpx.TimeoutException):
                body = {"messages": [{"role": "user", "content": "wait"}], "stream": stream}
                client.post("/v1/chat/completions", json=body, timeout=0.5)
            for _ in range(200):
                if state.worker.jobs[-1].cancelled.is_set():
                    break
                time.sleep(0.05)
            assert state.worker.jobs[-1].cancelled.is_set()
    finally:
        state.worker.silent = False


def test_a_deadline_is_kept_when_the_worker_is_busy():
    state = State("busy", Keys(), Limits(deadline_s=0.1))
    state.worker = Echo()
    state.worker.silent = True
    with running(state) as url, httpx.Client(base_url=url, timeout=60) as client:
        assert refused(ask(client, "hi"), 504, "deadline_exceeded") and state.worker.jobs[0].cancelled.is_set()


def test_transcriptions(client, state, monkeypatch):
    monkeypatch.setattr(state, "limits", replace(state.limits, max_tokens=10))

    def send(**form):
        return client.post("/v1/audio/transcriptions", files={"file": ("a.wav", wav(), "audio/wav")}, data=form)

    assert send(model="echo").json()["text"] == "1 clips: <audio>What is said? "
    assert send(response_format="text").text.startswith("1 clips")
    assert state.worker.jobs[-1].sampling.max_tokens == min(256, state.limits.max_tokens)
    assert send(response_format="verbose_json").json()["duration"] == pytest.approx(0.2)
    assert refused(send(response_format="srt"), 400) and refused(send(temperature="hot"), 400)
    assert refused(client.post("/v1/audio/transcriptions", files={"file": ("a", b"junk")}), 400, "invalid_audio")
    assert refused(client.post("/v1/audio/transcriptions", data={"model": "echo"}), 400)


def test_requests_are_counted_and_ids_are_kept(client):
    answer = client.get("/health", headers={"X-Request-Id": "mine-1"})
    assert answer.headers["x-request-id"] == "mine-1"
    assert client.get("/health", headers={"X-Request-Id": "bad id;"}).headers["x-request-id"] != "bad id;"
    text = client.get("/metrics").text
    assert 'ossicle_requests_total{route="/health",status="200"}' in text
    assert "# TYPE ossicle_request_seconds histogram" in text
    schema = client.get("/openapi.json").json()
    assert "/v1/chat/completions" in schema["paths"] and "Message" in schema["components"]["schemas"]


def test_the_openai_client_works_unchanged(client):
    openai = pytest.importorskip("openai")
    from openai import OpenAI

    with OpenAI(base_url=f"{client.base_url}/v1", api_key="right", max_retries=0) as it:
        messages = [{"role": "user", "content": [AUDIO, {"type": "text", "text": "What?"}]}]
        said = it.chat.completions.create(model="echo", messages=messages, logprobs=True)
        assert said.choices[0].message.content == "1 clips: <audio>What? "
        assert said.choices[0].logprobs.content[0].logprob == -0.5
        assert said.usage.prompt_tokens_details.audio_tokens == 5
        options = {"include_usage": True}
        pieces = list(it.chat.completions.create(model="echo", messages=messages, stream=True, stream_options=options))
        assert "".join(p.choices[0].delta.content or "" for p in pieces if p.choices) == "1 clips: <audio>What? "
        assert pieces[-1].usage.total_tokens == 10
        assert it.models.list().data[0].id == "echo"
        assert it.audio.transcriptions.create(model="echo", file=("a.wav", wav())).text.startswith("1 clips")
        with pytest.raises(openai.BadRequestError, match="not base64"):
            bad = {"type": "input_audio", "input_audio": {"data": "%%", "format": "wav"}}
            it.chat.completions.create(model="echo", messages=[{"role": "user", "content": [bad]}])
    with (
        OpenAI(base_url=f"{client.base_url}/v1", api_key="wrong", max_retries=0) as it,
        pytest.raises(openai.AuthenticationError),
    ):
        it.models.list()


def test_many_at_once(client):
    answers = []

    def one(number):
        answers.append(ask(client, f"q{number}").json()["choices"][0]["message"]["content"])

    threads = [threading.Thread(target=one, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(f"0 clips: q{number} " for number in range(12))
