"""The page: what its controls do, what it says without Gradio or before the model, and in a real browser."""

from __future__ import annotations

import gc
import os
import shutil
from pathlib import Path

import httpx
import pytest

import ossicle
from ossicle.serve.keys import Keys
from ossicle.serve.limits import Limits
from ossicle.serve.page import EMPTY, Desk, Page
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
    assert desk.look(str(tmp_path / "clip.wav"))[0].startswith("<svg")
    for name, reason in (("long.wav", "longer than 2 s"), ("broken.wav", "not a recording")):
        picture, _, facts = desk.look(str(tmp_path / name))
        assert picture == EMPTY and reason in facts and str(tmp_path) not in facts
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


NANO = Path(ossicle.__file__).parent / "nano" / "config.json"


@pytest.mark.slow
@pytest.mark.skipif(not NANO.is_file(), reason="nano is not in this checkout")
def test_nano_in_a_real_browser(tmp_path):
    """Upload, ask, ask again from the handle, see the picture change, drop what is broken."""
    pytest.importorskip("gradio")
    playwright = pytest.importorskip("playwright.sync_api")
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    from ossicle.inference.engine import load
    from ossicle.serve.worker import Worker
    from ossicle.world import demo

    (tmp_path / "broken.wav").write_bytes(b"junk")
    state = State("nano", Keys(), Limits())
    state.worker = Worker(load("nano", device="cpu"), state.store, state.limits, state.metrics)
    state.page = Page(state)
    state.page.build()
    shots = Path(os.environ["OSSICLE_SCREENSHOTS"]) if "OSSICLE_SCREENSHOTS" in os.environ else tmp_path
    with running(state) as url, playwright.sync_playwright() as player:
        browser = player.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        page.set_default_timeout(180_000)
        page.goto(url)
        page.reload()  # Gradio starts with the first visit
        page.locator("input[type=file]").first.set_input_files(demo.scenes()[1].path)
        picture = page.locator("#picture svg")
        picture.wait_for()
        plain = picture.inner_html()
        _ask(page, "What do you hear?")
        page.get_by_text("first token after").wait_for()
        page.locator("#picture svg", has_text="muting it costs").wait_for()
        assert picture.inner_html() != plain and "it looks at" in picture.inner_html()
        assert "attend" in page.locator("#facts").inner_text()
        page.screenshot(path=shots / "page.png")
        first = picture.inner_html()
        _ask(page, "Is there a dog?")
        page.get_by_text("handle hits").wait_for()
        page.wait_for_function("before => document.querySelector('#picture svg').innerHTML !== before", arg=first)
        page.get_by_role("button", name="Clear").first.click()
        page.locator("input[type=file]").first.set_input_files(tmp_path / "broken.wav")
        page.get_by_text("That cannot be heard").wait_for()
        page.screenshot(path=shots / "page-error.png")
        browser.close()
    state.worker.close()
    gc.collect()  # greenlets left over, ended later while a module is compiled, make Python 3.11 give up (SystemError)


def _ask(page, question):
    page.get_by_label("Question").fill(question)
    page.get_by_label("Question").press("Enter")
