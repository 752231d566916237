"""Settings that all tests share: where real recordings and reference numbers lie, and one thread for each process."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value or not Path(value).is_dir():
        pytest.skip(f"{variable} does not name a folder")
    return Path(value)


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Real, labelled recordings (see docs/data.md); the test is skipped where they are absent."""
    return _folder("OSSICLE_DATA")


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Numbers computed by the papers' official code; the test is skipped where they are absent."""
    return _folder("OSSICLE_GOLDEN")
