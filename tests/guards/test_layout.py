"""The shape of the source: short files and functions, no branch on a model's name, no path of one machine."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
BRANCH_ON_NAME = re.compile(r"\b(encoder|llm|model|decoder|connector|stream)(_name|_type|\.name|\.kind)?\s*==\s*[\"']")
MACHINE_PATH = re.compile(r"(?<![\w.])/(work|farm|root|home/\w+|Users/\w+|opt/(wheels|pypi\S*))/")
LONG_FUNCTIONS: set[str] = set()
MODEL_FORWARD = "src/ossicle/model.py"  # its forward lists what transformers' own models list


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src" / "ossicle")))
def test_a_module_keeps_the_house_shape(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    lines = text.splitlines()
    wrong = ["more than 400 lines"] if len(lines) > 400 else []
    wrong += [] if ast.get_docstring(tree) or not lines else ["the module does not say what it is"]
    wrong += ["named utils, common or core"] if path.stem in {"utils", "common", "core", "helpers", "misc"} else []
    for number, line in enumerate(lines, 1):
        wrong += [f"{number}: branches on a name"] if BRANCH_ON_NAME.search(line) else []
        wrong += [f"{number}: unfinished"] if re.search(r"\b(TODO|FIXME|XXX)\b", line) else []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            long = node.end_lineno - node.lineno + 1 > 60 and node.name not in LONG_FUNCTIONS
            wrong += [f"{node.name} is longer than 60 lines"] if long else []
            many = len(node.args.args) + len(node.args.kwonlyargs) > 9
            free = _is_command(node) or (node.name == "forward" and path == ROOT / MODEL_FORWARD)
            wrong += [f"{node.name} takes more than 9 parameters"] if many and not free else []
    assert not wrong


def _is_command(function: ast.FunctionDef) -> bool:
    """A verb of the command line lists its options as parameters."""
    return any("command" in ast.unparse(decorator) for decorator in function.decorator_list)


def test_no_file_names_a_path_of_one_machine():
    paths = [path for folder in ("src", "tests", "docs") for path in (ROOT / folder).rglob("*.*")]
    texts = [p for p in paths if p.suffix in {".py", ".md", ".yaml", ".toml"} and p.name != "test_layout.py"]
    assert [p for p in texts if MACHINE_PATH.search(p.read_text(encoding="utf-8"))] == []
