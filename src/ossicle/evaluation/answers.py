"""Raw answers: ask a model once for each (sound, question), keep every reply, resume where a run stopped.

    requests ──(not in the store yet, by length, one clip's questions together)──► Answerer ──► answers.jsonl ──► score

The controls are requests like any other: `blind` has no sound, `shuffled` another one. Scoring reads the store, never
the model, so a parser can be mended and every score redone without it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from tqdm import tqdm

from ossicle.data.rows import read_appended
from ossicle.errors import AudioError, DataError
from ossicle.evaluation.task import Item, Sound
from ossicle.types import Waveform

BLIND = ""
AHEAD, AHEAD_SECONDS = 2048, 1800.0
"""Questions, and seconds of their sounds, that a model with a running batch is handed at once."""
logger = logging.getLogger(__name__)


class Reply(Protocol):
    """What an answerer gives back."""

    text: str


@runtime_checkable
class Answerer(Protocol):
    """Anything that answers questions about sounds; None instead of a sound asks blind.

    One that has a method `perceive(Sound)` gets what that returns instead of waveforms. One that has `answer_each` gets
    many questions at once and yields each reply when it is there.
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
        self.seconds: dict[str, float] = {}
        if path is None:
            return
        if lines := read_appended(path):
            self._read(path, lines, dict(header))
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps({"header": dict(header)}, ensure_ascii=False) + "\n", encoding="utf-8")

    def _read(self, path: Path, lines: list[dict[str, Any]], header: dict[str, Any]) -> None:
        known = lines[0].get("header")
        if known != header:
            changed = sorted(k for k in {*header, *(known or {})} if (known or {}).get(k) != header.get(k))
            raise DataError(f"{path} holds answers of another run ({', '.join(changed)} differ); give another --out")
        self.replies = {line["key"]: line["answer"] for line in lines[1:]}
        for line in lines[1:]:
            if line.get("unreadable"):
                task, audio, _ = json.loads(line["key"])
                self.unreadable.add((task, audio))

    def __contains__(self, request: Request) -> bool:
        return request.key in self.replies

    def __getitem__(self, request: Request) -> str:
        return self.replies[request.key]

    def lengths(self, sounds: Mapping[str, Sound], items: Iterable[Item]) -> dict[str, float]:
        """Return the length of each item's sound, s; a composition that nobody heard in this run is composed again."""
        found = {}
        for key in dict.fromkeys(item.audio for item in items):
            sound = sounds[key]
            if sound.digest not in self.seconds:
                try:
                    known = sound.duration_s if sound.path is not None else 0.0
                    self.seconds[sound.digest] = known or sound.load().duration_s
                except AudioError:
                    self.seconds[sound.digest] = 0.0
            found[key] = self.seconds[sound.digest]
        return found

    def add(self, requests: Iterable[Request], texts: Iterable[str]) -> None:
        """Keep the replies of a batch; of a clip that could not be decoded the line says so."""
        lines = {}
        for request, text in zip(requests, texts, strict=True):
            lost = {"unreadable": True} if (request.task, request.audio) in self.unreadable else {}
            lines[request.key] = {"key": request.key, "answer": text, **lost}
        self.replies.update({key: line["answer"] for key, line in lines.items()})
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines.values())


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


def longest(requests: Iterable[Request]) -> list[Request]:
    """Return each request once, with the longest answer that any task wants of it: blind ones are shared by tasks."""
    found: dict[str, Request] = {}
    for request in requests:
        known = found.setdefault(request.key, request)
        if request.max_new_tokens > known.max_new_tokens:
            found[request.key] = request
    return list(found.values())


def batches(
    requests: Iterable[Request], sounds: Mapping[str, Mapping[str, Sound]], size: int, *, running: bool = False
) -> Iterator[list[Request]]:
    """Group requests of like length; all questions about one sound stand side by side, so that it is encoded once.

    Sounds of one length stand in no order, so that a model that mixes a batch up does not meet the same label again.

    Args:
        requests: What to ask.
        sounds: Task → key → sound.
        size: Most questions in a group.
        running: Answers of any length, with and without sound, may stand in one group; its sounds have at most
            `AHEAD_SECONDS` together.
    """
    unique = longest(requests)

    def length(request: Request) -> float:
        return sounds[request.task][request.audio].duration_s if request.audio else 0.0

    def kind(request: Request) -> tuple[int, bool]:
        return (0, False) if running else (request.max_new_tokens, bool(request.audio))

    def mixed(request: Request) -> str:
        return hashlib.blake2b(f"{request.task}/{request.audio}".encode(), digest_size=8).hexdigest()

    unique.sort(key=lambda r: (kind(r), length(r), mixed(r), r.task, r.audio, r.question))
    group: list[Request] = []
    seconds = 0.0
    for request in unique:
        new = not group or (request.task, request.audio) != (group[-1].task, group[-1].audio)
        more = length(request) if new else 0.0
        too_long = running and seconds + more > AHEAD_SECONDS
        if group and (len(group) >= size or kind(group[0]) != kind(request) or too_long):
            yield group
            group, seconds, more = [], 0.0, length(request)
        group.append(request)
        seconds += more
    if group:
        yield group


def collect(
    answerer: Answerer,
    requests: Iterable[Request],
    sounds: Mapping[str, Mapping[str, Sound]],
    store: AnswerStore,
    *,
    batch_size: int = 64,
    progress: bool = False,
    label: str = "",
) -> None:
    """Ask everything that the store does not hold yet.

    Args:
        answerer: The model; one that has `answer_each` (see `Engine.answer_each`) gets many questions ahead.
        requests: What to ask.
        sounds: Task → key → sound.
        store: Where replies go.
        batch_size: Most questions at once.
        progress: Show a bar with the time left on stderr.
        label: In front of the bar.
    """
    perceive = getattr(answerer, "perceive", _heard)
    running = hasattr(answerer, "answer_each")
    missing = [request for request in requests if request not in store]
    groups = list(batches(missing, sounds, AHEAD if running else batch_size, running=running))
    with tqdm(
        total=sum(len(group) for group in groups), unit="question", desc=label, disable=not progress or not groups
    ) as bar:
        for group in groups:
            loaded = _load(group, sounds, store, perceive)
            lost = [request for request in group if (request.task, request.audio) in store.unreadable]
            store.add(lost, [""] * len(lost))
            bar.update(len(lost))
            readable = [request for request in group if (request.task, request.audio) not in store.unreadable]
            for asked, texts in _answers(answerer, readable, loaded, batch_size, running=running):
                store.add(asked, texts)
                bar.update(len(asked))


def _answers(
    answerer: Any,
    group: list[Request],
    loaded: Mapping[tuple[str, str], Any],
    batch_size: int,
    *,
    running: bool,
) -> Iterator[tuple[list[Request], list[str]]]:
    """Yield requests with their replies, some at a time."""
    items = [(loaded.get((request.task, request.audio)), request.question) for request in group]
    if not items:
        return
    if not running:
        replies = answerer.answer(items, max_new_tokens=group[0].max_new_tokens, batch_size=len(items))
        yield group, [reply.text for reply in replies]
        return
    most = [request.max_new_tokens for request in group]
    done: list[tuple[int, str]] = []
    for place, reply in answerer.answer_each(items, max_new_tokens=most, batch_size=batch_size):
        done.append((place, reply.text))
        if len(done) == batch_size:
            yield [group[place] for place, _ in done], [text for _, text in done]
            done = []
    yield [group[place] for place, _ in done], [text for _, text in done]


def _heard(sound: Sound) -> Waveform:
    return sound.load()


def _load(
    group: list[Request],
    sounds: Mapping[str, Mapping[str, Sound]],
    store: AnswerStore,
    perceive: Callable[[Sound], Any],
) -> dict[tuple[str, str], Any]:
    """Return what the answerer gets of each sound of a batch; what cannot be decoded is noted in the store."""
    keys = list(dict.fromkeys((request.task, request.audio) for request in group if request.audio))

    def heard(key: tuple[str, str]) -> Any:
        try:
            return perceive(sounds[key[0]][key[1]])
        except AudioError as error:
            return error

    loaded = {}
    with ThreadPoolExecutor(os.cpu_count() if perceive is _heard else 1) as pool:  # a model perceives one at a time
        for key, found in zip(keys, pool.map(heard, keys), strict=True):
            if isinstance(found, AudioError):
                logger.warning("%s", found)
                store.unreadable.add(key)
                continue
            loaded[key] = found
            if isinstance(found, Waveform):
                store.seconds[sounds[key[0]][key[1]].digest] = found.duration_s
    return loaded
