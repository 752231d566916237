"""A root of the recordings that no row was taught: the sets as they lie, their manifests cut to what was held out.

    ROOT/fsdd/manifest.jsonl ──rules {fsdd: [theo]}──► OUT/fsdd/manifest.jsonl      (recordings are linked, not copied)

The rules are those of the sources that train (`held_out`), so that both sides of the split are one decision.
Source: our choice.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

import numpy as np

from ossicle.data.manifest import MANIFEST, read_set, sets
from ossicle.data.material import Sound, is_held_out
from ossicle.data.rows import numbered_lines
from ossicle.errors import DataError


def root_of(text: str | None, rules: Mapping[str, Sequence[str] | float], out: Path) -> Path:
    """Return the folder of sets that rows are scored on.

    Args:
        text: Where the sets lie; `${VARIABLES}` are filled in. None = nowhere: only made sounds are asked about.
        rules: Set → groups, or share of the groups, that are kept; sets without a rule are linked whole.
        out: Where the cut manifests are written.

    Raises:
        DataError: No such folder, or a rule leaves nothing of its set.
    """
    out.mkdir(parents=True, exist_ok=True)
    if text is None:
        return out
    root = Path(Template(text).safe_substitute(os.environ)).expanduser()
    if not root.is_dir():
        raise DataError(f"study: measure.root {text}: no such folder; set the variable, or leave 'root' out")
    for name in sets(root):
        if name in rules:
            _cut(root / name, rules, out / name)
        else:
            _link(root / name, out / name)
    return out


def _cut(source: Path, rules: Mapping[str, Sequence[str] | float], out: Path) -> None:
    """Write the manifest of what is held out of one set, and link everything else in its folder."""
    out.mkdir(exist_ok=True)
    lines = [line for _, line in numbered_lines(source / MANIFEST)]
    nothing = np.zeros(0, dtype=np.int16)
    kept = [
        line
        for line, clip in zip(lines, read_set(source), strict=True)
        if is_held_out(Sound(samples=nothing, pool=source.name, group=clip.group or clip.name), rules)
    ]
    if not kept:
        raise DataError(f"study: measure.held_out: nothing of {source.name} is held out by {rules[source.name]!r}")
    for path in source.iterdir():
        if path.name != MANIFEST:
            _link(path, out / path.name)
    temporary = out / f"{MANIFEST}.writing"
    temporary.write_text("\n".join(kept) + "\n", encoding="utf-8")
    temporary.replace(out / MANIFEST)


def _link(target: Path, link: Path) -> None:
    if not link.exists():
        link.symlink_to(target.resolve())
