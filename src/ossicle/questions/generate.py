"""Closed questions for a whole set: rows of messages JSONL, the same from the same seed whoever works on which part.

    random numbers of a clip = hash(seed, clip)      row id = hash(clip, task, turn, wordings, seed)

Source: LTU, official code: half of its closed questions begin "Closed-ended question: ", at random; in LTU-AS the
transcript stands beside every question (here the turn's `transcript`, in paper mode).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from random import Random
from typing import Any

from ossicle.chat import AUDIO_TAG
from ossicle.data import engine
from ossicle.data.clip import Clip
from ossicle.data.rows import read_clips
from ossicle.data.set_levels import read_levels
from ossicle.errors import ConfigError, DataError, suggest
from ossicle.questions import templates
from ossicle.questions.corpus import Corpus, survey
from ossicle.questions.labelled import PAPER_TASKS, TASKS, Asked

PREFIX = "Closed-ended question: "
PAPER_PREFIX_SHARE = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is asked.

    Attributes:
        tasks: Which tasks; empty = all that fit.
        repeat: Questions of each task that fits.
        seed: Decides wordings and what is asked about.
        paper: The answer shapes and the prefix of LTU-AS.
        wordings: A file of wordings; None = the one that ships.
    """

    tasks: tuple[str, ...] = ()
    repeat: int = 1
    seed: int = 0
    paper: bool = False
    wordings: Path | None = None

    def names(self) -> tuple[str, ...]:
        """Return the tasks in a fixed order.

        Raises:
            ConfigError: No such task.
        """
        known = PAPER_TASKS if self.paper else tuple(TASKS)
        for name in self.tasks:
            if name not in TASKS:
                raise ConfigError(f"no closed task '{name}'; {suggest(name, list(TASKS))}")
        return self.tasks or known


def read_set(path: Path) -> tuple[list[Clip], Corpus]:
    """Return the clips of a file and what questions need to know of the set; its saved levels count."""
    clips = list(read_clips(path))
    if not clips:
        raise DataError(f"{path}: holds no clips")
    return clips, survey(clips, read_levels(path))


def generate(
    clips: Iterable[Clip], corpus: Corpus, plan: Plan, *, jobs: int = 1, how: str = "local"
) -> Iterator[dict[str, Any]]:
    """Yield one row per question.

    Args:
        clips: With their facts.
        corpus: `survey` of the whole set, of which the clips may be a part.
        plan: What is asked.
        jobs: Processes.
        how: Engine: `local` or `ray`.
    """
    plan.names()
    work: Callable[[list[Clip]], Sequence[dict[str, Any]]] = partial(rows_of, corpus=corpus, plan=plan)
    yield from engine.run(work, clips, size=256, jobs=jobs, engine=how)


def rows_of(clips: Sequence[Clip], corpus: Corpus, plan: Plan) -> list[dict[str, Any]]:
    """Return the questions about some clips."""
    book = templates.closed(plan.wordings)
    tasks = [(name, TASKS[name], book.tasks[name]) for name in plan.names() if name in book.tasks]
    rows = []
    for clip in clips:
        key = clip.key
        rng = Random(blake2b(f"{plan.seed}|{key}".encode(), digest_size=8).digest())
        audio = audio_of(clip)
        for name, task, wordings in tasks:
            for turn in range(plan.repeat):
                asked = task(clip, corpus, rng, plan.paper, book)
                if asked is None:
                    break
                number = int(rng.random() * len(wordings))
                text = _worded(wordings[number], asked)
                if plan.paper and rng.random() < PAPER_PREFIX_SHARE:
                    text = PREFIX + text
                made = {"by": "closed", "wordings": book.version, "number": number, "seed": plan.seed}
                if plan.paper:
                    made["paper"] = True
                rows.append(row(clip, key, name, turn, text, asked, audio, made))
    return rows


def row(
    clip: Clip, key: str, task: str, turn: int, text: str, asked: Asked, audio: Any, made: dict[str, Any]
) -> dict[str, Any]:
    """Return one question as a row of messages JSONL with where it came from."""
    mark = f"{key}|{task}|{turn}|{made.get('wordings')}|{made.get('seed', made.get('unit'))}"
    audios = [audio] if asked.other is None else [audio, audio_of(asked.other)]
    said = {"transcript": clip.transcript} if made.get("paper") and clip.transcript else {}
    result = {
        "id": blake2b(mark.encode(), digest_size=8).hexdigest(),
        "messages": [
            {"role": "user", "content": AUDIO_TAG * len(audios) + text, **said},
            {"role": "assistant", "content": asked.answer},
        ],
        "audios": audios,
        "task": task,
        "clip": key,
        "source": clip.source,
        "made": made,
    }
    for name, value in (
        ("label", asked.label), ("group", clip.group), ("split", clip.split), ("recording", clip.recording),
        ("licence", clip.licence), ("duration", clip.duration_s), ("transcript", clip.transcript),
        ("other", asked.other and asked.other.key),
    ):  # fmt: skip
        if value is not None:
            result[name] = value
    return result


def audio_of(clip: Clip) -> Any:
    """Return how a row names the clip's audio: its path, with the span where it is one of a longer file."""
    if not clip.start_s and not clip.extra.get("is_span"):
        return str(clip.path)
    end = None if clip.duration_s is None else round(clip.start_s + clip.duration_s, 6)
    return {"path": str(clip.path), "start_s": clip.start_s, "end_s": end}


def _worded(wording: str, asked: Asked) -> str:
    if "{" not in wording:
        return wording
    return wording.replace("{x}", asked.x).replace("{options}", asked.options)
