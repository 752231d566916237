"""Questions that should not be taught, taken out with a reason, countably, and so that they can be put back.

    rows ─► length · language · not an answer · answer in the question · evaluation set · duplicates ─► kept
                            └─► NAME.rejected.jsonl: {"row": 17, "reason": …, "content": row}

Source: our choice; LTU-AS's own filter is `paper`.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ossicle.config import Section
from ossicle.data.clip import Clip
from ossicle.data.rows import Tally, read_rows
from ossicle.errors import ConfigError, DataError
from ossicle.questions import paper_data
from ossicle.questions.language import WORDS_OF, language_of
from ossicle.questions.not_answers import is_not_an_answer

NAMES_ITS_ANSWER = (
    "presence",
    "choice",
    "count",
    "onset",
    "gender",
    "same_label",
    "sentiment",
    "pitch",
    "volume",
    "speed",
)
"""Tasks whose questions hold possible answers by design."""
MIN_TRANSCRIPT_WORDS = 5
_SMALL = (
    "a an the is are was were be it its this that of in on to and or for with as at by from there do does did what "
    "who how why when which can could would you i he she they his her their not no yes clip audio recording sound"
)
SMALL_WORDS = frozenset(_SMALL.split())


class FilterConfig(Section):
    """Which filters run.

    Attributes:
        min_answer_words: Shorter answers of open questions go.
        max_answer_words: Longer answers go.
        language: Of the answers, by script and small words (`en`, `de`, …); empty = any.
        not_answers: Take out what declines: `ours` (not from answers made by rule), `paper`, or empty = keep.
        leaked: Share of an answer's words that may stand in its question; 1 = all.
        near: Likeness (0 to 1) from which two questions about a clip count as one; 1 = only equal ones.
    """

    min_answer_words: int = 1
    max_answer_words: int = 400
    language: str = "en"
    not_answers: str = "ours"
    leaked: float = 0.8
    near: float = 0.85


@dataclass(slots=True, kw_only=True)
class Held:
    """What evaluation sets hold, which nothing may be taught of.

    Attributes:
        clips: Keys of clips.
        recordings: Longer recordings that their clips were cut from.
        transcripts: What is said in them, plain.
        files: Hashes of their files, by size.
    """

    clips: set[str] = field(default_factory=set)
    recordings: set[str] = field(default_factory=set)
    transcripts: set[str] = field(default_factory=set)
    files: dict[int, set[str]] = field(default_factory=dict)

    def add(self, clip: Clip) -> None:
        """Hold a clip out."""
        self.clips.add(clip.key)
        if clip.recording:
            self.recordings.add(clip.recording)
        words = plain(clip.transcript or "")
        if len(words.split()) >= MIN_TRANSCRIPT_WORDS:
            self.transcripts.add(words)
        if clip.path.is_file():
            self.files.setdefault(clip.path.stat().st_size, set()).add(_hash(clip.path))

    def why(self, row: dict[str, Any]) -> str | None:
        """Return why a row must not be taught, None when it may."""
        if row.get("clip") in self.clips or row.get("other") in self.clips:
            return "clip of an evaluation set"
        if row.get("recording") in self.recordings:
            return "recording of an evaluation set"
        if self.transcripts and plain(str(row.get("transcript") or "")) in self.transcripts:
            return "transcript of an evaluation set"
        for audio in row.get("audios", ()) if self.files else ():
            path = Path(audio["path"] if isinstance(audio, dict) else audio)
            if path.is_file() and _same_file(path, self.files):
                return "recording of an evaluation set"
        return None


def _same_file(path: Path, files: dict[int, set[str]]) -> bool:
    known = files.get(path.stat().st_size)
    return known is not None and _hash(path) in known


def _hash(path: Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=12).hexdigest()


def plain(text: str) -> str:
    """Return lower-case words without punctuation.

    Example:
        >>> plain("It's  Late, isn't it?")
        "it's late isn't it"
    """
    folded = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    return " ".join(re.sub(r"[^\w' ]+", " ", folded).split())


def turns(row: dict[str, Any]) -> tuple[str, str]:
    """Return question and last answer of a row.

    Raises:
        DataError: It has no messages.
    """
    try:
        asked = next(turn["content"] for turn in row["messages"] if turn["role"] == "user")
        return asked.replace("<audio>", "").strip(), row["messages"][-1]["content"]
    except (KeyError, TypeError, StopIteration):
        raise DataError(
            f"row {row.get('id', '')}: no messages; expected questions, as `data generate` writes"
        ) from None


class Filters:
    """Judges rows one after the other; duplicates are judged against the rows that were kept before."""

    def __init__(self, config: FilterConfig, held: Held | None = None) -> None:
        if config.not_answers not in ("", "ours", "paper"):
            raise ConfigError(f"not_answers is '{config.not_answers}', expected ours, paper or nothing")
        if config.language and config.language not in WORDS_OF:
            raise ConfigError(f"language is '{config.language}', expected one of {', '.join(WORDS_OF)}, or nothing")
        self.config, self.held = config, held or Held()
        self.seen: set[bytes] = set()
        self.of_clip: dict[str, list[frozenset[str]]] = {}
        declines: dict[str, Callable[[str], bool]] = {
            "ours": is_not_an_answer,
            "paper": lambda text: not paper_data.keeps(text),
        }
        self.declines = declines.get(config.not_answers)

    def why(self, row: dict[str, Any]) -> str | None:
        """Return why a row goes, None when it stays."""
        question, answer = turns(row)
        words = answer.split()
        if len(words) < self.config.min_answer_words and row.get("task") == "open":
            return "answer too short"
        if not words or len(words) > self.config.max_answer_words:
            return "answer too long" if words else "no answer"
        if row.get("task") != "asr" and (reason := self._foreign(answer)):
            return reason
        by_rule = row.get("made", {}).get("by") == "closed" and self.config.not_answers != "paper"
        if self.declines is not None and row.get("task") != "asr" and not by_rule and self.declines(answer):
            return "not an answer"
        if self.config.leaked < 1 and row.get("task") not in NAMES_ITS_ANSWER and self._leaks(question, answer):
            return "answer in the question"
        return self.held.why(row) or self._twice(row, plain(question), plain(answer))

    def _foreign(self, answer: str) -> str | None:
        """Return why an answer is not in the language that is wanted; what is said in a clip is in its own."""
        wanted = self.config.language
        if wanted in WORDS_OF and not _latin(answer):
            return "another script"
        return "another language" if wanted and language_of(answer) not in (None, wanted) else None

    def _leaks(self, question: str, answer: str) -> bool:
        told = set(plain(answer).split()) - SMALL_WORDS
        return bool(told) and len(told & set(plain(question).split())) / len(told) >= self.config.leaked

    def _twice(self, row: dict[str, Any], question: str, answer: str) -> str | None:
        clip = f"{row.get('clip') or row.get('audios')}|{row.get('other', '')}"
        mark = hashlib.blake2b(f"{clip}|{question}|{answer}".encode(), digest_size=12).digest()
        if mark in self.seen:
            return "duplicate"
        self.seen.add(mark)
        if self.config.near >= 1:
            return None
        words = frozenset(f"q {word}" for word in question.split()) | frozenset(answer.split())
        others = self.of_clip.setdefault(clip, [])
        for other in others:
            if len(words & other) >= self.config.near * len(words | other):
                return "near duplicate"
        others.append(words)
        return None


def _latin(text: str) -> bool:
    letters = [letter for letter in text if letter.isalpha()]
    return sum(letter.isascii() for letter in letters) >= 0.8 * len(letters)


def apply(
    rows: Iterable[dict[str, Any]], filters: Filters, tally: Tally, reject: Callable[[dict[str, Any]], None]
) -> Iterator[dict[str, Any]]:
    """Yield the rows that stay; the others go to `reject` with their number and reason."""
    for number, row in enumerate(rows):
        tally.taken += 1
        reason = filters.why(row)
        if reason is None:
            tally.given += 1
            yield row
        else:
            tally.skip(reason, str(row.get("id", number)))
            reject({"row": number, "reason": reason, "content": row})


def restore(kept: Path, rejected: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows as they were before they were filtered."""
    waiting = read_rows(rejected)
    gone = next(waiting, None)
    number = 0
    for row in read_rows(kept):
        while gone is not None and gone["row"] == number:
            yield gone["content"]
            gone, number = next(waiting, None), number + 1
        yield row
        number += 1
    while gone is not None:
        yield gone["content"]
        gone = next(waiting, None)
