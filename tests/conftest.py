"""Settings that all tests share: where real recordings and reference numbers lie, and when skipping is no answer.

With OSSICLE_REQUIRE_COMPONENTS=1 a test that would be skipped for want of a component (espeak-ng, an extra) fails.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # bitsandbytes would import the whole compiler, which no test wants


def pytest_configure() -> None:
    """A shell that runs tests in the background lets them ignore Ctrl-C, and what they start inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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


MISSING = ("could not import", "not installed", "not in this checkout")
"""Reasons to skip that are no answer where components are required; recordings and a GPU may be absent there too."""


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """Turn the skip of a test into a failure where components are required."""
    return _required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector):
    """The same for a module that skips as a whole."""
    return _required((yield))


def _required(report):
    reason = report.longrepr[2] if report.skipped and isinstance(report.longrepr, tuple) else ""
    required = os.environ.get("OSSICLE_REQUIRE_COMPONENTS") == "1" and not hasattr(report, "wasxfail")
    if required and any(sign in reason for sign in MISSING):
        report.outcome = "failed"
        report.longrepr = f"a component is missing where all are required: {reason}"
    return report


@pytest.fixture(scope="session")
def core_site(tmp_path_factory) -> Path:
    """A folder that holds exactly the core dependencies of ossicle, as links: what `pip install ossicle` brings."""
    from importlib.metadata import distribution

    from packaging.requirements import Requirement

    folder = tmp_path_factory.mktemp("core-site")
    seen, waiting = set(), ["ossicle"]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        found = distribution(name)
        for line in found.requires or []:
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                waiting.append(wanted.name.lower().replace("_", "-"))
        tops = {part.parts[0] for part in found.files or [] if part.parts[0] not in ("..", "__pycache__")}
        for top in tops if name != "ossicle" else ():
            link = folder / top
            if not link.exists():
                link.symlink_to(Path(found.locate_file(top)))
    return folder
