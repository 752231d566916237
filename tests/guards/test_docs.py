"""Documents are tests: generated pages are up to date, fenced blocks run, transcripts say what is printed now."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
generate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generate)

PAGES = [page for page in generate.executed_pages() if page.exists()]


@pytest.mark.parametrize("name", ["cli", "choices"])
def test_a_generated_page_is_up_to_date(name):
    made = {"cli": generate.cli_reference, "choices": generate.choices}[name]()
    assert (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") == made, "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs(page, tmp_path):
    text = page.read_text(encoding="utf-8")
    script = "\n".join(generate.blocks(text, "python"))
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert generate.with_transcripts(text) == text, "run: make docs"


def test_every_link_leads_somewhere():
    wrong = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                wrong.append(f"{page.name}: {target}")
    assert not wrong
