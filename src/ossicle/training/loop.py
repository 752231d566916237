"""One stage, step by step: plain PyTorch.

    for each step:   seed(step) ──► Σ micro-batches: backward(total) ──► gradients / Σ count ──► clip ──► AdamW

The loss of a step is the sum over all its label tokens divided by their number, however the step was cut into
micro-batches. Batches and random numbers are functions of (seed, stage, step), so a resumed run repeats the losses of
one that was never interrupted. Source: our choice.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ossicle.errors import UserError
from ossicle.training import optim, processes, shard
from ossicle.training.objectives.base import Objective, StageContext

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReport:
    """What one optimiser step did: a row of the log."""

    stage: str
    step: int
    loss: float
    tokens: int
    learning_rate: float
    grad_norm: float
    seconds: float
    logs: dict[str, float]

    def row(self) -> dict[str, Any]:
        """Return it flat, for JSON."""
        facts = {name: getattr(self, name) for name in self.__slots__ if name != "logs"}
        return {**facts, **self.logs}


class StageRun:
    """The state of one stage: its objective, optimiser and place.

    Args:
        context: Model, recipe and stage.
        objective: What is minimised; its own parameters train too.
        steps: Optimiser steps of the whole stage.
        rescue: Folder for what helps to find a fault.
    """

    def __init__(self, context: StageContext, objective: Objective, steps: int, rescue: Path) -> None:
        self.context, self.objective, self.steps, self.rescue = context, objective, steps, rescue
        stage = context.stage
        self.named = {name: p for name, p in context.model.named_parameters() if p.requires_grad}
        self.named |= {f"objective.{name}": p for name, p in objective.named_parameters() if p.requires_grad}
        self.optimizer = optim.build_optimizer(
            self.named.items(),
            learning_rate=stage.learning_rate,
            part_rates=stage.part_rates,
            weight_decay=stage.weight_decay,
            betas=stage.betas,
        )
        self.autocast = autocast_dtype(stage.precision, context.device)

    def step(self, number: int) -> StepReport:
        """Run one optimiser step and return its report.

        Raises:
            UserError: The loss or the gradient is not a number.
        """
        began = time.perf_counter()
        stage = self.context.stage
        for module in self.context.model.modules():
            if hasattr(module, "set_progress"):
                module.set_progress(number / max(1, self.steps - 1))
        share = optim.scale(number, steps=self.steps, warmup=stage.warmup(self.steps), schedule=stage.schedule)
        rate = optim.set_rate(self.optimizer, share)
        loss, count, logs = self._backward(number)
        parameters = [p for p in self.named.values() if p.grad is not None]
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.div_(max(1, count))
        norm = shard.clip_gradients(parameters, stage.max_grad_norm)
        if not math.isfinite(norm):
            self._stop(number, norm, "gradient norm", self._ids(number))
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return StepReport(
            stage=stage.name,
            step=number,
            loss=loss,
            tokens=count,
            learning_rate=rate,
            grad_norm=norm,
            seconds=round(time.perf_counter() - began, 4),
            logs=logs,
        )

    def _backward(self, number: int) -> tuple[float, int, dict[str, float]]:
        """Add up the gradients of a step's micro-batches; return mean loss, label tokens and mean logs."""
        accumulation = self.context.stage.accumulation
        seed_step(self.context, number)
        total, count = 0.0, 0
        sums: Counter[str] = Counter()
        for micro in processes.micro_batches(self.context.stage, number):
            batch = self.objective.batch(micro)
            with autocast(self.context.device, self.autocast):
                out = self.objective.loss(batch)
            value = float(out.total.detach())
            if not math.isfinite(value):
                self._stop(number, value, "loss", self.objective.ids(batch))
            if out.total.requires_grad:
                out.total.backward()
            total, count = total + value, count + out.count
            sums.update(out.logs)
        processes.sum_gradients([p for p in self.named.values() if not shard.is_share(p)])
        names = sorted(sums)
        total, many, *logs = processes.sum_numbers([total, count, *(sums[n] for n in names)], self.context.device)
        means = {name: value / accumulation for name, value in zip(names, logs, strict=True)}
        return total / max(1, many), int(many), means

    def _ids(self, number: int) -> list[str]:
        micros = processes.micro_batches(self.context.stage, number)
        return [name for micro in micros for name in self.objective.ids(self.objective.batch(micro))]

    def _stop(self, number: int, value: float, what: str, ids: list[str]) -> None:
        """Save the names of the samples at fault and stop."""
        path = self.rescue / "not_a_number.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        row = {"stage": self.context.stage.name, "step": number, "what": what, "value": str(value), "samples": ids}
        path.write_text(json.dumps(row, indent=1), encoding="utf-8")
        raise UserError(
            f"stage '{self.context.stage.name}', step {number}: the {what} is {value}; its samples are listed in "
            f"{path}; look at them, or lower learning_rate and use --resume"
        )


def seed_step(context: StageContext, number: int) -> None:
    """Start all random numbers of a step (dropout) from its own seed."""
    torch.manual_seed(int(context.generator(number, stream=2 + 16 * processes.rank()).integers(2**62)))


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Return the dtype of autocast, None = everything in float32.

    Raises:
        UserError: bf16 was asked for and the device has none.
    """
    if precision == "fp32":
        return None
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported()
    else:
        able = device.type == "cpu" and torch.backends.mkldnn.is_available() and _fast_bf16()
    if precision == "bf16" and not able and device.type != "cpu":
        raise UserError(f"precision bf16: {device.type} has none here; use precision: fp32")
    return torch.bfloat16 if able or precision == "bf16" else None


def _fast_bf16() -> bool:
    """Return whether this CPU multiplies bf16 in hardware."""
    cpu: Any = torch.cpu
    checks = [getattr(cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")]
    return any(check() for check in checks if check is not None)


def autocast(device: torch.device, dtype: torch.dtype | None) -> contextlib.AbstractContextManager[Any]:
    """Return the context in which losses are computed."""
    return contextlib.nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def run_steps(
    run: StageRun,
    start: int,
    *,
    log_row: Callable[[dict[str, Any]], None],
    save: Callable[[int], None],
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Run the steps of a stage from `start` to its end, with a progress bar on stderr.

    Args:
        run: The stage.
        start: Steps already done.
        log_row: Takes the row of every step.
        save: Takes the number of steps done, whenever a checkpoint is due.
        stopping: Whether to stop before the next step (`interruptible`).

    Raises:
        KeyboardInterrupt: Stopped; what is done is saved.
    """
    stage = run.context.stage
    with _bar(stage.name, start, run.steps) as bar:
        for number in range(start, run.steps):
            report = run.step(number)
            log_row(report.row())
            bar.set_postfix(loss=f"{report.loss:.3f}", tokens_s=f"{report.tokens / report.seconds:.0f}", refresh=False)
            bar.update()
            done = number + 1
            if done == run.steps:
                return
            if stopping():
                save(done)
                raise stopped(done, stage.name)
            if done % stage.checkpoint_every == 0:
                save(done)


def stopped(done: int, stage: str) -> KeyboardInterrupt:
    """Return what ends a run that was asked to stop, once it is saved."""
    return KeyboardInterrupt(f"stopped after step {done} of stage '{stage}'")


@contextlib.contextmanager
def interruptible() -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C or SIGTERM wait for the step at hand, so that it can be saved; the second stops at once.

    Yields whether it is time to stop. Only one process alone waits, in its main thread: several would stop after
    different steps, and each wait for the others.
    """
    asked: list[int] = []

    def stop(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    alone = processes.world() == 1 and threading.current_thread() is threading.main_thread()
    others = (signal.SIG_IGN, None)  # who ignores a signal, or handles it outside of Python, goes on to do so
    heard = [n for n in (signal.SIGINT, signal.SIGTERM) if alone and signal.getsignal(n) not in others]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _bar(name: str, start: int, steps: int) -> Iterator[Any]:
    """Yield a progress bar that is rarely redrawn where nobody watches."""
    import sys

    seconds = 0.2 if sys.stderr.isatty() else 20.0
    shown = {"desc": name, "unit": "step", "mininterval": seconds, "dynamic_ncols": True}
    with tqdm(initial=start, total=steps, disable=not processes.is_main(), **shown) as bar:
        yield bar
