"""Open questions for a whole set by a language model: units of work, each finished once, rejected, or still open.

    clip ─► prompt ─► unit = hash(prompt and version, facts, model, temperature) ─► in the store? ─yes─► its rows
                                                                                          │no
                                          pairs ◄─ schema ◄─ reply ◄─ endpoint (n at once) ◄┘
                                                      └─ bad: one attempt to repair, then rejected
    a prompt with questions of its own sends the clip itself: `questions.listening`

A stopped or killed run goes on with the units that are left. Source: audio instruction generation of LTU
(arXiv 2305.10790); resuming is our choice.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ossicle.data.clip import Clip
from ossicle.data.store import Store, unit_key
from ossicle.errors import DataError
from ossicle.questions import listening, prompts, replies
from ossicle.questions.corpus import Corpus
from ossicle.questions.endpoint import CHARACTERS_PER_TOKEN, Endpoint, EndpointConfig, OutOfBudget, Rejected
from ossicle.questions.generate import audio_of, row
from ossicle.questions.labelled import Asked

TOKENS_PER_PAIR = 60
SUMMARISE = "Summarise what can be heard in this clip."


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One clip to be asked about.

    Attributes:
        key: Hash of everything the reply depends on.
        clip: The clip.
        prompt: How it is asked.
        facts: What the model is told; of a model that listens, what it is asked.
    """

    key: str
    clip: Clip
    prompt: prompts.Prompt
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How a set is asked about.

    Attributes:
        prompt: Name of a prompt, or `auto` = the one that says most about a clip.
        pairs: Questions per clip; None = as many as the prompt says.
        paper: Facts as the official generators say them.
        again: Ask about rejected units once more.
    """

    prompt: str = "auto"
    pairs: int | None = None
    paper: bool = False
    again: bool = False


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a run did.

    Attributes:
        units: How many there are.
        done: Finished, now or before.
        rejected: Reason → units.
        stopped: The cap that stopped it: money, tokens or time; empty = none.
        spent: Calls, retries, tokens and money of this run.
        sent_ever: Requests of all runs together, killed ones included.
    """

    units: int = 0
    done: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    stopped: str = ""
    spent: dict[str, float] = field(default_factory=dict)
    sent_ever: int = 0


def units_of(
    clips: Iterable[Clip],
    corpus: Corpus,
    config: EndpointConfig,
    *,
    name: str = "auto",
    pairs: int | None = None,
    paper: bool = False,
) -> Iterator[Unit]:
    """Yield what is to be asked; clips with nothing to tell are left out.

    Args:
        clips: With their facts.
        corpus: Levels of the set.
        config: Model and sampling, which are part of a unit's name.
        name: Prompt, or `auto` = the one that says most about the clip.
        pairs: Questions per clip; None = as many as the prompt says.
        paper: Facts as the official generators say them.
    """
    for clip in clips:
        asked = prompts.prompt(prompts.fitting(clip) if name == "auto" else name, pairs)
        told = prompts.lines(clip, corpus, asked, paper=paper)
        facts = listening.chosen(clip, asked) if asked.questions else tuple(told)
        if facts:
            parts = (asked.version, asked.name, asked.pairs, facts, config.model, config.temperature, clip.key)
            yield Unit(key=unit_key(*parts), clip=clip, prompt=asked, facts=facts)


def estimate(units: Sequence[Unit], store: Store | None, config: EndpointConfig) -> dict[str, Any]:
    """Return what the units that are left will take: calls, tokens, money; from lengths, before anything is sent.

    What an endpoint counts for audio is not known here and comes on top.
    """
    left = [unit for unit in units if store is None or unit.key not in store]
    told = [_characters(unit) for unit in left]
    twice = [1 + unit.prompt.paragraph for unit in left]
    calls = sum(len(unit.facts) if unit.prompt.questions else 1 + unit.prompt.paragraph for unit in left)
    tokens_in = sum(length // CHARACTERS_PER_TOKEN * times for length, times in zip(told, twice, strict=True))
    tokens_out = sum(unit.prompt.pairs * TOKENS_PER_PAIR for unit in left)
    usd = (tokens_in * config.usd_per_million_in + tokens_out * config.usd_per_million_out) / 1e6
    return {
        "units": len(units),
        "left": len(left),
        "calls": calls,
        "pairs": sum(unit.prompt.pairs for unit in left),
        "tokens_in": tokens_in,
        "tokens_out": tokens_out,
        "usd": round(usd, 4),
    }


def _characters(unit: Unit) -> int:
    if unit.prompt.questions:
        return sum(map(len, unit.facts))
    return sum(len(turn["content"]) for turn in prompts.messages(list(unit.facts), unit.prompt))


def ask_all(
    units: Sequence[Unit],
    config: EndpointConfig,
    store: Store,
    *,
    again: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Outcome:
    """Finish the units that are left, `config.at_once` at a time.

    Args:
        units: What is asked.
        config: Whom, and the caps.
        store: Finished units.
        again: Ask about rejected units once more.
        progress: Told how many are finished.

    Raises:
        UserError: The key is refused, the model is not there, or the store cannot be written.
    """
    endpoint = Endpoint(config, store)
    for unit in units if again else ():
        if unit.key in store and store[unit.key]["kind"] == "rejected":
            store.forget(unit.key)
    outcome = Outcome(units=len(units))
    waiting = iter([unit for unit in units if unit.key not in store])

    async def work() -> None:
        for unit in waiting:
            if outcome.stopped:
                return
            try:
                endpoint.left()
                await _finish(unit, endpoint, store)
            except OutOfBudget as cap:
                outcome.stopped = str(cap)
                return
            if progress is not None:
                progress(len(store))

    async def everything() -> None:
        tasks = [asyncio.create_task(work()) for _ in range(max(1, config.at_once))]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await endpoint.close()

    asyncio.run(everything())
    _count(units, store, outcome)
    spent = endpoint.spent
    outcome.spent = {**asdict(spent), "usd": round(spent.usd(config), 6)}
    outcome.sent_ever = store.notes["sent"]
    return outcome


def _count(units: Sequence[Unit], store: Store, outcome: Outcome) -> None:
    """Count the finished units by what became of them."""
    for unit in units:
        if unit.key in store:
            entry = store[unit.key]
            outcome.done += entry["kind"] == "done"
            if entry["kind"] == "rejected":
                outcome.rejected[entry["reason"]] += 1


async def _finish(unit: Unit, endpoint: Endpoint, store: Store) -> None:
    """Ask about one clip and keep the result, whatever it is."""
    facts = list(unit.facts)
    try:
        if unit.prompt.questions:
            pairs = await _heard(unit, endpoint)
            store.put(unit.key, kind="done", clip=unit.clip.key, pairs=[list(pair) for pair in pairs], repaired=False)
            return
        paragraph, repaired = None, False
        if unit.prompt.paragraph:
            first = prompts.messages(facts, unit.prompt)
            paragraph, repaired = await _checked(first, endpoint, unit.key, replies.Paragraph, replies.read_paragraph)
        asked = prompts.messages(facts, unit.prompt, paragraph=paragraph)
        pairs, again = await _checked(asked, endpoint, unit.key, replies.Pairs, replies.read_pairs)
    except Rejected as error:
        store.put(unit.key, kind="rejected", reason=str(error), clip=unit.clip.key)
        return
    summary = {"paragraph": paragraph} if paragraph else {}
    store.put(
        unit.key, kind="done", clip=unit.clip.key, pairs=[list(pair) for pair in pairs], repaired=repaired or again,
        **summary,
    )  # fmt: skip


async def _heard(unit: Unit, endpoint: Endpoint) -> list[tuple[str, str]]:
    """Return what a model that listens answers to each question of a unit."""
    audio = listening.audio_part(unit.clip)
    pairs = []
    for question in unit.facts:
        reply = await endpoint.ask(listening.messages(audio, question), None, unit.key)
        pairs.append((question, listening.checked(reply)))
    return pairs


async def _checked(
    messages: list[dict[str, str]], endpoint: Endpoint, unit: str, form: type[Any], read: Callable[[str], Any]
) -> tuple[Any, bool]:
    """Return what a reply holds, and whether it had to be repaired.

    Raises:
        Rejected: Neither the reply nor its repair fits the form.
    """
    text = await endpoint.ask(messages, replies.schema(form), unit)
    try:
        return read(text), False
    except DataError as error:
        problem = str(error)
    again = [
        *messages,
        {"role": "assistant", "content": text},
        {"role": "user", "content": prompts.book()["repair"].format(problem=problem)},
    ]
    try:
        return read(await endpoint.ask(again, replies.schema(form), unit)), True
    except DataError as error:
        reason = str(error).split("(")[0].split(":")[0].strip()
        raise Rejected(f"not the form that was asked for, after a repair: {reason}") from None


def rows_of(
    units: Iterable[Unit], store: Store, config: EndpointConfig, *, paper: bool = False
) -> Iterator[dict[str, Any]]:
    """Yield the rows of the finished units, in the order of the clips; for LTU-AS with the transcript beside them."""
    for unit in units:
        if unit.key not in store:
            continue
        entry = store[unit.key]
        if entry["kind"] != "done":
            continue
        made = {
            "by": "open", "wordings": f"{unit.prompt.version}/{unit.prompt.name}", "unit": unit.key,
            "model": config.model, "temperature": config.temperature, "repaired": entry["repaired"],
            "told": list(unit.facts), **({"paper": True} if paper else {}),
            **({"listened": True} if unit.prompt.questions else {}),
        }  # fmt: skip
        key, audio = unit.clip.key, audio_of(unit.clip)
        pairs = list(map(tuple, entry["pairs"]))
        if "paragraph" in entry:
            yield row(unit.clip, key, "summary", 0, SUMMARISE, Asked(entry["paragraph"]), audio, made)
        for number, (question, answer) in enumerate(pairs):
            yield row(unit.clip, key, "open", number, question, Asked(answer), audio, made)
