"""No dead settings: every field of every schema is read somewhere."""

from __future__ import annotations

import ast
import re
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "ossicle"
HANDED_ON_WHOLE = {"LoraSpec", "DrawingConfig"}
"""Schemas that are dumped into another library's settings of the same names."""


def _schemas() -> dict[str, list[str]]:
    """Return schema to its fields: the classes that descend from `Section`."""
    texts = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")]
    classes = [node for text in texts for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ClassDef)]
    family, grown = {"Section"}, 0
    while grown < len(family):
        grown = len(family)
        family |= {c.name for c in classes if {ast.unparse(base).split(".")[-1] for base in c.bases} & family}
    return {
        c.name: [n.target.id for n in c.body if isinstance(n, ast.AnnAssign) and "ClassVar" not in ast.unparse(n)]
        for c in classes
        if c.name in family - HANDED_ON_WHOLE
    }


def test_every_field_is_read():
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py"))
    read = set(re.findall(r"\.(\w+)\b", text)) | set(re.findall(r"[\"'](\w+)[\"']", text))
    schemas = _schemas()
    assert "EncoderConfig" in schemas
    assert [f"{name}.{field}" for name, fields in schemas.items() for field in fields if field not in read] == []
