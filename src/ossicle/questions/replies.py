"""Replies of a language model to pairs of question and answer: strictly checked, or as the official decoders read them.

    {"pairs": [{"q": "…", "a": "…"}, …]}  ──schema──► pairs, or a sentence that says what is wrong

The official ones (`paper_*`) delete newlines, take the shortest {…} spans and differ by generator in what a bad span
loses. Source: LTU and LTU-AS data generation, as the official code behaves.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictStr, ValidationError

from ossicle.errors import DataError

MAX_PAIRS = 60
SPAN = re.compile(r"\{.*?\}")
KEY_LENGTH = 4
LENIENT = ("jointas", "jointas_v2")
STOPS_AT_MISSING = ("iemocap", *LENIENT)
CRASHES = ("ltu_as_gpt_qa",)


class Pair(BaseModel):
    """A question and its answer."""

    model_config = ConfigDict(extra="forbid")
    q: StrictStr
    a: StrictStr


class Pairs(BaseModel):
    """What is asked for."""

    model_config = ConfigDict(extra="forbid")
    pairs: list[Pair]


class Paragraph(BaseModel):
    """What comes first in a prompt of two steps."""

    model_config = ConfigDict(extra="forbid")
    paragraph: StrictStr


@lru_cache(maxsize=8)
def schema(model: type[BaseModel]) -> dict[str, Any]:
    """Return the strict JSON schema of a reply, as OpenAI-compatible servers take it."""
    plain = model.model_json_schema()
    return {"type": "json_schema", "json_schema": {"name": model.__name__.lower(), "strict": True, "schema": plain}}


def read_pairs(text: str) -> list[tuple[str, str]]:
    """Return the pairs of a reply; a pair that occurs twice is there once.

    Raises:
        DataError: It is not the JSON object that was asked for, or it holds no pair, or an empty text.
    """
    found = _checked(text, Pairs).pairs
    pairs = list(dict.fromkeys((pair.q.strip(), pair.a.strip()) for pair in found))
    if not 0 < len(pairs) <= MAX_PAIRS:
        raise DataError(f"it holds {len(pairs)} pairs")
    if any(not question or not answer for question, answer in pairs):
        raise DataError("a question or an answer is empty")
    return pairs


def read_paragraph(text: str) -> str:
    """Return the paragraph of a reply.

    Raises:
        DataError: It is not the JSON object that was asked for, or it is empty.
    """
    words = _checked(text, Paragraph).paragraph.strip()
    if not words:
        raise DataError("the paragraph is empty")
    return words


def _checked(text: str, model: type[Any]) -> Any:
    """Return the reply as its schema, taken out of a code fence where it stands in one."""
    bare = re.sub(r"^\s*```(?:json)?|```\s*$", "", text.strip())
    try:
        return model.model_validate(json.loads(bare))
    except json.JSONDecodeError as error:
        raise DataError(f"it is not JSON ({error.msg} at character {error.pos})") from None
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DataError(f"'{place}' does not fit the form: {first['msg']}") from None


def paper_strict(reply: str) -> list[dict[str, Any]]:
    """Return the spans of a reply as most official generators decode them; one bad span loses all.

    Raises:
        json.JSONDecodeError: A span is no JSON.
    """
    return [json.loads(span) for span in SPAN.findall(reply.replace("\n", ""))]


def paper_lenient(reply: str) -> list[dict[str, Any]]:
    """Return the spans as the joint generators decode them: a bad one is cut at `"q"` and `"a"`, garbage and all."""
    found = []
    for span in SPAN.findall(reply.replace("\n", "")):
        try:
            found.append(json.loads(span))
        except json.JSONDecodeError:
            first, second = span.find('"q"'), span.find('"a"')
            question, answer = span[first + KEY_LENGTH : second], span[second + KEY_LENGTH :]
            found.append({"q": question.strip(' ",}'), "a": answer.strip(' ",}')})
    return found


def paper_pairs(reply: str, generator: str) -> list[list[Any]]:
    """Return the pairs that an official generator saves for a clip with this reply.

    Args:
        reply: Of the language model.
        generator: libritts, iemocap, mosei, voxceleb, fma, jointas, jointas_v2 or ltu_as_gpt_qa.

    Raises:
        json.JSONDecodeError: Where the official generator stops with it (`ltu_as_gpt_qa`).
        KeyError: The same.
    """
    try:
        found = paper_lenient(reply) if generator in LENIENT else paper_strict(reply)
    except json.JSONDecodeError:
        if generator in CRASHES:
            raise
        return []
    pairs = []
    for item in found:
        try:
            pairs.append([item["q"], item["a"]])
        except KeyError:
            if generator in CRASHES:
                raise
            if generator in STOPS_AT_MISSING:
                break
    return pairs
