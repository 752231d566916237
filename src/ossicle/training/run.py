"""A whole curriculum: build, stage after stage, resume, and the finished model folder.

    RUN/recipe.yaml          resolved recipe
    RUN/log.jsonl            one row per optimiser step
    RUN/checkpoints/…        see `training.checkpoint`
    RUN/model/               the result, adapters folded in: what `ossicle ask --model RUN/model` takes
    RUN/result.json          what `ossicle train --json` prints

Source: our choice.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ossicle import config, registry
from ossicle.data.mix import Mix
from ossicle.data.source import Source, SourceConfig, SourceContext, source_class
from ossicle.data.stand_in import write_sets
from ossicle.errors import ConfigError, DataError, UserError
from ossicle.training import checkpoint, freeze, lora, processes, shard
from ossicle.training.build import Built, build, outline
from ossicle.training.checkpoint import Place
from ossicle.training.compiled import compile_blocks, compile_none
from ossicle.training.loop import StageRun, autocast_dtype, interruptible, run_steps, stopped
from ossicle.training.objectives.base import Objective, StageContext
from ossicle.training.recipe import Loaded, Recipe, Stage
from ossicle.training.result import TrainResult, result_of, versions
from ossicle.training.trackers import Log, Tracker, open_trackers

logger = logging.getLogger(__name__)


class Run:
    """One run of a recipe in one folder.

    Args:
        loaded: The recipe.
        out: Folder of the run.
        device: Where it trains.
        shrink: The recipe was shrunk; generators make less.
        tell: Takes lines for people (trainable tables, what was resumed).
    """

    def __init__(
        self,
        loaded: Loaded,
        out: Path,
        *,
        device: torch.device | str = "cpu",
        shrink: bool = False,
        tell: Callable[[str], None] = logger.info,
    ) -> None:
        self.recipe: Recipe = loaded.recipe
        self.out = out
        self.device = torch.device(device)
        self.tell = tell
        self.cache_dir = out.parent / ("cache-shrunk" if shrink else "cache")
        self.data_context = SourceContext(
            folder=loaded.folder, seed=self.recipe.seed, cache_dir=self.cache_dir, shrink=shrink
        )

    def train(self, *, resume: bool = False) -> TrainResult:
        """Run every stage that is not done yet, and write the model folder.

        Raises:
            UserError: Something in recipe, data or folder does not fit.
        """
        self.check_needs()
        self.check_parts()
        if processes.is_main():
            self._begin(resume)
        processes.wait()
        found = checkpoint.newest(self.out / "checkpoints") if resume else None
        sources = self.open_sources()
        built = self._built(sources, found)
        place = Place(stage=0, step=0)
        if found is not None:
            path, place = found
            self.tell(f"resumed after step {place.step} of stage '{self.recipe.stages[place.stage].name}' from {path}")
        log = Log(self.out / "log.jsonl")
        if processes.is_main():
            log.cut(self._order(), place.stage, place.step)
        asked = self.recipe.report_to if processes.is_main() else []
        with open_trackers(asked, self.out, config.dump(self.recipe)) as trackers:
            for number in range(place.stage, len(self.recipe.stages)):
                if number > place.stage and self._cuts():  # precision and freezing differ: cut anew
                    built = self._built(sources, self._last())
                done = place if number == place.stage else Place(stage=number, step=0)
                self._stage(
                    built, sources, done, found[0] if found and number == place.stage else None, [log, *trackers]
                )
        if self._cuts() and processes.is_main():
            built = self._built(sources, self._last())
        return self._finish(built, log)

    def _cuts(self) -> bool:
        """Return whether the decoder is cut among processes."""
        return self.recipe.parallel == "shard" and processes.world() > 1

    def _last(self) -> tuple[Path, Place]:
        """Return the checkpoint that all processes have just written."""
        found = checkpoint.newest(self.out / "checkpoints")
        assert found is not None
        return found

    def _built(self, sources: Mapping[str, Source], found: tuple[Path, Place] | None) -> Built:
        """Return the model, whole, as it starts or as a checkpoint has it."""
        built = build(self.recipe, sources)
        for stage in self.recipe.stages:  # a name that means nothing is found now, not after hours
            freeze.set_trainable(built.model, stage.train)
        if not self._cuts():
            built.model.to(self.device)
        if found is not None:
            checkpoint.load_model(built.model, self._left_out(built, found[1].stage), found[0])
        return built

    def check_needs(self) -> None:
        """List everything that the recipe needs and is not here, before any work.

        Raises:
            DataError: All that is missing, in one line.
        """
        from ossicle.training.inspection import needs_of

        if self.data_context.shrink:
            return
        absent = [need for need in needs_of(self.recipe, self.data_context) if not need.present]
        fetched = [need for need in absent if need.source.startswith("https://")]
        if len(fetched) == len(absent) and not os.environ.get("HF_HUB_OFFLINE"):
            return  # published weights are fetched while the model is built
        named = "; ".join(f"{need.what} ({need.source})" for need in absent)
        if absent:
            hint = "set the variables, or try --shrink" if "${" in named else "put them there, or try --shrink"
            raise DataError(f"recipe '{self.recipe.name}' needs what is not here: {named}; {hint}")

    def check_parts(self) -> None:
        """Build the model without weights or data and look every stage up in it: what cannot be is said now.

        Raises:
            UserError: Sizes, layers or names that do not fit.
        """
        decoder = self.recipe.model.language_model
        if decoder is not None and decoder.architecture is None and not Path(str(decoder.pretrained)).is_dir():
            return  # its sizes come with its weights
        model = outline(self.recipe)
        for stage in self.recipe.stages:
            freeze.set_trainable(model, stage.train)

    def open_sources(self) -> dict[str, Source]:
        """Return the sources that some stage draws from, open."""
        used = {entry.source for stage in self.recipe.stages for entry in stage.mix}
        settings = {name: self._at_hand(name, spec) for name, spec in self.recipe.sources().items() if name in used}
        return {name: source_class(spec.kind)(spec, self.data_context) for name, spec in settings.items()}

    def _at_hand(self, name: str, spec: SourceConfig) -> SourceConfig:
        """Return a source's settings; in a small run, of a stand-in for data that is not here."""
        found = source_class(spec.kind)
        if not self.data_context.shrink or all(need.present for need in found.needs(spec, self.data_context)):
            return spec
        self.tell(f"source '{name}' is not here; the small run uses synthetic clips in its form")
        return found.stand_in(spec, self.data_context)

    def _objective(self, stage: Stage) -> Stage:
        """Return the stage; in a small run, with a stand-in for a folder of sets that its objective reads."""
        spec = stage.objective
        if not self.data_context.shrink or "root" not in spec:
            return stage
        names = [name for name in spec["mix"] if name not in spec.get("synthesised", ())]
        if all((self.data_context.path(spec["root"]) / name).is_dir() for name in names):
            return stage
        root = write_sets(self.cache_dir / "stand_in", names, self.recipe.seed)
        self.tell(f"stage '{stage.name}': {spec['root']} is not here; the small run uses synthetic clips in its form")
        return stage.model_copy(update={"objective": {**spec, "root": str(root.resolve())}})

    def _begin(self, resume: bool) -> None:
        """Claim the folder for a new run, or check that it is this recipe's."""
        resolved = config.dump(self.recipe)
        written = self.out / "recipe.yaml"
        if not resume:
            if self.out.exists() and any(self.out.iterdir()):
                raise UserError(f"{self.out}: is not empty; use --resume to go on with it, or --out for another folder")
            self._claim(resolved)
        elif not written.is_file():
            self.tell(f"{self.out}: nothing to resume yet, starting from the beginning")
            self._claim(resolved)
        else:
            same_recipe(written, resolved)
            if checkpoint.newest(self.out / "checkpoints") is None:
                self.tell(f"{self.out}: stopped before its first checkpoint, starting from the beginning")

    def _claim(self, resolved: str) -> None:
        """Make the folder, with the recipe whole in it."""
        self.out.mkdir(parents=True, exist_ok=True)
        temporary = self.out / ("recipe.yaml" + checkpoint.WRITING)
        temporary.write_text(resolved, encoding="utf-8")
        temporary.replace(self.out / "recipe.yaml")

    def _order(self) -> list[str]:
        return [stage.name for stage in self.recipe.stages]

    def _stage(
        self, built: Built, sources: Mapping[str, Source], place: Place, path: Path | None, trackers: list[Tracker]
    ) -> None:
        """Run one stage from `place`, with the state of `path` where there is one."""
        stage = processes.shared(self.recipe.stages[place.stage])
        mix = None
        if stage.mix:
            mix = Mix(sources, stage.mix, seed=self.recipe.seed, stage_index=place.stage, epochs=stage.epochs)
        steps = stage.num_steps(None if mix is None or mix.endless else mix.num_samples)
        if place.step >= steps and path is not None:
            return
        prepare(built.model, stage)
        table = freeze.table(built.model)
        self.tell(freeze.table_text(table, stage.name))
        if self._cuts():
            shard.shard(built.model, lower=autocast_dtype(stage.precision, self.device), device=self.device)
            built.model.streams.to(self.device)
        context = StageContext(
            model=built.model,
            processor=built.processor,
            recipe=self.recipe,
            stage=stage,
            stage_index=place.stage,
            device=self.device,
            data=mix,
            cache_dir=self.cache_dir,
        )
        objective = build_objective(self._objective(stage), context).to(self.device)
        run = StageRun(context, objective, steps, self.out)
        if path is not None:
            checkpoint.load_optimizer(run.optimizer, run.named, path)
            heads = checkpoint.tensors(path / "objective.safetensors")
            checkpoint.load_tensors(objective, heads, (), path / "objective.safetensors")

        def save(step: int) -> None:
            self._save(built, run, Place(stage=place.stage, step=step), table)

        def log_row(row: dict[str, Any]) -> None:
            for tracker in trackers if processes.is_main() else []:
                tracker.write(row)

        with interruptible() as stopping:
            run_steps(run, place.step, log_row=log_row, save=save, stopping=stopping)
            measures = objective.finish()
            skipped = dict(getattr(getattr(objective, "collator", None), "skips", {}))
            facts = {"trainable": sum(row.trainable for row in table), "measures": measures, "skipped": skipped}
            if processes.is_main():
                trackers[0].write({"stage": stage.name, "finished": steps, **facts})
            save(steps)
            if stopping() and place.stage + 1 < len(self.recipe.stages):
                raise stopped(steps, stage.name)

    def _save(self, built: Built, run: StageRun, place: Place, table: list[freeze.PartCount]) -> None:
        """Write one checkpoint."""
        processes.average_buffers(built.model)
        left_out = self._left_out(built, place.stage)
        model = checkpoint.tensors_of(built.model, left_out)
        moments = checkpoint.optimizer_tensors(run.optimizer, run.named)
        shares = {f"model|{name}": value for name, value in model.items() if shard.is_share(value)}
        shares |= {f"optimizer|{name}": value for name, value in moments.items() if shard.is_share(value)}
        if not (processes.is_main() or shares):
            return
        facts = {
            "stage": run.context.stage.name,
            "versions": versions(),
            "data": {name: source.fingerprint() for name, source in _sources_of(run.context.data).items()},
            "trainable": [asdict(row) for row in table],
            "left_out": list(left_out),
        }
        files: dict[str, Any] = {
            "model.safetensors": {name: value for name, value in model.items() if not shard.is_share(value)},
            "objective.safetensors": checkpoint.tensors_of(run.objective),
            "optimizer.safetensors": {name: value for name, value in moments.items() if not shard.is_share(value)},
            "recipe.yaml": config.dump(self.recipe),
            "stage.json": json.dumps(facts, indent=1),
        }
        keep = self.recipe.keep_checkpoints
        checkpoint.save(self.out / "checkpoints", place, files, keep=keep, shares=shares)
        if shares:
            processes.wait()

    def _left_out(self, built: Built, stage: int) -> tuple[str, ...]:
        """Return the prefixes of published weights that no stage so far has trained."""
        names = [name for name, _ in built.model.named_parameters()]
        patterns = [pattern for done in self.recipe.stages[: stage + 1] for pattern in done.train]
        trained = {name for name in names for pattern in patterns if freeze.matches(name, pattern)}
        trained = {name for name in trained if not freeze.LORA.search(name)}
        return tuple(prefix for prefix in built.pretrained if not any(name.startswith(prefix) for name in trained))

    def _finish(self, built: Built, log: Log) -> TrainResult:
        """Write the model folder and the result."""
        if processes.is_main():  # the others may still hold shares, which they cannot fold alone
            lora.fold(built.adapters)
            self._write_model(built)
        processes.wait()
        stages = [result_of(stage.name, log.rows(stage.name)) for stage in self.recipe.stages]
        result = {"stages": [asdict(stage) for stage in stages], "checkpoint": str(self.out / "model")}
        if processes.is_main():
            (self.out / "result.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
        return TrainResult(stages=stages, checkpoint=self.out / "model")

    def _write_model(self, built: Built) -> None:
        folder, temporary = self.out / "model", self.out / ("model" + checkpoint.WRITING)
        shutil.rmtree(temporary, ignore_errors=True)
        built.model.eval().save_pretrained(temporary)
        built.processor.save_pretrained(temporary)
        (temporary / "recipe.yaml").write_text(config.dump(self.recipe), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        temporary.replace(folder)


def prepare(model: Any, stage: Stage) -> list[str]:
    """Freeze and unfreeze as a stage says; return the names of what trains."""
    names = freeze.set_trainable(model, stage.train)
    if stage.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.language_model.train()  # a frozen decoder recomputes too, and only modules in train mode do
    elif model.is_gradient_checkpointing:
        model.gradient_checkpointing_disable()
    decoder = model.get_decoder()
    if stage.compile:
        compile_blocks(decoder)
    else:
        compile_none(decoder)
    return names


def build_objective(stage: Stage, context: StageContext) -> Objective:
    """Return the objective of a stage; its own weights start the same in all processes and in a run that goes on.

    Raises:
        ConfigError: It needs a mix and the stage names none.
    """
    settings = registry.parse("training.objectives", stage.objective)
    found = registry.lookup("training.objectives", settings.kind)
    if found.needs_data and context.data is None:
        raise ConfigError(f"stage '{stage.name}': objective '{settings.kind}' needs a 'mix' of sources")
    torch.manual_seed(int(context.generator(0, stream=3).integers(2**62)))
    objective: Objective = found(settings, context)
    return objective


def _sources_of(mix: Mix | None) -> dict[str, Source]:
    return dict(zip(mix.names, mix.sources, strict=True)) if mix is not None else {}


def same_recipe(written: Path, resolved: str) -> None:
    """Refuse to go on with another recipe than the one the run began with.

    Raises:
        ConfigError: Names the first line that differs.
    """
    before = written.read_text(encoding="utf-8")
    if before != resolved:
        pairs = zip(before.splitlines(), resolved.splitlines(), strict=False)
        old, new = next(((a, b) for a, b in pairs if a != b), ("its end", "more"))
        raise ConfigError(f"{written}: the run was begun with '{old.strip()}', now it says '{new.strip()}'; use --out")
