"""The pointing game: does the second that weighs most lie where the sound is?

    0 s ├───── noise ─────┤ one event ├───── noise ─────┤ 10 s          hit: the heaviest second lies in the event

Fresh scenes of one event in noise, of the sound world and of real recordings laid at known times. Each is asked what is
heard, whether the sound is there, and whether another is, which is not; each answer's attention and occlusion point.
A second lies in the event when they share at least half of the shorter one; chance is the share of seconds that do.
A model may answer the question about the absent sound with what it hears instead ("A bell: no."), and then
points there rightly: so that question is also scored on its first word alone.

Source: pointing game (Zhang et al., arXiv 1608.00507), on time instead of image patches; the numbers are our choice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ossicle.data.rows import read_appended
from ossicle.errors import DataError, UnsupportedError
from ossicle.evaluation.composed import excerpt
from ossicle.evaluation.metrics import wilson
from ossicle.evaluation.phrasings import with_article
from ossicle.evaluation.sets import read_manifest
from ossicle.evaluation.task import HERE, load_spec
from ossicle.inference.attention import attention
from ossicle.inference.engine import Engine
from ossicle.inference.listen import Muted
from ossicle.types import Waveform

SCENE_S = 10.0
EVENT_S = (1.0, 2.5)
SNR_DB = (10.0, 20.0)
NOISES = ("white noise", "pink noise", "brown noise")
STEADY = (*NOISES, "hiss", "wind", "rain", "sea waves")
"""Sources that are no event in noise: they are noise."""
CLIPS, HELD_OUT = "esc10", 4
"""Set of real recordings, and its fold that nano was not taught."""
ANSWER_TOKENS = 32
HEAR = "What do you hear?"
KINDS = ("hear", "present", "absent", "absent, first word")


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One scene of the game.

    Attributes:
        wave: The scene.
        start_s: Start of the event.
        end_s: Its end.
        label: What it is, as it stands in a question.
        absent: What is not there.
    """

    wave: Waveform
    start_s: float
    end_s: float
    label: str
    absent: str

    def hit(self, start_s: float, end_s: float) -> bool:
        """Return whether a second lies in the event."""
        shared = min(end_s, self.end_s) - max(start_s, self.start_s)
        return shared >= 0.5 * min(end_s - start_s, self.end_s - self.start_s)


def world_points(n: int, seed: int = 0) -> Iterator[Point]:
    """Yield scenes of one parametric source in noise."""
    from ossicle.world.items import find, sound
    from ossicle.world.sounds import SOURCES

    names = [name for name in SOURCES if name not in STEADY]
    for index in range(n):
        rng = np.random.default_rng([seed, index, 1608])
        name, other = (str(x) for x in rng.choice(names, 2, replace=False))
        item = sound(name, rng, float(np.clip(find(name).draw_length_s(rng), *EVENT_S)))
        yield _laid(rng, item, item.spoken, find(other).spoken)


def clip_points(root: Path, n: int, seed: int = 0) -> Iterator[Point]:
    """Yield scenes of one excerpt of a real recording in noise, of the fold that nano was not taught."""
    from ossicle.world.items import clip

    manifest = root / CLIPS / "manifest.jsonl"
    by_label: dict[str, list[Path]] = {}
    for row in read_manifest(manifest):
        if int(row.get("fold", HELD_OUT)) == HELD_OUT:
            by_label.setdefault(str(row["label"]), []).append(manifest.parent / row["path"])
    labels = sorted(label for label in by_label if label not in STEADY)
    spoken = {label: with_article(label) for label in labels} | load_spec(HERE / "presence.yaml").source.spoken
    for index in range(n):
        rng = np.random.default_rng([seed, index, 507])
        label, other = (str(x) for x in rng.choice(labels, 2, replace=False))
        path = by_label[label][int(rng.integers(len(by_label[label])))]
        samples = excerpt(path, float(rng.uniform(*EVENT_S)))
        yield _laid(rng, clip(Waveform(samples=samples, name=path.name), label), spoken[label], spoken[other])


def _laid(rng: np.random.Generator, item: Any, label: str, absent: str) -> Point:
    """Return one item somewhere in ten seconds of noise."""
    from ossicle.world.scenes import compose

    noise, snr_db = str(rng.choice(NOISES)), float(rng.uniform(*SNR_DB))
    scene = compose(rng, [item], SCENE_S, background=noise, snr_db=snr_db)
    event = scene.events[0]
    return Point(wave=scene.waveform, start_s=event.start_s, end_s=event.end_s, label=label, absent=absent)


def play(engine: Engine, point: Point) -> dict[str, Any]:
    """Return one scene's answers, where both kinds of evidence point, and how they go together."""
    questions = {"hear": HEAR, "present": f"Is there {point.label}?", "absent": f"Is there {point.absent}?"}
    muted = Muted(engine, point.wave)
    heard = muted.whole()
    answers = {kind: _answer(engine, point.wave, heard, question) for kind, question in questions.items()}
    answers["absent, first word"] = answers["absent"].split(",")[0].split(" ")[0]
    seconds = [(stretch.start_s, stretch.end_s) for stretch in muted.stretches]
    row: dict[str, Any] = {
        "label": point.label,
        "event_s": [round(point.start_s, 3), round(point.end_s, 3)],
        "chance": float(np.mean([point.hit(*second) for second in seconds])),
        "kinds": {},
    }
    for kind in KINDS:
        question, answer = questions[kind.split(",")[0]], answers[kind]
        drops = muted.weigh(question, answer)["seconds"]
        found: dict[str, Any] = {"answer": answer, "occlusion": _points(point, drops)}
        try:
            looks = attention(engine, point.wave, question, answer, encoded=heard)["seconds"]
        except UnsupportedError:
            looks = None
        if looks is not None:
            found["attention"] = _points(point, looks)
            pair = [[second["weight"] for second in rows] for rows in (looks, drops)]
            found["correlation"] = float(np.corrcoef(pair)[0, 1]) if all(np.std(side) > 0 for side in pair) else None
        row["kinds"][kind] = found
    return row


def _answer(engine: Engine, wave: Waveform, heard: dict[str, Any], question: str) -> str:
    """Return the greedy answer about a clip that is encoded already."""
    ids = torch.tensor([engine.processor.prompt_ids(engine.prompt(question), [len(wave.samples)])])
    ids = ids.to(engine.model.device)
    out = engine.model.generate(
        ids, attention_mask=torch.ones_like(ids), audio_tokens=heard, **engine.generation(max_new_tokens=ANSWER_TOKENS)
    )
    return engine.text(out[0, ids.shape[1] :])


def _points(point: Point, rows: list[dict[str, Any]]) -> bool:
    """Return whether the heaviest second lies in the event; where nothing weighs, it does not."""
    heaviest = max(rows, key=lambda row: row["weight"])
    return heaviest["weight"] > 0 and point.hit(heaviest["start_s"], heaviest["end_s"])


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the shares of hits with 95 % Wilson intervals, beside chance and the mean correlation."""
    n = len(rows)
    out: dict[str, Any] = {"metric": "pointing", "n": n, "chance": float(np.mean([row["chance"] for row in rows]))}
    for kind in KINDS:
        told: dict[str, Any] = {}
        for method in ("attention", "occlusion"):
            hits = [row["kinds"][kind][method] for row in rows if method in row["kinds"][kind]]
            if hits:
                told[method] = {"value": float(np.mean(hits)), "ci95": list(wilson(sum(hits), len(hits)))}
        both = [row["kinds"][kind].get("correlation") for row in rows]
        known = [value for value in both if value is not None]
        told["correlation"] = float(np.mean(known)) if known else None
        out[kind] = told
    return out


def run(
    engine: Engine,
    root: Path,
    *,
    n: int = 100,
    seed: int = 0,
    out: Path | None = None,
    tell: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Play the game.

    Args:
        engine: The model.
        root: Folder of sets.
        n: Scenes of each kind.
        seed: Of everything.
        out: Folder for one line per scene, or None; a run that was stopped goes on from there.
        tell: Takes progress.

    Returns:
        `tasks` (`world`, `clips`), `absent` sets, `model`, `seed`.
    """
    absent = [] if (root / CLIPS / "manifest.jsonl").is_file() else [CLIPS]
    games = {"world": world_points(n, seed)} | ({} if absent else {"clips": clip_points(root, n, seed)})
    tasks = {}
    for name, points in games.items():
        rows = _kept(out, name, engine, seed)[:n]
        for number, point in enumerate(points, 1):
            if number > len(rows):
                rows.append(play(engine, point))
                _keep(out, name, engine, seed, rows[-1])
                tell(f"{name} {number}/{n}")
        tasks[name] = summary(rows)
    return {"suite": "pointing", "model": engine.name, "seed": seed, "tasks": tasks, "absent": absent}


def _keep(out: Path | None, name: str, engine: Engine, seed: int, row: dict[str, Any]) -> None:
    """Append one scene's line, so that nothing is lost when a run stops."""
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    line = json.dumps({"model": engine.name, "seed": seed, **row}, ensure_ascii=False)
    with (out / f"pointing-{name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def _kept(out: Path | None, name: str, engine: Engine, seed: int) -> list[dict[str, Any]]:
    """Return the whole lines of an earlier run of the same model and seed.

    Raises:
        DataError: The folder holds another model's or another seed's.
    """
    if out is None:
        return []
    path = out / f"pointing-{name}.jsonl"
    rows = read_appended(path)
    if any((row["model"], row["seed"]) != (engine.name, seed) for row in rows):
        raise DataError(f"{path}: another model's or seed's answers; give another --out")
    return rows


def page(result: dict[str, Any]) -> str:
    """Return the result as a table in Markdown."""
    lines = ["| scenes (n) | question | attention | occlusion | correlation | chance |", "|---|---|---|---|---|---|"]
    for name, task in result["tasks"].items():
        for kind in KINDS:
            cells = [_cell(task[kind].get(method)) for method in ("attention", "occlusion")]
            together = task[kind]["correlation"]
            cells += ["–" if together is None else f"{together:.2f}", f"{task['chance']:.2f}"]
            lines.append(f"| {name} ({task['n']}) | {kind} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: dict[str, Any] | None) -> str:
    if found is None:
        return "not available"
    return f"{found['value']:.2f} ({found['ci95'][0]:.2f}–{found['ci95'][1]:.2f})"
