"""Trains the tiny recipe in a process of its own, to be killed: python train_tiny.py FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from tiny_recipe import tiny

from ossicle.training.run import Run

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    Run(tiny(folder), folder / "out", tell=lambda text: print(text, flush=True)).train(resume=True)
