"""How an evaluated answer is drawn: the likeliest token each time, or as a paper samples.

    greedy   the likeliest token each time
    ltu      sampled at temperature 0.1 from the 500 likeliest tokens and of those from 0.95 of the mass, repeated
             tokens made less likely by 1.1, up to 400 tokens
    beam     the best of four beams

PAL does not say how it decodes. Drawn otherwise than greedily, questions are asked one by one, each with a seed of
its own, so that a run that was stopped, or asked in another order, draws the same. Source: LTU-AS,
`inference_batch.py`, for `ltu`; greedy as the default is our choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field

from ossicle.config import Section
from ossicle.errors import ConfigError, suggest
from ossicle.types import Waveform

if TYPE_CHECKING:
    from ossicle.inference.engine import Answer, Engine


class DrawingConfig(Section):
    """How tokens of an answer are chosen.

    Attributes:
        do_sample: Draw tokens instead of taking the likeliest.
        temperature: Logits are divided by it.
        top_k: Only so many of the likeliest tokens; 0 = all.
        top_p: Only the likeliest tokens that hold this share.
        repetition_penalty: By how much tokens that were said before become less likely; 1 = nothing.
        num_beams: Beams; 1 = none.
        max_new_tokens: Longest answer; None = what the task says.
    """

    do_sample: bool = False
    temperature: float = Field(1.0, gt=0)
    top_k: int = Field(0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    repetition_penalty: float = Field(1.0, gt=0)
    num_beams: int = Field(1, ge=1)
    max_new_tokens: int | None = Field(None, ge=1)

    def settings(self) -> dict[str, Any]:
        """Return settings for `generate`: what differs from greedy, or all where a folder's own would fill the gaps."""
        return self.model_dump(exclude_defaults=not self.do_sample, exclude={"max_new_tokens"})


DRAWINGS = {
    "greedy": DrawingConfig(),
    "ltu": DrawingConfig(
        do_sample=True, temperature=0.1, top_k=500, top_p=0.95, repetition_penalty=1.1, max_new_tokens=400
    ),
    "beam": DrawingConfig(num_beams=4),
}


def drawing(name: str) -> DrawingConfig:
    """Return a named way.

    Raises:
        ConfigError: There is none of that name.

    Example:
        >>> drawing("beam").settings()
        {'num_beams': 4}
    """
    if name not in DRAWINGS:
        raise ConfigError(f"--decoding {name}: unknown; {suggest(name, list(DRAWINGS))}")
    return DRAWINGS[name]


def drawn(
    engine: Engine, items: Sequence[tuple[Waveform | None, str]], config: DrawingConfig, most: Sequence[int], seed: int
) -> Iterator[tuple[int, Answer]]:
    """Yield the place of each question and its answer, one by one; the random state outside is left as it was."""
    for place, ((wave, question), tokens) in enumerate(zip(items, most, strict=True)):
        said = question.encode() + (b"" if wave is None else wave.samples.tobytes())
        own = int.from_bytes(hashlib.blake2b(said, digest_size=6).digest(), "big") + seed
        with torch.random.fork_rng(devices=[engine.model.device] if engine.model.device.type == "cuda" else []):
            torch.manual_seed(own)
            longest = config.max_new_tokens or tokens
            yield place, engine.answer([(wave, question)], max_new_tokens=longest, **config.settings())[0]
