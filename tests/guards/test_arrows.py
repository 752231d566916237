"""Arrows go one way: a room imports, when it is loaded, only rooms before it."""

from __future__ import annotations

import ast
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "ossicle"
ORDER = [
    {"types", "errors", "registry", "config", "deferred", "compiler", "lean"},
    {"audio", "focus"},
    {"world", "encoders"},
    {"connectors", "mixtures"},
    {"integration"},
    {"chat", "loss", "streams", "model", "model_config", "processor", "tiny"},
    {"data", "questions", "training", "evaluation", "inference", "bench"},
    {"adapt", "study", "demo"},
    {"serve"},
    {"cli", "__main__"},
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def test_no_room_imports_a_later_one():
    wrong = []
    for path in SOURCE.rglob("*.py"):
        here = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("ossicle."):
                there = node.module.split(".")[1]
                if LEVEL.get(there, 0) > LEVEL.get(here, 99):
                    wrong.append(f"{path.relative_to(SOURCE)} imports {node.module}")
    assert not wrong


def test_every_room_has_its_place():
    rooms = {path.name.removesuffix(".py") for path in SOURCE.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert rooms - set(LEVEL) <= {"__init__", "__pycache__", "nano", "recipes"}
