"""Our model and batches work under transformers' own Trainer: the loss falls, and a run saves, resumes and reloads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_recipe import tiny

from ossicle.data.collate import Collator
from ossicle.model import AudioLM
from ossicle.training.build import build
from ossicle.training.run import Run

pytest.importorskip("accelerate")


def trainer(folder: Path, steps: int) -> Any:
    from transformers import Trainer, TrainingArguments

    loaded = tiny(folder)
    sources = Run(loaded, folder / "out").open_sources()
    built = build(loaded.recipe, sources)
    collator = Collator(built.processor)
    arguments = TrainingArguments(
        output_dir=str(folder / "hf"),
        max_steps=steps,
        per_device_train_batch_size=8,
        learning_rate=5e-3,
        lr_scheduler_type="constant",
        save_steps=10,
        logging_steps=1,
        report_to=[],
        remove_unused_columns=False,
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )
    samples = [sources["sounds"].sample(index) for index in range(24)]
    return Trainer(
        model=built.model,
        args=arguments,
        train_dataset=samples,
        data_collator=lambda chosen: dict(collator(chosen).inputs),
    )


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_twenty_steps_lower_the_loss_and_a_run_resumes_and_reloads(tmp_path: Path) -> None:
    run = trainer(tmp_path, 20)
    run.train()
    whole = [row["loss"] for row in run.state.log_history if "loss" in row]
    assert len(whole) == 20
    assert sum(whole[-3:]) < 0.5 * sum(whole[:3])

    resumed = trainer(tmp_path, 20)
    resumed.train(resume_from_checkpoint=str(tmp_path / "hf" / "checkpoint-10"))
    again = [row["loss"] for row in resumed.state.log_history if "loss" in row]
    assert again[-10:] == pytest.approx(whole[-10:], abs=2e-4)

    reloaded = AudioLM.from_pretrained(tmp_path / "hf" / "checkpoint-20")
    for name, tensor in resumed.model.state_dict().items():
        assert torch.equal(tensor, reloaded.state_dict()[name]), name
