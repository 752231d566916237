"""Models behind an address: any OpenAI-compatible server that takes audio parts, and any such server as a judge.

(waveform, question) ──► POST /chat/completions {content: [input_audio (base64 WAV), text]} ──► answer
"""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from ossicle.audio.io import load_audio
from ossicle.errors import ConfigError, DataError
from ossicle.types import Waveform

TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteReply:
    """What the server said."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """An OpenAI-compatible server.

    Attributes:
        url: Base address, `https://host/v1`.
        model: Name of the model there.
        key: Bearer token, or empty.
    """

    url: str
    model: str
    key: str = ""

    def answer(
        self, items: Sequence[tuple[Waveform | Path | None, str]], *, max_new_tokens: int, batch_size: int = 8
    ) -> list[RemoteReply]:
        """Return one reply per item; up to `batch_size` requests run at once.

        Raises:
            DataError: The server does not answer as expected.
        """
        with ThreadPoolExecutor(max_workers=max(1, min(batch_size, 8))) as pool:
            said = pool.map(lambda item: self.say(_content(*item), max_new_tokens), items)
            return [RemoteReply(text=text) for text in said]

    def say(self, content: Any, max_new_tokens: int) -> str:
        """Return the reply to one user turn.

        Raises:
            DataError: The server does not answer as expected.
        """
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": max_new_tokens,
            "temperature": 0.0,
        }
        headers = {"Content-Type": "application/json"}
        if self.key:
            headers["Authorization"] = f"Bearer {self.key}"
        request = urllib.request.Request(f"{self.url.rstrip('/')}/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                return str(json.loads(reply.read())["choices"][0]["message"]["content"] or "").strip()
        except (urllib.error.URLError, TimeoutError, KeyError, IndexError, json.JSONDecodeError) as error:
            raise DataError(f"{self.url}: {error}; expected an OpenAI-compatible server with '{self.model}'") from None


def remote_named(spec: str, *, key: str = "") -> Remote:
    """Return the server of `https://host/v1#model`.

    Raises:
        ConfigError: No model after the `#`.
    """
    url, _, model = spec.partition("#")
    if not model:
        raise ConfigError(f"'{spec}': no model named; expected https://host/v1#model")
    return Remote(url=url, model=model, key=key)


def _content(audio: Waveform | Path | None, question: str) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = []
    if audio is not None:
        wave = audio if isinstance(audio, Waveform) else load_audio(audio)
        buffer = io.BytesIO()
        soundfile.write(buffer, wave.samples, wave.sample_rate_hz, format="WAV", subtype="PCM_16")
        data = base64.b64encode(buffer.getvalue()).decode()
        parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    return [*parts, {"type": "text", "text": question}]
