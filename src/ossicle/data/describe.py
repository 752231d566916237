"""What can be measured of a clip, as facts with a unit in their name.

    clip ──► samples ──► f0_median_hz, rms_db, loudness_lufs, snr_db, …          absent = this clip does not support it
    transcript, duration ──► words_per_s          transcript and voicing, or events ──► non_speech_share
    words and labels that are missing ──► by models, see `data.hear`

Finished clips are kept in a store, so that a stopped run goes on; words for levels of a fact: `data.set_levels`.
Source: LTU-AS (arXiv 2309.14405, official code) for which facts questions need; what it measured them with is not
published.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, replace
from functools import partial
from typing import Any

from ossicle.data import engine
from ossicle.data.clip import Clip
from ossicle.data.hear import Hearer, with_heard
from ossicle.data.rows import Tally
from ossicle.data.store import Store, unit_key
from ossicle.errors import AudioError, MissingExtraError
from ossicle.types import Waveform

Found = tuple[dict[str, float], dict[str, Any], str]
"""Facts, what models heard, and why there is neither."""
VERSION = "facts-2"
SPEECH = re.compile(r"speech|conversation|monologue|whispering|singing|rapping|shout", re.IGNORECASE)
"""Labels of the AudioSet ontology, and others like them, that are speech or song."""
DIGITS = 4


def measure(clip: Clip, *, wave: Waveform | None = None) -> dict[str, float]:
    """Return the facts of one clip; what the clip does not support is absent.

    Args:
        clip: Its audio is read.
        wave: Its audio, where it has been read.

    Raises:
        AudioError: The recording cannot be read.
    """
    from ossicle.audio.acoustics import measure as acoustics

    wave = wave or clip.read()
    facts = {key: value for key, value in asdict(acoustics(wave)).items() if value is not None}
    if clip.transcript and facts["duration_s"] > 0:
        facts["words_per_s"] = len(clip.transcript.split()) / facts["duration_s"]
        facts["non_speech_share"] = 1 - facts["voice_share"]
    if clip.events and facts["duration_s"] > 0:
        facts["non_speech_share"] = 1 - speech_s(clip) / facts["duration_s"]
    return {key: round(float(value), DIGITS) for key, value in facts.items()}


def speech_s(clip: Clip) -> float:
    """Return the seconds in which an event of the clip is speech or singing, overlaps counted once."""
    spans = sorted((max(0.0, start), end) for label, start, end in clip.events if SPEECH.search(label))
    total = until = 0.0
    for start, end in spans:
        total, until = total + max(0.0, end - max(start, until)), max(until, end)
    return total


def describe(
    clips: Iterable[Clip],
    tally: Tally,
    *,
    store: Store | None = None,
    jobs: int = 1,
    how: str = "local",
    hear: Hearer | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[Clip]:
    """Yield the clips with their facts; those that cannot be read are counted and left out.

    Args:
        clips: What is measured.
        tally: Counts.
        store: Finished clips are taken from here and kept here.
        jobs: Processes, 0 = one per core.
        how: Engine: `local` or `ray`.
        hear: Models that give words and labels where the owner gives none.
        progress: Told how many clips are done.
    """
    for group in engine.batches(clips, 2048):
        keys = [_key(clip, hear) for clip in group]
        kept = [store is not None and key in store for key in keys]
        open_ = [clip for clip, there in zip(group, kept, strict=True) if not there]
        fresh = engine.run(partial(_measured, hear=hear), open_, size=16, jobs=jobs, engine=how)
        for clip, key, there in zip(group, keys, kept, strict=True):
            tally.taken += 1
            if store is not None and there:
                entry = store[key]
                facts, heard, reason = entry["facts"], entry.get("heard", {}), entry["reason"]
            else:
                facts, heard, reason = next(fresh)
            if store is not None and not there:
                store.put(key, facts=facts, reason=reason, **({"heard": heard} if heard else {}))
            if progress is not None:
                progress(tally.taken)
            if reason:
                tally.skip(reason, str(clip.path))
                continue
            tally.given += 1
            told = with_heard(clip, heard)
            yield replace(told, facts={**clip.facts, **facts}, duration_s=clip.duration_s or facts["duration_s"])


def _key(clip: Clip, hear: Hearer | None) -> str:
    try:
        stat = clip.path.stat()
        state: object = (stat.st_size, stat.st_mtime_ns)
    except OSError:
        state = "absent"
    more = (str(hear), clip.labels) if hear is not None else ()
    return unit_key(VERSION, str(clip.path), state, clip.start_s, clip.duration_s, clip.transcript, clip.events, *more)


def _measured(clips: list[Clip], *, hear: Hearer | None) -> list[Found]:
    return [_one(clip, hear) for clip in clips]


def _one(clip: Clip, hear: Hearer | None) -> Found:
    try:
        wave = clip.read()
        heard = hear(clip, wave) if hear is not None else {}
        return measure(with_heard(clip, heard), wave=wave), heard, ""
    except MissingExtraError:
        raise
    except AudioError as error:
        return (
            {},
            {},
            re.split(r" \(|;", str(error).replace(str(clip.path), ""))[0].strip(" :")[:80] or "cannot be read",
        )
