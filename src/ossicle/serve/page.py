"""The page at `/`: record, drop or pick a clip; ask; see the answer come, when it listened, and what was remembered.

Gradio in the same process, built once the model is loaded; until then, and without the extra [ui], `/` says so.
Source: our choice.
"""

from __future__ import annotations

import asyncio
import html
import os
import queue
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ossicle.errors import MissingExtraError, require
from ossicle.inference.store import Recording
from ossicle.serve.job import Done, Event, Failed, Job, Piece, Sampling
from ossicle.serve.limits import ApiError
from ossicle.serve.state import State
from ossicle.types import SAMPLE_RATE_HZ, Waveform

PLAIN = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>ossicle</title>'
    '<body style="{style}"><h1>ossicle</h1><p>{text}</p>{more}'
)
STYLE = "font-family:system-ui;max-width:40em;margin:3em auto;line-height:1.5"
WAIT = '<meta http-equiv="refresh" content="3">'
API = "The endpoint is at <code>/v1</code>, its description at <a href='/docs'>/docs</a>."
EMPTY = '<p style="color:#77777f;padding:1em;text-align:center">The clip\'s spectrogram comes here.</p>'
ANSWER_TOKENS = 96
LISTEN_S = 60.0
"""Clips up to this long are looked at for when the model listened; each stretch costs a forward pass."""


class Page:
    """ASGI application at `/`.

    Args:
        state: The server.
    """

    def __init__(self, state: State) -> None:
        self.state = state
        self.note = "The model and this page are loading."
        self.building = True
        self._inner: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._started: asyncio.Task[None] | None = None
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer with the page, or say why it is not there."""
        if self._app is not None and self._inner is None and self._started is None:
            self._started = asyncio.ensure_future(self._start())
        if self._inner is not None:
            await self._inner(scope, receive, send)
        elif scope["type"] == "http":
            await self._plain(scope, send)

    def build(self) -> None:
        """Build the page, when Gradio is installed; called from the thread that loaded the model."""
        try:
            blocks = build_blocks(self.state)
        except MissingExtraError as error:
            self.note = f"This page needs more: {html.escape(str(error))}"
            self.building = False
            return
        gradio = require("gradio", "ui")
        app = require("fastapi", "serve").FastAPI()
        keys = self.state.keys
        self._app = gradio.mount_gradio_app(
            app,
            blocks,
            path="/",
            auth=(lambda user, key: keys.scope(key) is not None) if keys else None,
            auth_message="Any name; the password is an API key." if keys else None,
            max_file_size=self.state.limits.body_bytes,
            show_error=True,
            ssr_mode=False,
            footer_links=[],
            run_history=False,
        )

    async def _start(self) -> None:
        """Run Gradio's own start-up in this event loop; it ends with the process."""
        async with self._app.router.lifespan_context(self._app):
            self._inner = self._app
            await asyncio.Event().wait()

    async def _plain(self, scope: Any, send: Any) -> None:
        known = scope["path"] in ("", "/")
        text = PLAIN.format(
            style=STYLE, text=self.note if known else "No such page.", more=(WAIT if self.building else "") + API
        )
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
        await send({"type": "http.response.start", "status": 200 if known else 404, "headers": headers})
        await send({"type": "http.response.body", "body": text.encode()})


def build_blocks(state: State) -> Any:
    """Return the page's Gradio blocks.

    Raises:
        MissingExtraError: Gradio is not installed.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    gradio = require("gradio", "ui")
    from ossicle.world import demo

    scenes = {scene.title: str(scene.path) for scene in demo.scenes()}
    desk = Desk(state, unchanged=gradio.skip)
    with gradio.Blocks(title=f"ossicle: {state.name}", analytics_enabled=False) as blocks:
        gradio.Markdown(f"## ossicle · {html.escape(state.name)}\nRecord, drop or pick a clip, then ask about it.")
        with gradio.Row():
            with gradio.Column():
                clip = gradio.Audio(sources=["upload", "microphone"], type="filepath", label="Clip")
                scene = gradio.Dropdown(sorted(scenes), value=None, label="or a bundled scene")
                picture = gradio.HTML(EMPTY, label="What it heard", elem_id="picture")
                when = gradio.Checkbox(True, label="Show when it listened (clips up to a minute)")
            with gradio.Column():
                talk = gradio.Chatbot(label="Conversation", height=360)
                question = gradio.Textbox("What do you hear?", label="Question", submit_btn=True)
                facts = gradio.Markdown(elem_id="facts")
                clear = gradio.Button("New conversation")
        scene.change(lambda title: scenes.get(title), scene, clip, show_progress="hidden")
        clip.change(desk.look, clip, [picture, talk, facts], show_progress="hidden")
        question.submit(desk.ask, [clip, question, talk, when], [talk, facts, picture], show_progress="hidden")
        clear.click(lambda: ([], ""), None, [talk, facts])
    return blocks


class Desk:
    """What the page's controls do.

    Args:
        state: The server.
        unchanged: Gives what leaves a control as it is.
    """

    def __init__(self, state: State, unchanged: Callable[[], Any]) -> None:
        self.state, self.unchanged = state, unchanged

    def look(self, path: str | None) -> tuple[Any, list[Any], str]:
        """Show a clip; a new clip begins a new conversation."""
        if not path:
            return EMPTY, [], ""
        from ossicle.serve.picture import figure

        try:
            return figure(_wave(self._clip(path))), [], ""
        except ApiError as error:
            return EMPTY, [], f"**That cannot be heard:** {html.escape(str(error))}"

    def ask(
        self, path: str | None, question: str, talk: list[dict[str, Any]] | None, when: bool
    ) -> Iterator[tuple[list[dict[str, Any]], str, Any]]:
        """Stream an answer, then what it took, then when the model listened."""
        talk = [*(talk or []), {"role": "user", "content": question}, {"role": "assistant", "content": ""}]
        try:
            clip = self._clip(path) if path else None
            for event in self._events(talk[:-1], clip):
                if isinstance(event, Piece):
                    talk[-1]["content"] += event.text
                    yield talk, "", self.unchanged()
                elif isinstance(event, Done):
                    yield talk, told(event), self.unchanged()
            if clip is not None and clip.num_samples <= LISTEN_S * SAMPLE_RATE_HZ:
                fired = self._fired(_wave(clip), question)
                yield talk, f"{told(event)}\n\n{fired}", self.unchanged()
                if when:
                    shown = self._when(_wave(clip), question, talk[-1]["content"])
                    yield talk, f"{told(event)}\n\n{fired}", shown
        except ApiError as error:
            talk[-1]["content"] = "…"
            yield talk, f"**No answer:** {html.escape(str(error))}", self.unchanged()

    def _clip(self, path: str) -> Recording:
        """Return the clip within the server's limits; its bytes are read here, so that no error names a path."""
        return self.state.media.decode(Path(path).read_bytes())

    def _events(self, talk: list[dict[str, Any]], clip: Recording | None) -> Iterator[Event]:
        """Ask the worker; the clip stands before the first question."""
        from ossicle.serve.media import untagged

        messages = [{"role": turn["role"], "content": untagged(_text(turn["content"]))} for turn in talk]
        clips = [clip] if clip is not None else []
        messages[0]["content"] = "<audio>" * len(clips) + messages[0]["content"]
        events: queue.Queue[Event] = queue.Queue()
        limit_s = self.state.limits.deadline_s
        job = Job(
            messages=messages,
            clips=clips,
            sampling=Sampling(max_tokens=min(ANSWER_TOKENS, self.state.limits.max_tokens)),
            emit=events.put,
            scope="page",
            deadline=time.monotonic() + limit_s,
        )
        self.state.ready().submit(job)
        try:
            while True:
                event = events.get(timeout=limit_s + 10)
                if isinstance(event, Failed):
                    raise event.error
                yield event
                if isinstance(event, Done):
                    return
        finally:
            job.cancelled.set()

    def _fired(self, wave: Waveform, question: str) -> str:
        """Return which encoders heard the clip, and in a mixture which fired."""
        from ossicle.inference.trace import lines, trace

        rows = lines(self._call(lambda engine: trace(engine, wave, question)))
        return "\n".join(f"- {html.escape(row.strip())}" for row in rows)

    def _when(self, wave: Waveform, question: str, answer: str) -> str:
        """Return the picture with a lane for each kind of evidence of when the model listened."""
        from ossicle.inference.listen import listened
        from ossicle.serve.picture import figure

        return figure(wave, self._call(lambda engine: listened(engine, wave, question, answer)))

    def _call(self, do: Callable[[Any], Any]) -> Any:
        """Let the worker's thread look at the model."""
        future = self.state.ready().call(do, alone=True)
        try:
            return future.result(timeout=self.state.limits.deadline_s)
        finally:
            future.cancel()  # nothing, once it has run


def told(done: Done) -> str:
    """Return one line on what an answer took.

    Example:
        >>> told(Done(reason="stop", prompt_tokens=9, completion_tokens=3, first_token_s=0.05, total_s=0.1))
        'first token after 50 ms, all 3 after 100 ms'
    """
    first_ms, total_ms = done.first_token_s * 1000, done.total_s * 1000
    line = f"first token after {first_ms:.0f} ms, all {done.completion_tokens} after {total_ms:.0f} ms"
    if done.audio_tokens:
        line += f" · {done.audio_tokens} audio tokens, {done.cached_tokens} remembered"
    return line + (f" · {done.hits} handle hits saved {done.saved_s * 1000:.0f} ms" if done.hits else "")


def _wave(clip: Recording) -> Waveform:
    """Return a recording's samples as a waveform."""
    assert clip.samples is not None
    return Waveform(samples=clip.samples)


def _text(content: Any) -> str:
    """Return a turn's text; Gradio hands parts back as a list."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [content]
    return "".join(part if isinstance(part, str) else str(part.get("text", "")) for part in parts)
