"""Raw answers: ask a model once for each (sound, question), keep every reply, resume where a run stopped.

    requests ──(not in the store yet, by length, one clip's questions together)──► Answerer ──► answers.jsonl ──► score

The controls are requests like any other: `blind` has no sound, `shuffled` another one. Scoring reads the store, never
the model, so a parser can be mended and every score redone without it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

from ossicle.errors import AudioError, DataError
from ossicle.evaluation.task import Sound
from ossicle.types import Waveform

BLIND = ""
logger = logging.getLogger(__name__)


class Reply(Protocol):
    """What an answerer gives back."""

    text: str


@runtime_checkable
class Answerer(Protocol):
    """Anything that answers questions about sounds; None instead of a sound asks blind.

    One that has a method `perceive(Sound)` gets what that returns instead of waveforms.
    """

    def answer(
        self, items: list[tuple[Waveform | Path | None, str]], *, max_new_tokens: int, batch_size: int
    ) -> list[Reply]:
        """Return one reply per item, in order; the same sound object in several items need be encoded only once."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Request:
    """One thing to ask.

    Attributes:
        task: Task whose sounds `audio` is a key of; empty for blind requests, which need none.
        audio: Key of the sound, empty = blind.
        question: Words asked.
        max_new_tokens: Longest answer.
    """

    task: str
    audio: str
    question: str
    max_new_tokens: int = 32

    @property
    def key(self) -> str:
        """Identity in the store."""
        return json.dumps([self.task if self.audio else "", self.audio, self.question], ensure_ascii=False)


class AnswerStore:
    """Replies on disk, one JSON line each, appended and flushed batch by batch.

    Args:
        path: File; None keeps replies in memory only.
        header: What the answers depend on (model, seed, …); a file made under another header is refused.
    """

    def __init__(self, path: Path | None, header: Mapping[str, Any]) -> None:
        self.path = path
        self.replies: dict[str, str] = {}
        self.unreadable: set[tuple[str, str]] = set()
        if path is None:
            return
        if path.exists() and path.stat().st_size:
            self._read(path, dict(header))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"header": dict(header)}, ensure_ascii=False) + "\n", encoding="utf-8")

    def _read(self, path: Path, header: dict[str, Any]) -> None:
        text = path.read_bytes()
        if not text.endswith(b"\n"):  # the run was killed while writing: the torn line is asked again
            text = text[: text.rfind(b"\n") + 1]
            path.write_bytes(text)
        lines = [json.loads(line) for line in text.decode("utf-8").splitlines()]
        known = lines[0].get("header") if lines else None
        if known != header:
            changed = sorted(k for k in {*header, *(known or {})} if (known or {}).get(k) != header.get(k))
            raise DataError(f"{path} holds answers of another run ({', '.join(changed)} differ); give another --out")
        self.replies = {line["key"]: line["answer"] for line in lines[1:]}

    def __contains__(self, request: Request) -> bool:
        return request.key in self.replies

    def __getitem__(self, request: Request) -> str:
        return self.replies[request.key]

    def add(self, requests: Iterable[Request], texts: Iterable[str]) -> None:
        """Keep the replies of a batch."""
        new = {request.key: text for request, text in zip(requests, texts, strict=True)}
        self.replies.update(new)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                for key, text in new.items():
                    file.write(json.dumps({"key": key, "answer": text}, ensure_ascii=False) + "\n")


class Silent:
    """Answers nothing: for scoring again what is known, without a model."""

    def answer(self, items: list[Any], *, max_new_tokens: int, batch_size: int) -> list[Reply]:
        """Refuse.

        Raises:
            DataError: Always.
        """
        raise DataError(
            f"{len(items)} questions have no answer yet; run `ossicle eval` with the model, then score again"
        )


def read_header(path: Path) -> dict[str, Any]:
    """Return what the answers of a file depend on.

    Raises:
        DataError: It is not an answer file.
    """
    try:
        with path.open(encoding="utf-8") as file:
            return dict(json.loads(file.readline())["header"])
    except (OSError, json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError):
        raise DataError(f"{path}: not an answer file; expected one that `ossicle eval` wrote") from None


def batches(
    requests: Iterable[Request], sounds: Mapping[str, Mapping[str, Sound]], size: int
) -> Iterator[list[Request]]:
    """Group requests of like length; all questions about one sound stand side by side, so that it is encoded once."""
    unique = list({request.key: request for request in requests}.values())

    def length(request: Request) -> float:
        return sounds[request.task][request.audio].duration_s if request.audio else 0.0

    unique.sort(key=lambda r: (r.max_new_tokens, bool(r.audio), length(r), r.task, r.audio, r.question))
    group: list[Request] = []
    for request in unique:
        if group and (
            len(group) == size
            or group[0].max_new_tokens != request.max_new_tokens
            or bool(group[0].audio) != bool(request.audio)
        ):
            yield group
            group = []
        group.append(request)
    if group:
        yield group


def collect(
    answerer: Answerer,
    requests: Iterable[Request],
    sounds: Mapping[str, Mapping[str, Sound]],
    store: AnswerStore,
    *,
    batch_size: int = 32,
    progress: bool = False,
    label: str = "",
) -> None:
    """Ask everything that the store does not hold yet.

    Args:
        answerer: The model.
        requests: What to ask.
        sounds: Task → key → sound.
        store: Where replies go.
        batch_size: Most questions at once.
        progress: Show a bar with the time left on stderr.
        label: In front of the bar.
    """
    perceive = getattr(answerer, "perceive", _heard)
    missing = [request for request in requests if request not in store]
    groups = list(batches(missing, sounds, batch_size))
    with tqdm(total=sum(len(group) for group in groups), unit="question", desc=label, disable=not progress) as bar:
        for group in groups:
            loaded = _load(group, sounds, store, perceive)
            readable = [request for request in group if (request.task, request.audio) not in store.unreadable]
            store.add([request for request in group if request not in readable], [""] * (len(group) - len(readable)))
            items = [(loaded.get((request.task, request.audio)), request.question) for request in readable]
            if items:
                replies = answerer.answer(items, max_new_tokens=group[0].max_new_tokens, batch_size=len(items))
                store.add(readable, [reply.text for reply in replies])
            bar.update(len(group))


def _heard(sound: Sound) -> Waveform:
    return sound.load()


def _load(
    group: list[Request],
    sounds: Mapping[str, Mapping[str, Sound]],
    store: AnswerStore,
    perceive: Callable[[Sound], Any],
) -> dict[tuple[str, str], Any]:
    """Return what the answerer gets of each sound of a batch; what cannot be decoded is noted in the store."""
    loaded = {}
    for key in dict.fromkeys((request.task, request.audio) for request in group if request.audio):
        try:
            loaded[key] = perceive(sounds[key[0]][key[1]])
        except AudioError as error:
            logger.warning("%s", error)
            store.unreadable.add(key)
    return loaded
