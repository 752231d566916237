"""The demonstration: nano's answers beside the truth, a minute of training with answers before and after, a picture.

    bundled scenes + your recording ──► nano ──► answers, misses shown
    random weights ──► an answer ──► a short curriculum on parametric sounds ──► the same question again
                                                                                └─► picture: scenes, loss, answers

Source: our choice.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from ossicle.types import Waveform

if TYPE_CHECKING:
    from ossicle.data.world_sounds import WorldSoundsSource
    from ossicle.inference.engine import Engine

FRESH = 10_000_000
"""Sounds from this number on are never trained on."""
NUM_FRESH = 16
UNKNOWN_TRUTH = ("What do you hear?", "How many sounds are there?")
"""What is asked of a recording whose truth nobody told us."""
SMALL_WORDS = frozenset(["a", "an", "the", "is", "it", "some", "there", "of", "and", "then"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """One question, what the model said, and the truth where it is known."""

    clip: str
    question: str
    answer: str
    truth: str | None = None
    right: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The minute of training.

    Attributes:
        first_loss: Mean loss of the first steps.
        last_loss: Mean loss of the last steps.
        before: Answer of the random weights to `question`.
        after: Answer of the trained ones.
        question: About a sound that was not trained on.
        truth: Its true answer.
        right_before: Share of fresh sounds named right by the random weights.
        right_after: By the trained ones.
        seconds: Duration of the steps.
        losses: Loss of every step.
    """

    first_loss: float
    last_loss: float
    before: str
    after: str
    question: str
    truth: str
    right_before: float
    right_after: float
    seconds: float
    losses: list[float] = field(default_factory=list)


def ask_scenes(engine: Engine) -> list[Told]:
    """Return nano's answers to every question of the bundled scenes."""
    from ossicle.world import demo

    scenes = [(scene, scene.load().waveform) for scene in demo.scenes()]
    asked = [(scene.title, wave, question, truth) for scene, wave in scenes for question, truth in scene.questions]
    said = engine.answer([(wave, question) for _, wave, question, _ in asked], max_new_tokens=48)
    return [
        Told(clip=title, question=question, answer=answer.text, truth=truth, right=agrees(answer.text, truth))
        for (title, _, question, truth), answer in zip(asked, said, strict=True)
    ]


def ask_recording(engine: Engine, wave: Waveform) -> list[Told]:
    """Return nano's answers about a recording whose truth is not known."""
    said = engine.answer([(wave, question) for question in UNKNOWN_TRUTH], max_new_tokens=48)
    return [
        Told(clip=wave.name, question=question, answer=answer.text)
        for question, answer in zip(UNKNOWN_TRUTH, said, strict=True)
    ]


def agrees(answer: str, truth: str) -> bool:
    """Return whether an answer says the truth: the same yes or no, the same digits, or all of its words in order.

    Example:
        >>> agrees("I hear a siren.", "a siren"), agrees("A dog.", "a siren"), agrees("3, 7", "three seven")
        (True, False, True)
    """
    from ossicle.evaluation import numerals, parse

    if truth in ("yes", "no"):
        return parse.yes_no(answer) is (truth == "yes")
    wanted = [word for word in re.findall(r"[a-z0-9]+", truth.lower()) if word not in SMALL_WORDS]
    if all(word in numerals.DIGIT_WORDS for word in wanted):
        return numerals.numbers_in(truth) == numerals.numbers_in(" ".join(answer.replace(",", " ").split()))
    said = iter(re.findall(r"[a-z0-9]+", answer.lower()))
    return all(word in said for word in wanted)


def train_a_minute(
    *, overrides: Sequence[str] = (), device: str = "cpu", tell: Callable[[str], None] = lambda line: None
) -> Trained:
    """Train the recipe `demo` from random weights, and ask the same about fresh sounds before and after."""
    import torch

    from ossicle.inference.engine import Engine, choose_device, load
    from ossicle.training import recipe
    from ossicle.training.build import build
    from ossicle.training.run import Run

    loaded = recipe.load("demo", overrides)
    place = choose_device(device)
    with tempfile.TemporaryDirectory(prefix="ossicle-demo-") as folder:
        run = Run(loaded, Path(folder) / "run", device=place, tell=lambda line: None)
        items, truths = _fresh(run)
        built = build(loaded.recipe, run.open_sources())
        untrained = Engine(built.model.to(place), built.processor, name="untrained")
        torch.manual_seed(0)
        before = [answer.text for answer in untrained.answer(items, max_new_tokens=12)]
        tell(f'before training: "{items[0][1]}" → "{before[0]}"')
        result = run.train()
        after = [answer.text for answer in load(result.checkpoint, device=device).answer(items, max_new_tokens=12)]
        losses = _losses(run.out / "log.jsonl")
    stage = result.stages[0]
    return Trained(
        first_loss=stage.first_loss,
        last_loss=stage.last_loss,
        before=before[0],
        after=after[0],
        question=items[0][1],
        truth=truths[0],
        right_before=_share(before, truths),
        right_after=_share(after, truths),
        seconds=stage.seconds,
        losses=losses,
    )


def _fresh(run: Any) -> tuple[list[tuple[Waveform, str]], list[str]]:
    """Return questions about sounds that the run does not train on, and their true answers."""
    from ossicle.data.world_sounds import WorldSoundsSource

    settings = run.recipe.sources()["sounds"].model_copy(update={"first": FRESH, "samples": NUM_FRESH})
    source: WorldSoundsSource = WorldSoundsSource(settings, run.data_context)
    samples = [source.sample(index) for index in range(NUM_FRESH)]
    items = [(sample.audios[0].load(), sample.messages[0]["content"].replace("<audio>", "")) for sample in samples]
    return items, [sample.messages[1]["content"] for sample in samples]


def _losses(path: Path) -> list[float]:
    from ossicle.training.trackers import Log

    return [row["loss"] for row in Log(path).rows() if "loss" in row]


def _share(said: Sequence[str], truths: Sequence[str]) -> float:
    return sum(agrees(answer, truth) for answer, truth in zip(said, truths, strict=True)) / len(truths)


def draw(told: Sequence[Told], trained: Trained, path: Path) -> Path:
    """Write the picture: each scene's spectrogram over its questions and answers, and the loss of the training.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from ossicle.errors import require
    from ossicle.world import demo
    from ossicle.world.sheet import spectrogram_db

    figures = require("matplotlib.figure", "eval")
    scenes = demo.scenes()
    figure = figures.Figure(figsize=(4 * len(scenes), 8), layout="constrained")
    grid = figure.add_gridspec(3, len(scenes), height_ratios=[3, 3, 3])
    for column, scene in enumerate(scenes):
        wave = scene.load().waveform
        axes = figure.add_subplot(grid[0, column])
        extent = (0, wave.duration_s, 0, wave.sample_rate_hz / 2000)
        axes.imshow(spectrogram_db(wave.samples).T, origin="lower", aspect="auto", cmap="magma", extent=extent)
        axes.set_title(scene.title, fontsize=9)
        axes.set_xlabel("seconds", fontsize=8)
        axes.set_ylabel("kHz", fontsize=8)
        words = figure.add_subplot(grid[1, column])
        words.axis("off")
        for line, row in enumerate(row for row in told if row.clip == scene.title):
            colour = "#187a3a" if row.right else "#b3261e"
            text = f"{row.question}\n{'✓' if row.right else '✗'} {shorten(row.answer, 54)}"
            text += "" if row.right else f"\n    (truth: {row.truth})"
            words.text(0, 1 - 0.2 * line, text, va="top", fontsize=8, color=colour, transform=words.transAxes)
    axes = figure.add_subplot(grid[2, :])
    axes.plot(trained.losses)
    axes.set_xlabel(f'training step; before: "{trained.before[:40]}", after: "{trained.after[:40]}" ({trained.truth})')
    axes.set_ylabel("loss")
    path.absolute().parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.stem}.writing{path.suffix}")
    figure.savefig(aside, dpi=110)
    aside.replace(path)
    return path
