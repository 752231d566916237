"""Usage by group: means by hand, a table for people, a picture."""

from __future__ import annotations

import pytest
import torch

from ossicle.errors import DataError
from ossicle.mixtures.routers import Route
from ossicle.mixtures.usage import Usage


def _routes(weights):
    weights = torch.tensor(weights)
    return [Route(router=name, members=("ast", "tiny"), probabilities=weights, weights=weights) for name in ("a", "b")]


def test_means_by_router_and_group(tmp_path):
    usage = Usage()
    usage.add(["rain", "speech"], _routes([[1.0, 0.0], [0.2, 0.4]]))
    usage.add(["rain"], _routes([[0.5, 0.25]]))
    table = usage.table()
    assert list(table) == ["a", "b"]
    assert table["a"]["rain"] == pytest.approx({"ast": 0.75, "tiny": 0.125})
    assert table["b"]["speech"] == pytest.approx({"ast": 0.2, "tiny": 0.4})
    assert "rain" in usage.text() and "0.75" in usage.text()
    with pytest.raises(DataError, match="1 groups for 2 clips"):
        usage.add(["rain"], _routes([[1.0, 0.0], [1.0, 0.0]]))
    pytest.importorskip("matplotlib")
    usage.picture(tmp_path / "usage.png")
    assert (tmp_path / "usage.png").read_bytes()[:4] == b"\x89PNG"


def test_nothing_counted_is_an_empty_table():
    assert Usage().table() == {} and Usage().text() == ""
