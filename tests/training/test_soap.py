"""SOAP against its algorithm written out, against AdamW where it has no axes, and in a turned world."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_recipe import tiny
from torch import Tensor

from ossicle.errors import UserError
from ossicle.training import loop
from ossicle.training.run import Run
from ossicle.training.soap import Soap

BETAS, RATE, DECAY, EVERY = (0.9, 0.95), 0.05, 0.1, 3


def gradients(shape: tuple[int, ...], steps: int = 14) -> list[Tensor]:
    random = torch.Generator().manual_seed(0)
    stretch = torch.logspace(0, -2, shape[0]).reshape(-1, *[1] * (len(shape) - 1))
    return [torch.randn(shape, generator=random) * stretch for _ in range(steps)]


def after(start: Tensor, rows: list[Tensor], **settings: int) -> Tensor:
    weight = torch.nn.Parameter(start.clone())
    optimizer = Soap([{"params": [weight], "lr": RATE, "weight_decay": DECAY}], betas=BETAS, every=EVERY, **settings)
    for row in rows:
        weight.grad = row.to(weight.dtype)
        optimizer.step()
    return weight.detach()


def written_out(start: Tensor, rows: list[Tensor], *, left: bool, right: bool) -> Tensor:
    """SOAP with the first moment kept in the matrix's own axes, and identities for axes that a side lacks."""
    weight, mean, square = start.clone(), torch.zeros_like(start), torch.zeros_like(start)
    spreads = [rows[0] @ rows[0].T, rows[0].T @ rows[0]]
    axes = [
        torch.linalg.eigh(s)[1].flip(-1) if on else torch.eye(len(s))
        for s, on in zip(spreads, (left, right), strict=True)
    ]
    for done, row in enumerate(rows[left or right :], start=1):
        turned = axes[0].T @ row @ axes[1]
        mean = BETAS[0] * mean + (1 - BETAS[0]) * row
        square = BETAS[1] * square + (1 - BETAS[1]) * turned**2
        seen = axes[0].T @ (mean / (1 - BETAS[0] ** done)) @ axes[1]
        change = axes[0] @ (seen / ((square / (1 - BETAS[1] ** done)).sqrt() + 1e-8)) @ axes[1].T
        weight = weight - RATE * DECAY * weight - RATE * change
        if done % EVERY == 0:
            for side, (on, spread) in enumerate(zip((left, right), (row @ row.T, row.T @ row), strict=True)):
                if on:
                    kept = BETAS[1] ** EVERY
                    spreads[side] = kept * spreads[side] + (1 - kept) * spread
                    order = (axes[side].T @ spreads[side] @ axes[side]).diagonal().argsort(descending=True)
                    axes[side] = torch.linalg.qr(spreads[side] @ axes[side][:, order])[0]
                    square = square.index_select(side, order)
    return weight


@pytest.mark.parametrize(("shape", "max_side"), [((5, 5), 8), ((5, 9), 8), ((9, 5), 8), ((6, 6), 8)])
def test_it_is_the_algorithm_written_out(shape: tuple[int, int], max_side: int) -> None:
    start, rows = torch.ones(shape), gradients(shape)
    expected = written_out(start, rows, left=shape[0] <= max_side, right=shape[1] <= max_side)
    assert (after(start, rows, max_side=max_side) - expected).abs().max() < 2e-4 * RATE * len(rows)


@pytest.mark.parametrize(("shape", "settings"), [((5, 4), {"max_side": 3}), ((6,), {}), ((3, 2, 2), {})])
def test_what_has_no_axes_is_adamw(shape: tuple[int, ...], settings: dict[str, int]) -> None:
    weight = torch.nn.Parameter(torch.ones(shape))
    theirs = torch.optim.AdamW([weight], lr=RATE, betas=BETAS, weight_decay=DECAY)
    for row in gradients(shape):
        weight.grad = row
        theirs.step()
    assert torch.allclose(after(torch.ones(shape), gradients(shape), **settings), weight.detach(), atol=1e-6)


def test_a_turned_problem_has_the_turned_answer() -> None:
    torch.manual_seed(1)
    start, rows = torch.randn(5, 5), gradients((5, 5))
    u, v = torch.linalg.qr(torch.randn(5, 5))[0], torch.linalg.qr(torch.randn(5, 5))[0]
    turned = [u @ row @ v for row in rows]
    gap = after(u @ start @ v, turned) - u @ after(start, rows) @ v
    plain = after(u @ start @ v, turned, max_side=0) - u @ after(start, rows, max_side=0) @ v
    assert gap.abs().max() < 0.01 * RATE < 0.2 * plain.abs().max()


def loss_after(
    make: Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer], rate: float, steps: int = 100
) -> float:
    """The loss of a regression on strongly correlated inputs, after steps whose rate falls to nothing."""
    torch.manual_seed(2)
    mixed = torch.randn(256, 12) * torch.logspace(0, -2, 12) @ torch.linalg.qr(torch.randn(12, 12))[0]
    wanted = mixed @ torch.randn(12, 8)
    weight = torch.nn.Parameter(torch.zeros(12, 8))
    optimizer = make([weight])
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        optimizer.zero_grad()
        loss = (mixed @ weight - wanted).square().mean()
        loss.backward()
        optimizer.step()
    return float(loss.detach())


def test_it_learns_more_from_correlated_inputs_than_adam_at_its_best_rate() -> None:
    adam = min(loss_after(lambda w: torch.optim.Adam(w, betas=BETAS), rate) for rate in (0.03, 0.1, 0.3))
    soap = min(loss_after(lambda w: Soap(w, betas=BETAS), rate) for rate in (0.03, 0.1, 0.3))
    assert soap < 0.1 * adam


def test_a_gradient_of_zeros_at_first_and_one_that_is_absent_do_no_harm() -> None:
    rows = [torch.zeros(4, 4), *gradients((4, 4))]
    assert after(torch.ones(4, 4), rows).isfinite().all()
    assert torch.equal(after(torch.ones(4, 4), rows[:1]), torch.ones(4, 4))
    weight = torch.nn.Parameter(torch.ones(4, 4))
    Soap([weight], betas=BETAS).step()
    assert torch.equal(weight.detach(), torch.ones(4, 4))


def test_half_precision_weights_keep_their_type() -> None:
    assert after(torch.ones(4, 4, dtype=torch.bfloat16), gradients((4, 4))).dtype == torch.bfloat16


def losses(out: Path) -> list[float]:
    rows = map(json.loads, (out / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def test_a_run_with_soap_resumes_to_the_same_losses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = ("stages.1.optimizer=soap", "stages.1.steps=14", "stages.1.checkpoint_every=4")
    Run(tiny(tmp_path, *settings), tmp_path / "whole", tell=lambda _: None).train()
    step = loop.StageRun.step

    def dying(self: loop.StageRun, number: int) -> loop.StepReport:
        if number == 13 and self.context.stage_index == 1:
            raise InterruptedError
        return step(self, number)

    monkeypatch.setattr(loop.StageRun, "step", dying)
    with pytest.raises(InterruptedError):
        Run(tiny(tmp_path, *settings), tmp_path / "out", tell=lambda _: None).train()
    monkeypatch.undo()
    Run(tiny(tmp_path, *settings), tmp_path / "out", tell=lambda _: None).train(resume=True)
    assert losses(tmp_path / "out") == losses(tmp_path / "whole")


def test_shares_of_matrices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stage 'align': optimizer 'soap' needs whole matrices"):
        tiny(tmp_path, "parallel=shard", "stages.0.optimizer=soap")
