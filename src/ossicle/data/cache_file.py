"""The recordings of a file of questions through a model's frozen encoders, once; or what that would take on disk.

bytes = Σ over recordings and encoders:  seconds · tokens per second · width · bytes of the dtype

Source: our choice; what is kept, and how, is `data.cache`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ossicle.data.cache import FeatureCache
from ossicle.data.cache_shard import DTYPES
from ossicle.data.readers import read_row
from ossicle.data.rows import Tally, read_rows
from ossicle.data.sample import AudioRef
from ossicle.errors import ConfigError

SCALE_BYTES = 4
"""Of each token in int8."""


def audios_of(questions: Path, tally: Tally) -> dict[AudioRef, float]:
    """Return each recording of a file of questions once, with its length; 0 = unknown."""
    found: dict[AudioRef, float] = {}
    for row in read_rows(questions):
        tally.taken += 1
        for audio in read_row(row)[1]:
            span = audio if isinstance(audio, dict) else {"path": audio}
            path = questions.parent / span["path"]
            end = span.get("end_s")
            reference = AudioRef(path=path, start_s=span.get("start_s") or 0.0, end_s=end)
            length = row.get("duration", 0.0) if end is None else end - reference.start_s
            found[reference] = max(found.get(reference, 0.0), float(length or 0.0))
    return found


def plan(model: Any, audios: dict[AudioRef, float], dtype: str) -> dict[str, Any]:
    """Return how many bytes the outputs of a model's encoders take, by stream.

    Raises:
        ConfigError: No such dtype.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype '{dtype}' is none of {', '.join(DTYPES)}")
    seconds = sum(audios.values())
    streams = {}
    for name, stream in model.streams.items():
        if stream.encoder is not None:
            facts = stream.encoder.feature_parts()[0].facts
            token = facts.dim * DTYPES[dtype].itemsize + (SCALE_BYTES if dtype == "int8" else 0)
            streams[name] = round(seconds * facts.rate_hz * token)
    return {
        "recordings": len(audios),
        "seconds": round(seconds, 1),
        "without_length": sum(length == 0 for length in audios.values()),
        "bytes": sum(streams.values()),
        "by_stream": streams,
    }


def fill(
    model: Any,
    audios: dict[AudioRef, float],
    folder: Path,
    dtype: str,
    *,
    verify: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Encode every recording that is not kept yet.

    Args:
        model: Whose encoders.
        audios: The recordings.
        folder: Of caches.
        dtype: What is kept.
        verify: Read everything that was kept before, and make again what is damaged.
        progress: Told how many are done.

    Raises:
        ConfigError: No such dtype.
        DataError: The folder cannot be written.
    """
    if dtype not in DTYPES:
        raise ConfigError(f"dtype '{dtype}' is none of {', '.join(DTYPES)}")
    for part in model.parameters():
        part.requires_grad_(False)
    cache = FeatureCache(folder, model.eval(), dtype=DTYPES[dtype])
    if verify:
        cache.verify()
    before, done = len(cache), 0
    for number in cache.fill(audios):
        done += number
        if progress is not None:
            progress(done)
    size = sum(path.stat().st_size for path in cache.folder.glob("shard-*.safetensors"))
    return {
        "kept": len(cache), "new": len(cache) - before, "damaged": cache.damaged, "bytes": size,
        "loss": cache.loss(), "folder": str(cache.folder),
    }  # fmt: skip
