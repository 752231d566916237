"""Every module imports with the core dependencies only, or says which extra it wants."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"
PROBE = """
import importlib, pkgutil, ossicle
from ossicle.errors import MissingExtraError
for module in pkgutil.walk_packages(ossicle.__path__, "ossicle."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except MissingExtraError:
        pass
    except Exception as error:
        print(f"{module.name}: {type(error).__name__}: {error}")
for extra in ("peft", "scipy", "matplotlib", "jiwer", "fastapi", "pytest", "jaxtyping"):
    try:
        importlib.import_module(extra)
        print(f"{extra} could be imported, so this proves nothing")
    except ModuleNotFoundError:
        pass
"""


def test_every_module_imports_with_core_dependencies_only(core_site):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SOURCE), str(core_site)])}
    done = subprocess.run([sys.executable, "-S", "-c", PROBE], env=environment, capture_output=True, text=True)
    assert done.stdout == ""
    assert done.returncode == 0, done.stderr[-2000:]
