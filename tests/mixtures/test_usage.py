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


def test_the_heat_map_shows_every_weight_by_router_group_and_encoder(tmp_path, monkeypatch):
    figure = pytest.importorskip("matplotlib.figure")
    usage, drawn = Usage(), []
    usage.add(["rain", "speech"], _routes([[1.0, 0.0], [0.2, 0.4]]))
    monkeypatch.setattr(figure.Figure, "savefig", lambda self, path: drawn.append(self))
    usage.picture(tmp_path / "usage.png")
    panels = [axes for axes in drawn[0].axes if axes.get_images() and axes.get_title()]
    assert [axes.get_title() for axes in panels] == ["a router", "b router"]
    for axes in panels:
        assert axes.get_images()[0].get_array().ravel().tolist() == pytest.approx([1.0, 0.0, 0.2, 0.4])
        assert [text.get_text() for text in axes.texts] == ["1.00", "0.00", "0.20", "0.40"]
        assert [label.get_text() for label in axes.get_xticklabels()] == ["ast", "tiny"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["rain (1)", "speech (1)"]


def test_nothing_counted_is_an_empty_table():
    assert Usage().table() == {} and Usage().text() == ""
