"""Open questions through an endpoint that misbehaves: every unit once, killed or not, and never a word of the key."""

from __future__ import annotations

import base64
import io
import json
import logging
import multiprocessing
import random
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile

pytest.importorskip("openai")
pytest.importorskip("tenacity")

from ossicle.data.clip import Clip
from ossicle.data.store import Store
from ossicle.errors import ConfigError, UserError
from ossicle.questions import listening, prompts, replies
from ossicle.questions.ask_model import ask_all, estimate, rows_of, units_of
from ossicle.questions.corpus import Corpus
from ossicle.questions.endpoint import EndpointConfig, Rejected, endpoint_named, retry_after_s
from questions.endpoint_double import Double


def settings(url: str, at_once: int = 8) -> EndpointConfig:
    return EndpointConfig(url=url, model="double", timeout_s=1.5, tries=20, first_wait_s=0.01, at_once=at_once)


def clips(count: int) -> list[Clip]:
    return [
        Clip(path=Path(f"/c/{n}.wav"), source="made", labels=("hopeless" if n % 25 == 7 else f"sound {n}",))
        for n in range(count)
    ]


def outcome_is_whole(folder: Path, url: str, count: int) -> Store:
    units = list(units_of(clips(count), Corpus(), settings(url), pairs=3))
    store = Store(folder, write=False)
    kinds = {unit.key: store[unit.key]["kind"] for unit in units}  # KeyError: a unit is missing
    assert len(kinds) == count
    assert len(store) == count
    hopeless = {unit.key for unit in units if "hopeless" in unit.clip.labels}
    assert {key for key, kind in kinds.items() if kind == "rejected"} >= hopeless
    for key in kinds:
        entry = store[key]
        assert entry["reason"] if entry["kind"] == "rejected" else len(entry["pairs"]) == 3
    ids = [row["id"] for row in rows_of(units, store, settings(url))]
    assert len(ids) == len(set(ids)) == 3 * sum(kind == "done" for kind in kinds.values())
    return store


def notes_of(path: Path) -> list[dict]:
    lines = [line.partition(" ")[2] for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    return [entry for entry in map(json.loads, lines) if "note" in entry]


def serve(calls, port) -> None:
    """Run the double, and keep its count where others can see it."""
    with Double(stall_s=1.8) as server:
        port.value = server.server_address[1]
        while True:
            calls.value = server.calls
            time.sleep(0.002)


def ask(url: str, folder: Path, count: int, at_once: int) -> None:
    """Ask about what is left, as a process of its own."""
    config = settings(url, at_once)
    with Store(folder) as store:
        ask_all(list(units_of(clips(count), Corpus(), config, pairs=3)), config, store)


def kill_and_go_on(folder: Path, count: int, kills: int, seed: int, at_once: int = 8) -> None:
    rng = random.Random(seed)
    start = multiprocessing.get_context("fork")
    calls, port = start.Value("q", 0), start.Value("q", 0)
    server = start.Process(target=serve, args=(calls, port), daemon=True)
    server.start()
    try:
        while not port.value:
            time.sleep(0.01)
        url = f"http://127.0.0.1:{port.value}/v1"
        for _ in range(kills):
            wanted = calls.value + rng.randrange(1, max(2, count // (kills + 1)))
            child = start.Process(target=ask, args=(url, folder, count, at_once))
            child.start()
            while calls.value < wanted and child.is_alive():
                time.sleep(0.002)
            child.kill()
            child.join()
        last = start.Process(target=ask, args=(url, folder, count, at_once))
        last.start()
        last.join()
        assert last.exitcode == 0
        time.sleep(0.05)
        store = outcome_is_whole(folder, url, count)
        assert store.damaged == 0
        notes = [note for path in folder.glob("part-*") for note in notes_of(path)]
        assert calls.value <= len(notes) == store.notes["sent"]  # whatever is billed has been noted before
        retries = sum(note["number"] > 1 for note in notes)
        repairs = sum(entry["kind"] == "rejected" or entry["repaired"] for entry in store.entries())
        lost = 2 * kills * at_once  # a unit in flight when the run is killed loses its reply and the repair at most
        assert len(notes) - retries <= count + repairs + lost
        print(count, "units", kills, "kills", calls.value, "calls", len(notes), "noted", retries, "retries", repairs)
    finally:
        server.kill()
        server.join()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_and_gone_on_every_unit_is_there_once(tmp_path):
    kill_and_go_on(tmp_path, count=60, kills=1, seed=1)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_ten_thousand_units_and_twenty_kills(tmp_path):
    kill_and_go_on(tmp_path, count=10_000, kills=20, seed=2, at_once=24)


def test_well_behaved_calls_are_one_per_unit_and_nothing_is_asked_twice(tmp_path):
    with Double(naughty=False) as server:
        config = settings(server.url)
        some = [Clip(path=Path(f"/c/{n}.wav"), source="s", labels=("dog", "rain"), transcript="come") for n in range(5)]
        units = list(units_of(some, Corpus(), config, name="joint_paragraph"))
        with Store(tmp_path) as store:
            assert estimate(units, store, config)["calls"] == 10
            outcome = ask_all(units, config, store)
            assert outcome.done == 5
            assert server.calls == outcome.spent["calls"] == 10  # a paragraph, then the pairs
            assert ask_all(units, config, store).spent["calls"] == 0
            assert estimate(units, store, config)["left"] == 0
            rows = list(rows_of(units, store, config))
        assert [row["task"] for row in rows[:2]] == ["summary", "open"]
        told = rows[1]["made"]["told"]
        assert told == ["Sounds: dog, rain", "Words of the speech: come"]
        assert "Summary: A dog barks while it rains." in server.bodies[-1]["messages"][1]["content"]
        assert server.bodies[0]["response_format"]["json_schema"]["strict"] is True


def test_a_model_that_listens_gets_the_clip_and_its_reply_is_the_answer(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.sin(np.arange(8000) / 5) / 3, 8000)
    some = [Clip(path=tmp_path / "a.wav", source="s"), Clip(path=tmp_path / "lost.wav", source="s")]
    with Double(naughty=False) as server, Store(tmp_path / "store") as store:
        config = settings(server.url, at_once=1)
        units = list(units_of(some, Corpus(), config, name="heard", pairs=2))
        assert (estimate(units, store, config)["calls"], estimate(units, store, config)["pairs"]) == (4, 4)
        outcome = ask_all(units, config, store)
        assert (outcome.done, dict(outcome.rejected)) == (1, {"the recording cannot be read": 1})
        rows = list(rows_of(units, store, config))
    assert [row["messages"][1]["content"] for row in rows] == ["A dog barks in the rain."] * 2
    asked = [row["messages"][0]["content"].removeprefix("<audio>") for row in rows]
    assert asked == rows[0]["made"]["told"] == list(units[0].facts)
    assert len(set(asked)) == 2
    assert rows[0]["made"]["listened"] is True
    audio, question = server.bodies[0]["messages"][0]["content"]
    sent, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(audio["input_audio"]["data"])))
    assert (len(sent), rate_hz, question["text"]) == (16000, 16000, asked[0])
    assert "response_format" not in server.bodies[0]
    with pytest.raises(Rejected, match="empty"):
        listening.checked(" \n")


def test_so_many_are_in_flight_and_no_more(tmp_path):
    with Double(naughty=False) as server, Store(tmp_path) as store:
        server.pause_s = 0.1
        config = settings(server.url, at_once=5)
        assert ask_all(list(units_of(clips(20), Corpus(), config, pairs=3)), config, store).done >= 19
        assert server.most_at_once == 5


def test_a_server_that_says_when_to_come_again_is_obeyed(tmp_path):
    with Double(naughty=False) as server, Store(tmp_path) as store:
        server.limits = 2
        config = settings(server.url, at_once=1)  # left to itself it would wait about 0.01 s
        outcome = ask_all(list(units_of(clips(1), Corpus(), config, pairs=3)), config, store)
        assert (outcome.done, outcome.spent["retries"]) == (1, 2)
        assert all(later - sooner >= server.wait_s for sooner, later in pairwise(server.came))


def test_time_that_is_up_stops_cleanly_and_the_rest_is_done_later(tmp_path):
    with Double(naughty=False) as server, Store(tmp_path) as store:
        server.pause_s = 0.1
        config = settings(server.url, at_once=1)
        units = list(units_of(clips(7), Corpus(), config, pairs=3))
        outcome = ask_all(units, config.model_copy(update={"max_seconds": 0.35}), store)
        assert outcome.stopped == "time"
        assert 1 <= outcome.done < 7
        server.pause_s = 0.0
        assert ask_all(units, config, store).done == 7
        assert server.calls == 7  # nothing twice


@pytest.mark.parametrize(("cap", "name"), [({"max_tokens": 400}, "tokens"), ({"max_usd": 0.0004}, "money")])
def test_a_cap_stops_cleanly_and_the_rest_is_done_later(tmp_path, cap, name):
    with Double(naughty=False) as server:
        config = settings(server.url).model_copy(
            update={"at_once": 1, "usd_per_million_in": 1.0, "usd_per_million_out": 1.0}
        )
        units = list(units_of(clips(7), Corpus(), config, pairs=3))
        with Store(tmp_path) as store:
            outcome = ask_all(units, config.model_copy(update=cap), store)
            assert outcome.stopped == name
            assert outcome.done == 3
            assert ask_all(units, config, store).done == 7


def test_a_refused_key_is_one_line_without_the_key(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MY_KEY", "sk-secret-key")
    caplog.set_level(logging.DEBUG)
    with Double(status=401) as server, Store(tmp_path / "store") as store:
        config = settings(server.url).model_copy(update={"key_variable": "MY_KEY"})
        with pytest.raises(UserError, match="MY_KEY is refused") as caught:
            ask_all(list(units_of(clips(3), Corpus(), config)), config, store)
        assert server.keys == {"Bearer sk-secret-key"}
    assert "sk-secret" not in str(caught.value)
    assert caplog.records  # the client logs at this level
    assert "sk-secret" not in caplog.text
    assert not any(b"sk-secret" in path.read_bytes() for path in (tmp_path / "store").iterdir())


def test_a_refused_form_is_left_out_and_what_was_rejected_can_be_asked_again(tmp_path):
    with Double(naughty=False) as server, Store(tmp_path) as store:
        config = settings(server.url)
        units = list(units_of(clips(2), Corpus(), config, pairs=3))
        server.status = 400
        outcome = ask_all(units, config, store)
        assert outcome.rejected == {"refused with status 400": 2}
        assert "response_format" not in server.bodies[-1]
        server.status = 200
        assert ask_all(units, config, store).done == 0
        assert ask_all(units, config, store, again=True).done == 2
    with Store(tmp_path) as store:
        assert {entry["kind"] for entry in store.entries()} == {"done"}


def test_settings_that_cannot_work_are_refused():
    for config, words in (
        (EndpointConfig(url="https://user:pass@host/v1", model="m"), "holds a key"),
        (EndpointConfig(url="host", model="m"), "expected an address"),
        (EndpointConfig(url="http://localhost/v1", model="m", max_usd=0), "budget of nothing"),
        (EndpointConfig(url="http://localhost/v1", model="m", max_usd=1), "needs prices"),
    ):
        with pytest.raises(ConfigError, match=words) as caught:
            config.check()
        assert "pass" not in str(caught.value)
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        EndpointConfig(url="https://host/v1", model="m", key_variable="NO_SUCH_KEY").key()
    with pytest.raises(ConfigError, match="no model"):
        endpoint_named("https://host/v1")


def test_retry_after_is_read_as_seconds_or_a_date():
    assert retry_after_s("3") == 3
    assert retry_after_s("Thu, 01 Jan 1970 00:00:10 GMT", now=lambda: 4.0) == 6
    assert retry_after_s("soon") is None


def test_the_prompt_that_says_most_is_chosen_and_says_only_what_is_known():
    base = {"path": Path("a.wav"), "source": "s"}
    said = {**base, "transcript": "my love"}
    chosen = {
        "sound": Clip(**base, labels=("dog",)), "joint": Clip(**said, labels=("Singing",)),
        "music": Clip(**said, genres=("rock", "folk")), "speech": Clip(**said, gender="male"),
        "emotion": Clip(**said, emotion="sad"), "opinion": Clip(**said, sentiment="-2"),
        "speaker": Clip(**said, age="31"),
    }  # fmt: skip
    assert {name: prompts.fitting(clip) for name, clip in chosen.items()} == {name: name for name in chosen}
    counts = {name: prompts.prompt(name).pairs for name in prompts.book()["prompts"]}
    assert counts == {
        "sound": 10, "speech": 20, "emotion": 20, "opinion": 20, "speaker": 10, "music": 5, "joint": 10,
        "joint_paragraph": 10, "heard": 3,
    }  # fmt: skip
    lines = prompts.lines(chosen["joint"], Corpus(), prompts.prompt("joint"))
    assert lines == ["Sounds: Singing", "Words of the singing: my love"]
    assert prompts.lines(chosen["opinion"], Corpus(), prompts.prompt("opinion"))[-1].endswith(": negative")


def test_replies_are_checked_strictly_and_a_code_fence_is_taken_off():
    fenced = '```json\n{"pairs": [{"q": "Who?", "a": "A man."}, {"q": "Who?", "a": "A man."}]}\n```'
    assert replies.read_pairs(fenced) == [("Who?", "A man.")]
    for text in (
        '{"pairs": []}',
        '{"pairs": [{"q": "x"}]}',
        '{"pairs": [{"q": 5, "a": "x"}]}',
        "[]",
        "",
        '{"pairs": [{"q": "", "a": "x"}]}',
    ):
        with pytest.raises(UserError):
            replies.read_pairs(text)
    assert json.dumps(replies.schema(replies.Pairs))
