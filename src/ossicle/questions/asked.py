"""Source `asked`: composed audios, each with many questions, as numbered samples.

    number ──► audio number % items (its encoder outputs are kept once) ──► question drawn from its facts

    data:
      asked: {kind: asked, root: ${OSSICLE_DATA}, items: {esc10: 2400, scene: 2500, digits: 1500, …}}

Source: our choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import cached_property, lru_cache, partial
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from ossicle.data.manifest import digest
from ossicle.data.material import is_held_out, pools
from ossicle.data.sample import MadeAudio, Sample
from ossicle.data.source import Need, Source, SourceConfig, SourceContext
from ossicle.errors import ConfigError
from ossicle.questions import closed, outside
from ossicle.questions.compose import VOICES, Composer, Piece
from ossicle.questions.heard import Heard
from ossicle.questions.names import sentence
from ossicle.questions.wording import grammar
from ossicle.types import Waveform

BASE_POOLS = ("esc10", "berklee_sounds", "salamander_piano_notes", "fsdd", "world", "words", *VOICES)


class AskedConfig(SourceConfig):
    """Settings of `asked`.

    Attributes:
        root: Folder with the sets.
        items: Audios of each kind: a pool's name (one sound of it), or `scene`, `digits`, `mixture`, `long`, `silence`.
        questions: Samples made of each audio.
        synthesised: Sounds of each synthesised pool.
        sounds_seed: Seed of what is synthesised.
        audio_seed: Seed of what the audios are, so that runs with other seeds hear the same ones; None = the recipe's.
        held_out: Groups (or a share of the groups) of a pool that are not used.
        two_turns: Share of samples that ask a second question.
        repeats: How many times as often the audios of a kind are asked about; 1 where nothing is said, 0 = never.
    """

    kind: str = "asked"
    root: str
    items: dict[str, int]
    questions: int = Field(default=24, ge=1)
    synthesised: dict[str, int] = Field(default={"world": 4000, "words": 4500, "phrases": 600})
    sounds_seed: int = 7
    audio_seed: int | None = None
    held_out: dict[str, list[str] | float] = Field(default={})
    two_turns: float = Field(default=0.1, ge=0, le=1)
    repeats: dict[str, Annotated[int, Field(ge=0)]] = Field(default={})


class Asked(Source):
    """Composed audios with questions."""

    Config: ClassVar[type[SourceConfig]] = AskedConfig

    def __init__(self, config: AskedConfig, context: SourceContext) -> None:
        super().__init__(config, context)
        self.kinds = [kind for kind, count in config.items.items() for _ in range(_fewer(count, context.shrink))]
        self.order = [item for item, kind in enumerate(self.kinds) for _ in range(config.repeats.get(kind, 1))]
        if not self.order:
            raise ConfigError(f"asked: 'items' and 'repeats' leave nothing to ask about ({dict(config.items)})")
        self.audio_seed = context.seed if config.audio_seed is None else config.audio_seed
        found = pools(
            context.path(config.root),
            BASE_POOLS,
            seed=config.sounds_seed,
            counts={name: _fewer(count, context.shrink) for name, count in config.synthesised.items()},
            cache_dir=context.cache_dir / "sounds" if context.cache_dir else None,
        )
        kept = {name: [s for s in sounds if not is_held_out(s, config.held_out)] for name, sounds in found.items()}
        self.composer = Composer({name: sounds for name, sounds in kept.items() if sounds})
        self.facts = lru_cache(maxsize=None)(self._facts)

    @classmethod
    def needs(cls, config: AskedConfig, context: SourceContext) -> list[Need]:
        """Return the sets that are looked for under the root."""
        from ossicle.data.manifest import LICENCES

        root = context.path(config.root)
        return [
            Need(what=name, source=str(root / name), present=(root / name).is_dir(), licence=LICENCES.get(name))
            for name in BASE_POOLS
            if name not in config.synthesised
        ]

    def __len__(self) -> int:
        """Return audios times questions."""
        return len(self.order) * self.config.questions

    def piece(self, item: int) -> Piece:
        """Return audio number `item`, not yet rendered."""
        return self.composer.draw(self.kinds[item], np.random.default_rng([self.audio_seed, 71, item]))

    def _facts(self, item: int) -> Heard:
        return self.piece(item).heard

    def sample(self, index: int) -> Sample:
        """Return a question about one of the audios; a second one in some samples."""
        item = self.order[index % len(self.order)]
        rng = np.random.default_rng([self.context.seed, 72, index])
        heard = self.facts(item)
        asked = [closed.question(heard, rng, partial(self._other, rng))]
        while len(asked) < 2 and rng.random() < self.config.two_turns:
            asked.append(closed.question(heard, rng, partial(self._other, rng)))
        turns: list[dict[str, str]] = []
        for _, question, answer in asked:
            turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        turns[0]["content"] = "<audio>" + turns[0]["content"]
        return Sample(messages=tuple(turns), audios=(self.audio(item),), id=f"asked {index}", label=asked[0][0])

    def audio(self, item: int) -> MadeAudio:
        """Return audio number `item`, to be rendered when it is needed."""
        name = hashlib.blake2b(f"{self._settings}|{self.audio_seed}|{item}".encode(), digest_size=12).hexdigest()
        return MadeAudio(make=partial(self._render, item), name=f"asked {name}")

    def _render(self, item: int) -> Waveform:
        return Waveform(samples=self.piece(item).render(), name=f"<asked {item}>")

    def _other(self, rng: np.random.Generator) -> Heard:
        return self.facts(int(rng.integers(len(self.kinds))))

    def duration_s(self, index: int) -> float:
        """Return the length of the audio."""
        return self.facts(self.order[index % len(self.order)]).duration_s

    def texts(self) -> Iterator[str]:
        """Yield what the tokenizer should know: every wording and every answer style."""
        book: dict[str, Any] = grammar()
        for index in range(0, len(self), max(1, len(self) // 6000)):
            yield from (turn["content"] for turn in self.sample(index).messages)
        for wordings in book["tasks"].values():
            yield from wordings
        rng = np.random.default_rng(0)
        yield from (outside.ask(rng) for _ in range(1500))
        yield from (sentence(name) for name in (outside.answer(), closed.NOBODY, closed.UNKNOWN_WORDS))

    def fingerprint(self) -> str:
        """Return a hash of the settings and sets that decide what the audios are."""
        return self._settings

    @cached_property
    def _settings(self) -> str:
        kept = self.config.model_dump(exclude={"root", "questions", "two_turns", "repeats", "audio_seed"})
        root = self.context.path(self.config.root)
        sets = [digest(root / name) for name in BASE_POOLS if name not in self.config.synthesised]
        return hashlib.blake2b(repr((kept, sets, len(self.kinds))).encode(), digest_size=16).hexdigest()


def _fewer(count: int, shrink: bool) -> int:
    return max(2, count // 50) if shrink else count
