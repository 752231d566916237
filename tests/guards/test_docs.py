"""Documents are tests: generated pages are up to date, fenced blocks run, transcripts say what is printed now."""

from __future__ import annotations

import importlib.util
import json
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
PROGRAMS = """
import json, os, sys, traceback, types
import ossicle.lean  # torch and transformers, once for all pages; of ossicle nothing that a page would have to import
ended = {}
for name, (folder, program) in json.load(sys.stdin).items():
    page = os.fork()
    if not page:
        code = 1
        try:
            os.chdir(folder)
            with open("errors", "w") as errors:
                os.dup2(errors.fileno(), 2)
            os.dup2(2, 1)
            main = sys.modules["__main__"] = types.ModuleType("__main__")
            exec(compile(program, name, "exec"), vars(main))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)
    ended[name] = os.waitpid(page, 0)[1]
print(json.dumps(ended))
"""


@pytest.fixture(scope="module")
def ended(tmp_path_factory):
    """How each page's program ended: every page in a process and a folder of its own, forked after the imports."""
    folders = {page.name: tmp_path_factory.mktemp(page.stem) for page in PAGES}
    programs = {
        page.name: (str(folders[page.name]), "\n".join(generate.blocks(page.read_text(encoding="utf-8"), "python")))
        for page in PAGES
    }
    words = [sys.executable, "-c", PROGRAMS]
    done = subprocess.run(words, input=json.dumps(programs), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    codes = json.loads(done.stdout.splitlines()[-1])
    return {name: (codes[name], (folder / "errors").read_text()) for name, folder in folders.items()}


@pytest.mark.parametrize("name", ["cli", "choices"])
def test_a_generated_page_is_up_to_date(name):
    made = {"cli": generate.cli_reference, "choices": generate.choices}[name]()
    assert (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") == made, "run: make docs"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_runs(page, ended):
    code, errors = ended[page.name]
    assert code == 0, errors[-3000:]
    text = page.read_text(encoding="utf-8")
    assert generate.with_transcripts(text) == text, "run: make docs"


def test_every_link_leads_somewhere():
    wrong = []
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target and not (page.parent / target).exists():
                wrong.append(f"{page.name}: {target}")
    assert not wrong
