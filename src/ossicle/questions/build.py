"""The whole engine from one recipe: import, describe, ask, filter, mix, shard; each step once, until it changes.

    recipe ─► import ─► describe ─► subset? ─► closed ┐
                                         └───► open ──┴─► filter ─► mix (composition?) ─► shards · data card
    OUT/steps.json: step ─► hash(settings, what it read)            the same hash: the step is not run again
    board:          [3/9] sounds/describe: 4096 clips … 5000 in, 4990 out, 61 s

Source: our choice; recipe `openasqa` mirrors the composition table of LTU-AS (arXiv 2309.14405).
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from string import Template
from typing import Any

from pydantic import Field

from ossicle.config import Section, dump, read
from ossicle.data import stats
from ossicle.data.blend import BlendEntry, blend
from ossicle.data.hear import Hearer
from ossicle.data.imports import describe_file, import_clips
from ossicle.data.rows import Tally, read_rows, writing
from ossicle.data.set_levels import LevelsConfig
from ossicle.data.shards import write_shards
from ossicle.data.store import unit_key
from ossicle.errors import ConfigError, suggest
from ossicle.questions.ask_model import Asking
from ossicle.questions.composition import Made, Share, table, weighted
from ossicle.questions.endpoint import EndpointConfig
from ossicle.questions.filter import FilterConfig
from ossicle.questions.generate import Plan
from ossicle.questions.joint import JointConfig
from ossicle.questions.whole import closed_file, filter_file, open_file, subset_file

BOARD_EVERY_S = 5.0
FOLDER = Path(__file__).parents[1] / "recipes" / "data"


class Closed(Section):
    """Closed questions of a part.

    Attributes:
        tasks: Which; empty = all that fit.
        repeat: Questions of each task that fits.
        wordings: File of wordings; None = those that ship.
    """

    tasks: list[str] = Field(default=[])
    repeat: int = Field(default=1, ge=1)
    wordings: str | None = None


class Open(Section):
    """Open questions of a part.

    Attributes:
        prompt: `auto`, or the name of a prompt.
        pairs: Questions per clip; None = the prompt's.
    """

    prompt: str = "auto"
    pairs: int | None = None


class Part(Section):
    """One dataset and what is made of it.

    Attributes:
        root: Where it lies; `${VARIABLES}` are filled in.
        adapter: Its layout.
        subset: Take only clips of speech and sound together; None = all.
        closed: Closed questions; None = none.
        open: Open questions; None = none, and none without an endpoint.
        times: How often its questions come in the mix.
        max_samples: At most so many of its questions.
        optional: A recipe goes on without it where it is not there.
    """

    root: str
    adapter: str = "auto"
    subset: JointConfig | None = None
    closed: Closed | None = Closed()
    open: Open | None = None
    times: float = 1.0
    max_samples: int | None = None
    optional: bool = False


class BuildRecipe(Section):
    """What a set of questions is built from.

    Attributes:
        name: Of the recipe.
        description: What it is for.
        parts: Datasets by name.
        endpoint: Who is asked for open questions; None = nobody.
        filter: Which filters run.
        eval_sets: What must not be taught: files of clips, folders, or `layout:folder`.
        paper: Answer shapes and cut points of LTU-AS.
        describe: Measure the clips; without it there are no levels.
        levels: What pitch, volume and speed are told by, and where they are cut into five levels.
        transcribe: Who gives words where the owner gives none: `ctc`, or a Whisper; None = nobody.
        tag: Who gives labels where the owner gives none: `nano`, a model folder, an audio classifier; None = nobody.
        seed: Of wordings and of the mix.
        total: Rows of the mix; None = all, or as many as the composition allows.
        composition: Shares of the mix by name; empty = in proportion to sizes and `times`.
        shards: Write WebDataset shards too.
    """

    name: str
    description: str = ""
    parts: dict[str, Part]
    endpoint: EndpointConfig | None = None
    filter: FilterConfig = FilterConfig()
    eval_sets: list[str] = Field(default=[])
    paper: bool = False
    describe: bool = True
    levels: LevelsConfig = LevelsConfig()
    transcribe: str | None = None
    tag: str | None = None
    seed: int = 0
    total: int | None = None
    composition: dict[str, Share] = Field(default={})
    shards: bool = False


def shipped() -> list[str]:
    """Return the names of the recipes that ship."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load(name: str, overrides: list[str]) -> BuildRecipe:
    """Return a recipe by shipped name or path, with overrides.

    Raises:
        ConfigError: No such recipe, or a setting that does not fit.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise ConfigError(f"no data recipe '{name}'; {suggest(name, shipped())}; or give a YAML file")
    document = read(path)
    for override in overrides:
        document.set(override)
    return document.check(BuildRecipe)


class Build:
    """A run of a recipe into a folder.

    Args:
        recipe: What is built.
        out: Where; a stopped run goes on there.
        note: Told what happens.
        jobs: Processes.
        engine: `local` or `ray`.
    """

    def __init__(
        self, recipe: BuildRecipe, out: Path, note: Callable[[str], None], *, jobs: int = 1, engine: str = "local"
    ) -> None:
        self.recipe, self.out, self.note = recipe, out, note
        self.jobs, self.engine = jobs, engine
        self.place = out / "steps.json"
        self.steps: dict[str, Any] = json.loads(self.place.read_text()) if self.place.is_file() else {}
        self.absent: list[str] = []
        self.reached: list[str] = []
        self.begun, self.total, self.noted = 0, 0, 0.0

    def run(self) -> dict[str, Any]:
        """Run what is not done yet, and return counts by step.

        Raises:
            UserError: A part that is not optional is not there, or a step fails for a reason of the user's.
        """
        made: list[Made] = []
        there = self._there()
        self.total = sum(self._steps_of(self.recipe.parts[name]) for name in there) + 1 + self.recipe.shards
        for name, root in there.items():
            part = self.recipe.parts[name]
            times, cap = part.times, part.max_samples
            for kind, path in self._part(name, part, root):
                made.append(Made(kind=f"{name}/{kind}", entry=BlendEntry(path=str(path), times=times, max_samples=cap)))
        if not made:
            raise ConfigError(f"{self.recipe.name}: no part is there: {', '.join(self.absent)}; set their 'root'")
        mixed = self.out / "questions.jsonl"
        shares = str(self.recipe.composition)
        files = [Path(one.entry.path) for one in made]
        self._step(
            "mix", mixed, files, lambda: self._mix(made, mixed), str(made), shares, self.recipe.seed, self.recipe.total
        )
        if self.recipe.shards:
            self._step("shards", self.out / "shards", [mixed], lambda: self._shard(mixed))
        return self._finish(mixed)

    def _there(self) -> dict[str, Path]:
        """Return where the parts lie; optional ones that are not there are noted and left out."""
        found = {}
        for name, part in self.recipe.parts.items():
            root = Path(Template(part.root).safe_substitute(os.environ)).expanduser()
            if part.optional and not root.exists():
                self.absent.append(name)
                self.note(f"{name}: not there, left out ({root})")
            else:
                found[name] = root
        return found

    def _steps_of(self, part: Part) -> int:
        asked = (part.closed is not None) + self._asks(part)
        return 1 + self.recipe.describe + (part.subset is not None) + 2 * asked

    def _asks(self, part: Part) -> bool:
        return part.open is not None and self.recipe.endpoint is not None

    def _board(self, what: str) -> Callable[[int], None]:
        """Return what tells how far the running step is, every few seconds."""

        def tell(done: int) -> None:
            if time.monotonic() - self.noted > BOARD_EVERY_S:
                self.noted = time.monotonic()
                self.note(f"[{self.begun}/{self.total}] {what}: {done}")

        return tell

    def _part(self, name: str, part: Part, root: Path) -> list[tuple[str, Path]]:
        """Return the filtered questions of one part, closed and open."""
        folder = self.out / name
        clips, described = folder / "clips.jsonl", folder / "described.jsonl"
        self._step(
            f"{name}/import", clips, [],
            lambda: import_clips(root, clips, adapter=part.adapter, source=name)[1].report(),
            str(root), part.adapter, self._seen(str(root)),
        )  # fmt: skip
        if self.recipe.describe:
            hear = Hearer(transcribe=self.recipe.transcribe, tag=self.recipe.tag)
            heard = [] if hear == Hearer() else [str(hear)]
            board = self._board(f"{name}/describe, clips")
            self._step(
                f"{name}/describe", described, [clips],
                lambda: describe_file(
                    clips, described, jobs=self.jobs, engine=self.engine, hear=hear if heard else None,
                    levels=self.recipe.levels, progress=board,
                )[0].report(),
                *heard, *self._levels(),
            )  # fmt: skip
        told = described if self.recipe.describe else clips
        if part.subset is not None:
            told = self._subset(name, part.subset, told)
            if not told.stat().st_size:
                self.begun += 2 * (part.closed is not None) + 2 * self._asks(part)
                self.note(f"{name}: no clip meets the conditions; see the card for the reasons")
                return []
        made = []
        if part.closed is not None:
            plan = Plan(
                tasks=tuple(part.closed.tasks),
                repeat=part.closed.repeat,
                seed=self.recipe.seed,
                paper=self.recipe.paper,
                wordings=None if part.closed.wordings is None else Path(part.closed.wordings),
            )
            path = folder / "closed.jsonl"
            self._step(
                f"{name}/closed", path, [told, *([plan.wordings] if plan.wordings else [])],
                lambda: closed_file(told, path, plan, jobs=self.jobs, engine=self.engine).report(),
                str(plan), *self._levels(),
            )  # fmt: skip
            made.append(("closed", self._filtered(f"{name}/filter-closed", path)))
        if part.open is not None and self.recipe.endpoint is not None:
            path, endpoint = folder / "open.jsonl", self.recipe.endpoint
            asking = Asking(prompt=part.open.prompt, pairs=part.open.pairs, paper=self.recipe.paper)
            units = self._board(f"{name}/open, units")
            self._step(
                f"{name}/open", path, [told],
                lambda: open_file(told, path, endpoint, asking=asking, progress=units),
                endpoint.model, str(asking), *self._levels(),
            )  # fmt: skip
            if path.stat().st_size:
                made.append(("open", self._filtered(f"{name}/filter-open", path)))
            else:
                self.begun += 1
                self.note(f"{name}: every reply was rejected, no open questions; see the card for the reasons")
        return made

    def _levels(self) -> list[str]:
        """Return what steps that put levels into words depend on beside their files: nothing by default."""
        return [] if self.recipe.levels == LevelsConfig() else [self.recipe.levels.model_dump_json()]

    def _subset(self, name: str, subset: JointConfig, described: Path) -> Path:
        path = described.with_name("subset.jsonl")
        self._step(
            f"{name}/subset", path, [described], lambda: subset_file(described, path, subset).report(), str(subset),
        )  # fmt: skip
        return path

    def _filtered(self, step: str, path: Path) -> Path:
        kept = path.with_suffix(".kept.jsonl")
        sets = [Template(text).safe_substitute(os.environ) for text in self.recipe.eval_sets]
        config = self.recipe.filter
        self._step(
            step, kept, [path],
            lambda: filter_file(path, kept, path.with_suffix(".rejected.jsonl"), config, eval_sets=sets).report(),
            config.model_dump_json(), *(f"{text} {self._seen(text)}" for text in sets),
        )  # fmt: skip
        return kept

    def _seen(self, place: str) -> str:
        """Return a hash of the names, sizes and times of the files at `FOLDER`, `FILE` or `layout:FOLDER`."""
        rest = place.partition(":")[2]
        path = Path(rest if rest and not Path(place).exists() else place).resolve()
        found = hashlib.blake2b(digest_size=12)
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if file.is_file() and self.out.resolve() not in file.parents:
                facts = file.stat()
                found.update(f"{file}|{facts.st_size}|{facts.st_mtime_ns}\n".encode(errors="surrogateescape"))
        return found.hexdigest()

    def _mix(self, made: list[Made], mixed: Path) -> dict[str, Any]:
        entries, seed, total = [one.entry for one in made], self.recipe.seed, self.recipe.total
        if self.recipe.composition:
            entries, counts, shares = weighted(made, self.recipe.composition, total)
            result = {"composition": shares, **blend(entries, mixed, seed=seed, counts=counts)}
        else:
            result = blend(entries, mixed, seed=seed, total=total)
        rows = sum(result["taken"].values())
        return {"in": rows, "out": rows, **result}

    def _shard(self, mixed: Path) -> dict[str, Any]:
        tally = Tally()
        paths = write_shards(read_rows(mixed), self.out / "shards", tally)
        return {**tally.report(), "shards": len(paths)}

    def _step(
        self, name: str, makes: Path, reads: list[Path], do: Callable[[], dict[str, Any]], *settings: Any
    ) -> None:
        """Run a step unless it was run with the same settings on the same files, and what it made is there."""
        key = unit_key(settings, [_digest(path) for path in reads])
        self.begun += 1
        self.reached.append(name)
        place = f"[{self.begun}/{self.total}] {name}"
        if self.steps.get(name, {}).get("key") == key and makes.exists():
            self.note(f"{place}: done before")
            return
        started = self.noted = time.monotonic()
        result = do()
        counts = {k: v for k, v in result.items() if k != "examples"}
        unfinished = bool(result.get("stopped"))
        self.steps[name] = {"key": "" if unfinished else key, "seconds": round(time.monotonic() - started, 2), **counts}
        self.out.mkdir(parents=True, exist_ok=True)
        with writing(self.place) as file:
            json.dump(self.steps, file, indent=1, default=str)
        taken, given, lasted = counts.get("in", 0), counts.get("out", 0), self.steps[name]["seconds"]
        stopped = f", stopped: no {result['stopped']} left" if unfinished else ""
        self.note(f"{place}: {taken} in, {given} out, {lasted:.3g} s{stopped}")

    def _finish(self, mixed: Path) -> dict[str, Any]:
        found = stats.count(read_rows(mixed))
        steps = {name: self.steps[name] for name in self.reached}  # others are of parts that are not asked for now
        card = self.out / "README.md"
        with writing(card) as file:
            file.write(data_card(self.recipe, found, steps, self.absent))
        return {
            "in": sum(step.get("in", 0) for name, step in steps.items() if name.endswith("/import")),
            "out": found["rows"], "skipped": _skipped(steps), "steps": steps, "absent": self.absent,
            "path": mixed, "card": card,
        }  # fmt: skip


def _skipped(steps: Mapping[str, Any]) -> dict[str, int]:
    return dict(sum((Counter(step.get("skipped", {})) for step in steps.values()), Counter[str]()))


def data_card(recipe: BuildRecipe, found: dict[str, Any], steps: dict[str, Any], absent: list[str]) -> str:
    """Return the page that travels with a set: what is in it, of what terms, made how."""
    lines = [f"# {recipe.name}", "", recipe.description, "", stats.table(found).replace("\n", "\n\n"), ""]
    lines += ["| step | in | out | left out |", "|---|---|---|---|"]
    for name, step in steps.items():
        lost = ", ".join(f"{number} {reason}" for reason, number in step.get("skipped", {}).items())
        lines.append(f"| {name} | {step.get('in', '')} | {step.get('out', '')} | {lost} |")
    if recipe.composition:
        lines += ["", *table(steps["mix"]["composition"])]
    lines += ["", f"Parts that were not there: {', '.join(absent) or 'none'}.", ""]
    lines += ["Terms of the recordings: " + ", ".join(f"{name} ({n})" for name, n in found["licences"].items()) + "."]
    return "\n".join([*lines, "", "## Recipe", "", "```yaml", dump(recipe).rstrip(), "```", ""])


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=12)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
