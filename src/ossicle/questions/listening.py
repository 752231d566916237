"""Open questions to a model that hears the clip itself: the question is ours, the answer is its reply as it stands.

    clip ─► WAV at 16 kHz, base64 ┐
    a few of the prompt's questions┴─► {"type": "input_audio"} + text ─► reply ─► (question, reply)

For endpoints that listen (ossicle's own server, or any that takes OpenAI's audio parts): pseudo-labels by a model, not
by an owner; the row says so. Which questions a clip gets depends on its key alone. Source: our choice.
"""

from __future__ import annotations

import base64
import io
from hashlib import blake2b
from random import Random
from typing import Any

from ossicle.data.clip import Clip
from ossicle.errors import AudioError
from ossicle.questions.endpoint import Rejected
from ossicle.questions.prompts import Prompt

LONGEST_REPLY = 4000
"""Characters; more is no answer but a model that does not stop."""


def chosen(clip: Clip, asked: Prompt) -> tuple[str, ...]:
    """Return the questions that a clip gets, without repetition and the same ones every time."""
    rng = Random(blake2b(clip.key.encode(), digest_size=8).digest())
    return tuple(rng.sample(asked.questions, min(asked.pairs, len(asked.questions))))


def audio_part(clip: Clip) -> dict[str, Any]:
    """Return a clip as a part of a message.

    Raises:
        Rejected: The recording cannot be read.
    """
    import soundfile

    try:
        wave = clip.read()
    except AudioError:
        raise Rejected("the recording cannot be read") from None
    file = io.BytesIO()
    soundfile.write(file, wave.samples, wave.sample_rate_hz, format="WAV", subtype="PCM_16")
    data = base64.b64encode(file.getvalue()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


def messages(audio: dict[str, Any], question: str) -> list[dict[str, Any]]:
    """Return the conversation that asks about a clip."""
    return [{"role": "user", "content": [audio, {"type": "text", "text": question}]}]


def checked(reply: str) -> str:
    """Return a reply as an answer.

    Raises:
        Rejected: It is empty, or does not end.
    """
    answer = " ".join(reply.split())
    if not 0 < len(answer) <= LONGEST_REPLY:
        raise Rejected("the reply is empty" if not answer else "the reply does not end")
    return answer
