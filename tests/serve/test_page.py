"""The page: what its controls do, what it says without Gradio or before the model, and in a real browser."""

from __future__ import annotations

import shutil

import httpx
import pytest

from ossicle.serve.keys import Keys
from ossicle.serve.limits import Limits
from ossicle.serve.page import Desk, Page
from ossicle.serve.state import State
from serve.conftest import Echo, running, wav


@pytest.fixture
def desk():
    state = State("echo", Keys(), Limits(audio_s=2.0))
    state.worker = Echo()
    return Desk(state, unchanged=lambda: "unchanged")


def test_an_answer_is_streamed_then_what_it_took(desk, tmp_path):
    (tmp_path / "clip.wav").write_bytes(wav())
    seen = [(rows[-1]["content"], facts) for rows, facts, _ in desk.ask(str(tmp_path / "clip.wav"), "what?", [], False)]
    assert [text for text, _ in seen[:2]] == ["1 ", "1 clips: "]
    assert seen[-1][0] == "1 clips: <audio>what? " and "2 handle hits saved 250 ms" in seen[-1][1]
    talk = [{"role": "user", "content": [{"type": "text", "text": "one"}]}, {"role": "assistant", "content": "yes"}]
    *_, last = desk.ask(str(tmp_path / "clip.wav"), "two", talk, False)
    assert [row["role"] for row in last[0]] == ["user", "assistant"] * 2
    contents = [row["content"] for row in desk.state.worker.jobs[-1].messages]
    assert contents == ["<audio>one", "yes", "two"]


def test_a_clip_is_shown_and_what_is_wrong_is_said_kindly(desk, tmp_path):
    (tmp_path / "clip.wav").write_bytes(wav())
    (tmp_path / "long.wav").write_bytes(wav(3.0))
    (tmp_path / "broken.wav").write_bytes(b"junk")
    assert desk.look(str(tmp_path / "clip.wav"))[0].ndim == 3
    for name, reason in (("long.wav", "longer than 2 s"), ("broken.wav", "not a recording")):
        picture, _, facts = desk.look(str(tmp_path / name))
        assert picture is None and reason in facts and str(tmp_path) not in facts
        *_, (_, facts, _) = desk.ask(str(tmp_path / name), "what?", [], False)
        assert "No answer" in facts and reason in facts
    desk.state.worker = None
    *_, (_, facts, _) = desk.ask(None, "what?", [], False)
    assert "loading" in facts


def test_without_gradio_the_page_says_how_to_install_it(monkeypatch):
    import ossicle.serve.page as module
    from ossicle.errors import require

    state = State("echo", Keys(), Limits())
    page = state.page = Page(state)
    with running(state) as url, httpx.Client(base_url=url) as client:
        assert "loading" in client.get("/").text
        monkeypatch.setattr(module, "build_blocks", lambda state: require("no_such_module", "ui"))
        page.build()
        answer = client.get("/")
        assert answer.status_code == 200 and "pip install" in answer.text and "ossicle[ui]" in answer.text
        assert client.get("/other").status_code == 404 and client.get("/health").status_code == 200


@pytest.mark.slow
def test_in_a_real_browser(tmp_path):
    pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    (tmp_path / "clip.wav").write_bytes(wav())
    (tmp_path / "broken.wav").write_bytes(b"junk")
    state = State("echo", Keys(), Limits())
    state.worker = Echo()
    state.page = Page(state)
    state.page.build()
    with running(state) as url, playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(url)
        page.reload()  # Gradio starts with the first visit
        page.locator("input[type=file]").first.set_input_files(tmp_path / "clip.wav")
        picture = page.locator("img[src*='image']").first
        picture.wait_for()
        page.get_by_label("Question").fill("what is it?")
        page.get_by_label("Question").press("Enter")
        page.get_by_text("1 clips").first.wait_for()
        page.get_by_text("handle hits").first.wait_for()
        browser.close()
