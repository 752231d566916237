"""Tasks whose sounds are composed here, so that the truth is exact: the sound world, scenes of real clips, presence.

    world      parametric sources, a seed of its own        what · first · last · count · loudness · pitch
    scenes     excerpts of the recordings under the root     first · last · order · count · digits · caption
    presence   the same excerpts, half of the asked absent   clip · scene

Every composition is a frozen plan (what, in which order, which seed), rendered when it is needed, always the same.
Source: our choice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.errors import AudioError, DataError
from ossicle.evaluation.sets import load_file, read_manifest
from ossicle.types import SAMPLE_RATE_HZ, Waveform

EXCERPT_S = (1.0, 2.0)
"""Shortest and longest excerpt of a real sound in a scene."""
LONGEST_SOURCE_S = 2.0
FADE_S = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One sound of a composition.

    Attributes:
        label: What it is.
        path: Recording; None = the parametric source named `label`.
        length_s: Longest excerpt.
    """

    label: str
    path: Path | None = None
    length_s: float = LONGEST_SOURCE_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A composition before it is rendered.

    Attributes:
        key: Name, unique in its task.
        parts: In the order they are heard.
        seed: Everything random in it.
        gain_db: Range of the level of each part.
        room: Whether it may reverberate.
        params: Parameters of parametric sources that are not drawn.
    """

    key: str
    parts: tuple[Part, ...]
    seed: tuple[int, ...]
    gain_db: tuple[float, float] = (-26.0, -18.0)
    room: bool = False
    params: tuple[tuple[str, float], ...] = ()

    @property
    def labels(self) -> list[str]:
        """Labels in the order they are heard."""
        return [part.label for part in self.parts]

    @property
    def duration_s(self) -> float:
        """About how long it will be, for batching."""
        return sum(part.length_s + 0.4 for part in self.parts)

    def digest(self) -> str:
        """Return a hash of what it is made of."""
        files = [hashlib.sha256(p.path.read_bytes()).hexdigest() if p.path else p.label for p in self.parts]
        lengths = [part.length_s for part in self.parts]
        return hashlib.sha256(
            repr((files, lengths, self.seed, self.gain_db, self.room, self.params)).encode()
        ).hexdigest()


def render(plan: Plan) -> Waveform:
    """Return a plan as sound."""
    return scene_of(plan).waveform


def scene_of(plan: Plan) -> Any:
    """Return a plan as a scene of the sound world, with the truth about it."""
    from ossicle.world.scenes import compose

    return compose(*_scene_arguments(plan), gain_db=plan.gain_db, room=_room(plan))


def _scene_arguments(plan: Plan) -> tuple[np.random.Generator, list]:
    from ossicle.world.items import clip, find, sound

    rng = np.random.default_rng(plan.seed)
    items = []
    for part in plan.parts:
        if part.path is None:
            length_s = min(find(part.label).draw_length_s(rng), part.length_s)
            items.append(sound(part.label, rng, length_s, params=dict(plan.params)))
        else:
            samples = excerpt(part.path, part.length_s)
            items.append(clip(Waveform(samples=samples, name=part.path.name), part.label))
    return rng, items


def _room(plan: Plan) -> Any:
    from ossicle.world.scenes import Room

    rng = np.random.default_rng((*plan.seed, 1))
    if not plan.room or rng.random() > 0.3:
        return None
    return Room(
        sixty_s=float(rng.uniform(0.2, 0.6)), direct_db=float(rng.uniform(3, 12)), seed=int(rng.integers(2**31))
    )


@lru_cache(maxsize=1024)
def excerpt(path: Path, length_s: float) -> np.ndarray:
    """Return the loudest stretch of a recording, faded at both ends.

    Args:
        path: Recording.
        length_s: Longest stretch.

    Raises:
        AudioError: The recording cannot be read, or is silent.
    """
    samples = load_file(path).samples
    size = min(len(samples), round(length_s * SAMPLE_RATE_HZ))
    energy = np.concatenate([[0.0], np.cumsum(np.square(samples, dtype=np.float64))])
    if energy[-1] <= 0.0:
        raise AudioError(f"{path}: silent; expected a recording with a sound in it")
    start = int(np.argmax(energy[size:] - energy[:-size])) if size < len(samples) else 0
    cut = np.array(samples[start : start + size], dtype=np.float32)
    ramp = np.linspace(0.0, 1.0, min(round(FADE_S * SAMPLE_RATE_HZ), size // 2), dtype=np.float32)
    if len(ramp):
        cut[: len(ramp)] *= ramp
        cut[-len(ramp) :] *= ramp[::-1]
    return cut


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Labelled recordings that scenes are made of.

    Attributes:
        by_label: Label → files, at least one each.
        speakers: Label → file → who speaks, for digits.
    """

    by_label: dict[str, list[Path]]
    speakers: dict[Path, str]

    @property
    def labels(self) -> list[str]:
        """All labels, sorted."""
        return sorted(self.by_label)


def read_shelf(root: Path, folder: str) -> Shelf | None:
    """Return the labelled recordings of a set, or None where it is not under the root.

    Raises:
        DataError: Fewer than two labels, so that nothing can be told apart.
    """
    manifest = root / folder / "manifest.jsonl"
    if not manifest.is_file():
        return None
    by_label: dict[str, list[Path]] = {}
    speakers = {}
    for record in read_manifest(manifest):
        path = manifest.parent / record["path"]
        if record.get("label") is not None and path.is_file():
            by_label.setdefault(str(record["label"]), []).append(path)
            speakers[path] = str(record.get("speaker", ""))
    if len(by_label) < 2:
        raise DataError(f"{manifest}: {len(by_label)} labels with files; expected at least 2 to compose scenes of")
    return Shelf(by_label=by_label, speakers=speakers)


def draw_parts(rng: np.random.Generator, shelf: Shelf, labels: Sequence[str]) -> tuple[Part, ...]:
    """Return an excerpt of a random recording for each label; silent recordings are passed over."""
    parts = []
    for label in labels:
        length_s = float(np.round(rng.uniform(*EXCERPT_S), 2))
        for path in rng.permutation(np.asarray(shelf.by_label[label], dtype=object)):
            try:
                excerpt(path, length_s)
            except AudioError:
                continue
            parts.append(Part(label=label, path=path, length_s=length_s))
            break
        else:
            raise DataError(f"no recording of '{label}' can be read; expected at least one")
    return tuple(parts)


def renderer(plan: Plan) -> Callable[[], Waveform]:
    """Return what renders a plan later."""
    return partial(render, plan)
