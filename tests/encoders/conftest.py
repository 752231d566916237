"""Published folders, as `save_pretrained` writes them, with small random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel


@pytest.fixture
def publish(tmp_path) -> Callable[[PreTrainedModel], Path]:
    """Write a model as its authors would publish it; every parameter is random, biases and norms too."""

    def write(model: PreTrainedModel, name: str = "published") -> Path:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
        folder: Path = tmp_path / name
        model.eval().save_pretrained(folder)
        return folder

    return write


@pytest.fixture
def noise() -> Callable[..., torch.Tensor]:
    """Seeded noise that fades, (samples,)."""

    def make(samples: int, seed: int = 0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        return 0.2 * torch.randn(samples, generator=generator) * torch.linspace(1, 0.1, samples)

    return make
