"""SPICE: how well the things, properties and relations that a caption names agree with those of its references.

    caption, references ──parser──► scene graphs ──► tuples ──► F1, matched by WordNet's synonyms

The program (Java) comes with pycocoevalcap, the English models of its parser do not. It is run here without its cache,
whose library needs Java 8; without it Java 17 runs the program too, and nothing is written into the package.
Source: Anderson et al., arXiv 1607.08822, program version 1.0.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ossicle.errors import DataError

PROGRAM = "spice-1.0.jar"
MODELS = ("lib/stanford-corenlp-3.6.0.jar", "lib/stanford-corenlp-3.6.0-models.jar")
MEMORY = "-Xmx8G"


def measure(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float | None, str | None]:
    """Return the mean SPICE of captions, or why there is none.

    Args:
        captions: One caption for each clip.
        references: The references of each clip, at least one.
    """
    try:
        scores = spice(captions, references, program_folder())
    except (DataError, OSError, ValueError, KeyError) as error:
        return None, str(error)
    return sum(scores) / len(scores), None


def program_folder() -> Path:
    """Return the folder of the program.

    Raises:
        DataError: Its package, the parser's models or Java are missing; says how to get them.
    """
    found = importlib.util.find_spec("pycocoevalcap")
    if found is None or not found.submodule_search_locations:
        raise DataError("neither aac-metrics nor pycocoevalcap is installed: pip install 'ossicle[captions]'")
    folder = Path(found.submodule_search_locations[0]) / "spice"
    if not all((folder / name).is_file() for name in MODELS):
        raise DataError(
            f"SPICE's parser has no models in {folder / 'lib'}: "
            'python -c "from pycocoevalcap.spice.spice import Spice; Spice()" fetches them'
        )
    return folder


def spice(captions: Sequence[str], references: Sequence[Sequence[str]], folder: Path) -> list[float]:
    """Return the SPICE of each caption; of one without any tuple, against references without any, 0.

    Args:
        captions: One caption for each clip.
        references: The references of each clip, at least one.
        folder: Where the program and its libraries lie.

    Raises:
        DataError: There is no Java, or the program fails; says what it said.
    """
    java = shutil.which("java")
    if java is None:
        raise DataError("SPICE needs Java: install a Java runtime")
    rows = [
        {"image_id": index, "test": caption, "refs": list(texts)}
        for index, (caption, texts) in enumerate(zip(captions, references, strict=True))
    ]
    with tempfile.TemporaryDirectory() as scratch:
        asked, told = Path(scratch) / "captions.json", Path(scratch) / "scores.json"
        asked.write_text(json.dumps(rows), encoding="utf-8")
        command = [java, MEMORY, "-jar", PROGRAM, str(asked), "-out", str(told), "-subset", "-silent"]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if ended.returncode or not told.is_file():
            said = [line for line in ended.stderr.splitlines() if "Exception" in line or "Error" in line]
            raise DataError(f"SPICE's program failed: {said[0].strip() if said else f'status {ended.returncode}'}")
        scores = {row["image_id"]: row["scores"]["All"]["f"] for row in json.loads(told.read_text(encoding="utf-8"))}
    return [float(scores[index] or 0.0) for index in range(len(rows))]
