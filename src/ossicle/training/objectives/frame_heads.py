"""Linear heads on an encoder's frames: what a placed sound is, what each frame holds, which words are said.

    frames of one sound (n, D) ──mean ⊕ max──► (2D) ──linear──► classes, or one measure (level, pitch, rate)
    each frame (D)             ──linear──► a tag's log-odds, or a word or blank (CTC)

Source: our choice; CTC: Graves et al. 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from ossicle.data.material import WORDS, Sound
from ossicle.data.timeline import Placement, voiced

Head = Literal["label", "tags", "word", "ctc", "gender", "emotion", "level", "pitch", "rate"]
TOKEN_SAMPLES = 1280
GENDER_POOLS = ("emodb_2s", "librispeech_gender251", "librispeech_other100", "kathleen_arctic300", "phrases")
WEIGHTS = {"tags": 1.0, "ctc": 0.5, "level": 0.3, "pitch": 0.5, "rate": 0.3}
"""How much a head counts beside a classification, which counts 1 for each sound."""

MEASURES: dict[str, Callable[[Placement], float | None]] = {
    "level": lambda p: p.level_db / 15 + 2,
    "pitch": lambda p: None if p.sound.pitch_hz is None else float(np.log2(p.sound.pitch_hz * p.speed / 300)),
    "rate": lambda p: None if p.sound.words_per_minute is None else p.sound.words_per_minute * p.speed / 60 - 3,
}
"""What is measured, scaled to about -2..2."""


def facts_of(sound: Sound) -> dict[str, str]:
    """Return classification head → class of one sound."""
    facts = {}
    if sound.label is not None:
        facts[f"label {sound.pool}"] = sound.label
    if sound.words and len(sound.words) == 1:
        facts["word"] = sound.words[0]
    if sound.gender is not None and sound.pool in GENDER_POOLS:
        facts["gender"] = sound.gender
    if sound.emotion is not None:
        facts["emotion"] = sound.emotion
    return facts


def tag_of(sound: Sound) -> str:
    """Return the one tag of a sound: its label, or `speech`."""
    return "speech" if voiced(sound) else str(sound.label)


def classes_of(sounds: Sequence[Sound], heads: Sequence[str]) -> dict[str, list[str]]:
    """Return classification head → sorted classes found in the sounds, for the heads asked for."""
    found: dict[str, set[str]] = {}
    for sound in sounds:
        for head, value in facts_of(sound).items():
            if head.split()[0] in heads:
                found.setdefault(head, set()).add(value)
    return {head: sorted(values) for head, values in sorted(found.items())}


def pooled(frames: Tensor, placements: Sequence[Placement]) -> Tensor:
    """Return (P, 2D): mean and max over the frames (R, N, D) of each placed sound."""
    token = torch.arange(frames.shape[1])
    first = torch.tensor([p.start // TOKEN_SAMPLES for p in placements])
    last = torch.tensor([(p.start + p.length - 1) // TOKEN_SAMPLES for p in placements])
    inside = ((token >= first[:, None]) & (token <= last[:, None])).to(frames.device)[..., None]  # (P, N, 1)
    own = frames[torch.tensor([p.row for p in placements], device=frames.device)]  # (P, N, D)
    mean = (own * inside).sum(1) / inside.sum(1)
    return torch.cat([mean, own.masked_fill(~inside, -1e4).amax(1)], -1)


class FrameHeads(nn.Module):
    """All heads of one encoder."""

    def __init__(self, dim: int, classes: Mapping[str, list[str]], tags: list[str], heads: Sequence[str]) -> None:
        super().__init__()
        self.classes, self.tag_names = dict(classes), tags
        self.choose = nn.ModuleDict({name: nn.Linear(2 * dim, len(known)) for name, known in classes.items()})
        self.measure = nn.ModuleDict({name: nn.Linear(2 * dim, 1) for name in MEASURES if name in heads})
        self.tags = nn.Linear(dim, len(tags)) if "tags" in heads else None
        self.ctc = nn.Linear(dim, len(WORDS) + 1) if "ctc" in heads else None

    def losses(self, frames: Tensor, placements: list[Placement], under: dict[int, int]) -> dict[str, Tensor]:
        """Return head → loss summed over what it applies to, for frames (R, N, D)."""
        vectors = pooled(frames, placements)
        losses = {name: self._choose(name, vectors, placements) for name in self.choose}
        losses |= {name: WEIGHTS[name] * self._measure(name, vectors, placements) for name in self.measure}
        if self.tags is not None:
            losses["tags"] = WEIGHTS["tags"] * self._tags(frames, placements, under)
        if self.ctc is not None:
            losses["ctc"] = WEIGHTS["ctc"] * self._ctc(frames, placements)
        return losses

    def _choose(self, name: str, vectors: Tensor, placements: list[Placement]) -> Tensor:
        known = [(i, facts[name]) for i, p in enumerate(placements) if name in (facts := facts_of(p.sound))]
        if not known:
            return vectors.sum() * 0
        logits = self.choose[name](vectors[[i for i, _ in known]])
        wanted = torch.tensor([self.classes[name].index(value) for _, value in known], device=logits.device)
        return nn.functional.cross_entropy(logits, wanted, label_smoothing=0.1, reduction="sum")

    def _measure(self, name: str, vectors: Tensor, placements: list[Placement]) -> Tensor:
        known = [(i, value) for i, p in enumerate(placements) if (value := MEASURES[name](p)) is not None]
        if not known:
            return vectors.sum() * 0
        got = self.measure[name](vectors[[i for i, _ in known]])[:, 0]
        wanted = torch.tensor([value for _, value in known], device=got.device)
        return nn.functional.smooth_l1_loss(got, wanted, reduction="sum")

    def _tags(self, frames: Tensor, placements: list[Placement], under: dict[int, int]) -> Tensor:
        truth = torch.zeros(*frames.shape[:2], len(self.tag_names))
        for p in placements:
            span = slice(p.start // TOKEN_SAMPLES, (p.start + p.length - 1) // TOKEN_SAMPLES + 1)
            for row in (p.row, *(top for top, below in under.items() if below == p.row)):
                truth[row, span, self.tag_names.index(tag_of(p.sound))] = 1
        assert self.tags is not None
        odds = nn.functional.binary_cross_entropy_with_logits(self.tags(frames), truth.to(frames.device))
        return odds * len(self.tag_names) * len(placements) / 20

    def _ctc(self, frames: Tensor, placements: list[Placement]) -> Tensor:
        assert self.ctc is not None
        rows: dict[int, list[int] | None] = {}
        for p in sorted(placements, key=lambda p: (p.row, p.start)):
            said = rows.setdefault(p.row, [])
            if said is not None:
                rows[p.row] = None if p.sound.words is None else [*said, *(WORDS.index(w) + 1 for w in p.sound.words)]
        known = [row for row, said in rows.items() if said is not None]
        if not known:
            return frames.sum() * 0
        scores = self.ctc(frames[known]).log_softmax(-1).transpose(0, 1)  # (N, R', V)
        words = [rows[row] or [] for row in known]
        flat = torch.tensor([w for said in words for w in said], dtype=torch.long, device=frames.device)
        counts = torch.tensor([len(said) for said in words])
        full = torch.full((len(known),), frames.shape[1])
        return nn.functional.ctc_loss(scores, flat, full, counts, reduction="sum", zero_infinity=True)

    @torch.no_grad()
    def answers(self, frames: Tensor, placements: list[Placement]) -> dict[str, list[tuple[str, str]]]:
        """Return head → (truth, answer) of each placed sound that the head applies to."""
        vectors, out = pooled(frames, placements), {}
        for name, head in self.choose.items():
            known = [(i, facts[name]) for i, p in enumerate(placements) if name in (facts := facts_of(p.sound))]
            if known:
                best = head(vectors[[i for i, _ in known]]).argmax(-1).tolist()
                out[name] = [(truth, self.classes[name][b]) for (_, truth), b in zip(known, best, strict=True)]
        return out


def greedy_words(scores: Tensor) -> list[str]:
    """Return the words of one row of CTC scores (N, V): best path, repeats merged, blanks dropped."""
    path = scores.argmax(-1).tolist()
    return [WORDS[best - 1] for i, best in enumerate(path) if best and (i == 0 or path[i - 1] != best)]
