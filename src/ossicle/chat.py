"""Conversations to token ids and labels, through the tokenizer's own chat template.

    messages ──template──► text with `<audio>` tags ──expand──► slots + marker per clip ──tokenize──► ids, labels

Labels follow the text that a template adds for each assistant message: what the template prints up to the generation
prompt gives no loss, what it prints after does (`assistant`); or every text token does (`all`, LTU-AS's paper mode).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from ossicle.errors import DataError, suggest

AUDIO_TAG = "<audio>"

TEMPLATES = {
    "plain": (
        "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    ),
    "alpaca": (
        "{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}"
        "{% else %}"
        "{% set parts = message['content'].split('<audio>') %}"
        "{% for part in parts[1:] %}<audio>{% endfor %}"
        "{% if loop.first %}{{ bos_token }}{% endif %}"
        "{% set body = parts | join('') %}"
        "### Instruction:\n{{ body }}\n\n"
        "{% if message['transcript'] %}### Input:\n{{ message['transcript'] }}\n\n{% endif %}"
        "### Response:\n"
        "{% endif %}{% endfor %}"
    ),
}
"""Chat templates for decoders that bring none: `plain` (our choice) and LTU-AS's `alpaca`."""

PLAIN_TOKENS = ["<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
"""Special tokens of the `plain` template."""


def template(name: str) -> str:
    """Return a named chat template.

    Raises:
        DataError: No template of that name.
    """
    if name not in TEMPLATES:
        raise DataError(f"unknown chat template '{name}'; {suggest(name, list(TEMPLATES))}")
    return TEMPLATES[name]


def with_system(chat_template: str, system: str) -> str:
    """Return a chat template that begins conversations without a system prompt with one.

    It lies in the template because that is what is saved with a model: who trains, asks and serves it says the same.

    Example:
        >>> with_system("{{ messages[0]['content'] }}", "Be brief.").endswith("{{ messages[0]['content'] }}")
        True
    """
    words = json.dumps(system, ensure_ascii=False)
    return (
        "{% if messages and messages[0]['role'] != 'system' %}"
        f"{{% set messages = [{{'role': 'system', 'content': {words}}}] + messages %}}"
        "{% endif %}"
    ) + chat_template


def spoken(turn: dict[str, Any], chat_template: str | None) -> dict[str, Any]:
    """Return a turn whose transcript is where the chat template looks for it, or else at its end.

    Example:
        >>> spoken({"role": "user", "content": "What?", "transcript": "hello"}, None)["content"]
        'What?\\nhello'
    """
    if "transcript" not in turn or "transcript" in str(chat_template):
        return turn
    return {"role": turn["role"], "content": f"{turn['content']}\n{turn['transcript']}"}


def flatten(messages: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[Any]]:
    """Return messages with plain string content, and the audios that typed parts name, in order.

    Args:
        messages: `{"role", "content"}`; content is a string with `<audio>` tags, or a list of typed parts
            (`{"type": "text", "text"}`, `{"type": "audio", "audio" | "path" | "url"}`).

    Raises:
        DataError: A part of unknown type.

    Example:
        >>> parts = [{"type": "audio", "path": "a.wav"}, {"type": "text", "text": "What?"}]
        >>> flatten([{"role": "user", "content": parts}])
        ([{'role': 'user', 'content': '<audio>What?'}], ['a.wav'])
    """
    plain, audios = [], []
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            plain.append(dict(message))
            continue
        text = ""
        for part in content:
            kind = part.get("type")
            if kind == "text":
                text += part["text"]
            elif kind == "audio":
                text += AUDIO_TAG
                audios.append(next((part[key] for key in ("audio", "path", "url") if key in part), None))
            else:
                raise DataError(f"a message part has type {kind!r}; expected 'text' or 'audio'")
        plain.append({**message, "content": text})
    return plain, audios


def render(
    tokenizer: Any, messages: Sequence[dict[str, Any]], *, prompt: bool, chat_template: str | None = None
) -> str:
    """Return the conversation as the template prints it; `prompt` adds what an answer follows."""
    text: str = tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=prompt, chat_template=chat_template
    )
    return text


def pieces(
    tokenizer: Any,
    messages: Sequence[dict[str, Any]],
    *,
    loss_on: Literal["assistant", "all"] = "assistant",
    chat_template: str | None = None,
) -> list[tuple[str, bool]]:
    """Return the rendered conversation in order as (text, gives loss).

    Raises:
        DataError: The template changes earlier text when a message is added, so that answers cannot be told apart.
    """
    done, out = "", []
    for index, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:index], prompt=True, chat_template=chat_template)
        after = render(tokenizer, messages[: index + 1], prompt=False, chat_template=chat_template)
        if not before.startswith(done) or not after.startswith(before):
            raise DataError("the chat template rewrites earlier turns; train on one turn per sample, or loss_on: all")
        out += [(before[len(done) :], loss_on == "all"), (after[len(before) :], True)]
        done = after
    if not out:
        out = [(render(tokenizer, messages, prompt=False, chat_template=chat_template), loss_on == "all")]
    return out
