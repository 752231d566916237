"""The stub encoder is known to the registry while these tests run."""

from __future__ import annotations

import pytest

from ossicle import registry


@pytest.fixture(autouse=True)
def _stubs_are_known(monkeypatch):
    monkeypatch.setitem(registry.names("encoders"), "stub", "mixtures.stubs:StubEncoder")
