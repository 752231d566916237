"""Asks about numbered clips, to be killed: python ask_child.py URL FOLDER UNITS."""

from __future__ import annotations

import sys
from pathlib import Path

from ossicle.data.clip import Clip
from ossicle.data.store import Store
from ossicle.questions.ask_model import ask_all, units_of
from ossicle.questions.corpus import Corpus
from ossicle.questions.endpoint import EndpointConfig


def settings(url: str) -> EndpointConfig:
    return EndpointConfig(url=url, model="double", timeout_s=1.5, tries=12, first_wait_s=0.01, at_once=16)


def clips(count: int) -> list[Clip]:
    return [
        Clip(path=Path(f"/c/{n}.wav"), source="made", labels=("hopeless" if n % 25 == 7 else f"sound {n}",))
        for n in range(count)
    ]


if __name__ == "__main__":
    config = settings(sys.argv[1])
    units = list(units_of(clips(int(sys.argv[3])), Corpus(), config, pairs=3))
    with Store(Path(sys.argv[2])) as store:
        ask_all(units, config, store)
