"""A stage says as which numbers it keeps encoder outputs: it trains near the exact losses, and resumes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny_recipe import TINY, tiny

from ossicle.data.cache import FeatureCache
from ossicle.data.cache_shard import DTYPES
from ossicle.errors import ConfigError
from ossicle.training import run as runs
from ossicle.training.run import Run

STAGE = {**TINY["stages"][0], "feature_cache": True, "steps": 6, "audio_dropout": 0, "audio_shuffle": 0}
WITHIN = {"fp32": 0.0, "fp16": 1e-4, "bf16": 1e-3, "int8": 3e-3}


def losses(out: Path) -> list[float]:
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row["loss"] for row in rows if "loss" in row]


def train(folder: Path, dtype: str, *, resume: bool = False) -> list[float]:
    folder.mkdir(exist_ok=True)
    loaded = tiny(folder, stages=[{**STAGE, "feature_dtype": dtype}])
    Run(loaded, folder / "out", tell=lambda _: None).train(resume=resume)
    return losses(folder / "out")


class Stop(Exception):
    """Stands for a killed process."""


def test_every_dtype_trains_and_the_narrow_ones_resume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = {dtype: train(tmp_path / dtype, dtype) for dtype in ("auto", *WITHIN)}
    assert found["auto"] == found["fp32"]  # the stage computes in fp32
    for dtype, within in WITHIN.items():
        assert found[dtype] == pytest.approx(found["fp32"], rel=max(within, 1e-9)), dtype
        (shard,) = (tmp_path / dtype).rglob("shard-*.safetensors")
        kept = {tensor.dtype for name, tensor in load_file(shard).items() if name.endswith("|sound")}
        assert kept == {DTYPES[dtype]}
    assert found["bf16"] != found["fp32"] != found["int8"]

    step, seen = runs.StageRun.step, []

    def dying(self: Any, number: int) -> Any:
        seen.append(number)
        if len(seen) % 4 == 0:
            raise Stop
        return step(self, number)

    for dtype in ("bf16", "int8"):
        monkeypatch.setattr(runs.StageRun, "step", dying)
        with pytest.raises(Stop):
            train(tmp_path / f"{dtype} again", dtype)
        monkeypatch.undo()
        assert train(tmp_path / f"{dtype} again", dtype, resume=True) == found[dtype]


def test_another_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="feature_dtype"):
        tiny(tmp_path, stages=[{**STAGE, "feature_dtype": "int4"}])


def test_a_stage_shorter_than_a_pool_encodes_no_clip_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches are cut from a pool in another order than it was drawn in, and the first steps take any of its clips."""
    encoded: list[int] = []
    encode = FeatureCache._encode
    monkeypatch.setattr(FeatureCache, "_encode", lambda *given: (encoded.append(len(given[1])), encode(*given))[1])
    data = {"sounds": {**TINY["data"]["sounds"], "samples": 200}}
    loaded = tiny(tmp_path, data=data, stages=[{**STAGE, "steps": 3}])
    Run(loaded, tmp_path / "out", tell=lambda _: None).train()
    assert sum(encoded) == 64  # one pool of 16 batches of 4
