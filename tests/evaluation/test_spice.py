"""SPICE: the program is run as it stands; its parser's models are in no package, so a stand-in writes what it would."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path

import pytest

from ossicle.errors import DataError
from ossicle.evaluation import spice
from ossicle.evaluation.caption_metrics import caption_metrics

PROGRAM = """
    import json, sys
    asked = json.load(open(sys.argv[4]))
    assert sys.argv[2:4] == ["-jar", "spice-1.0.jar"] and sys.argv[5] == "-out"
    assert "-cache" not in sys.argv, "its library needs Java 8"
    rows = []
    for row in reversed(asked):  # in an order of its own
        said, told = set(row["test"].split()), set(" ".join(row["refs"]).split())
        shared = len(said & told)
        f = None if not said and not told else 2 * shared / (len(said) + len(told))
        rows.append({"image_id": row["image_id"], "scores": {"All": {"f": f}, "Object": {"f": 0.0}}})
    json.dump(rows, open(sys.argv[6], "w"))
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A `java` that reads and writes the program's files, and scores words instead of tuples."""
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text(f"#!{sys.executable}\n" + textwrap.dedent(PROGRAM))
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(java.parent))
    return java


def test_scores_come_back_in_the_order_of_the_captions(stand_in, tmp_path):
    captions = ["a dog", "rain", "", 'a "bell" é']
    references = [["a dog barks", "dog"], ["wind"], [""], ['a "bell" é']]
    # words: 2 shared of 2 and 3; none; nothing on either side; all
    assert spice.spice(captions, references, tmp_path) == pytest.approx([4 / 5, 0.0, 0.0, 1.0])


def test_captions_are_measured_where_the_models_lie(stand_in, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "aac_metrics.functional.spice", None)
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", None)
    monkeypatch.setattr(spice, "program_folder", lambda: tmp_path)
    found = caption_metrics(["a dog", "rain"], [["a dog"], ["wind"]])
    assert found["spice"] == pytest.approx(0.5)
    assert "spice" not in found["not_measured"]


def test_what_spice_lacks_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(spice.importlib.util, "find_spec", lambda name: None)
    value, reason = spice.measure(["a dog"], [["a dog"]])
    assert value is None
    assert reason.endswith("pip install 'ossicle[captions]'")
    monkeypatch.undo()
    package = tmp_path / "pycocoevalcap"
    (package / "spice" / "lib").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "pycocoevalcap", raising=False)
    _, reason = spice.measure(["a dog"], [["a dog"]])
    assert "has no models in" in reason
    assert "Spice()" in reason
    for name in spice.MODELS:
        (package / "spice" / name).write_bytes(b"")
    assert spice.program_folder() == package / "spice"
    monkeypatch.setenv("PATH", str(tmp_path))
    assert spice.measure(["a dog"], [["a dog"]]) == (None, "SPICE needs Java: install a Java runtime")


@pytest.mark.slow
def test_the_program_itself_starts_and_its_failure_is_told(tmp_path):
    package = pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed: SPICE's program is in it")
    if shutil.which("java") is None:
        pytest.skip("SPICE needs Java")
    folder = tmp_path / "spice"
    (folder / "lib").mkdir(parents=True)
    origin = Path(package.__path__[0]) / "spice"
    for jar in [origin / spice.PROGRAM, *origin.glob("lib/*.jar")]:
        if "corenlp" not in jar.name:
            (folder / jar.relative_to(origin)).symlink_to(jar)
    with pytest.raises(DataError, match=r"SPICE's program failed: .*NoClassDefFoundError: edu/stanford/nlp"):
        spice.spice(["a dog"], [["a dog"]], folder)
