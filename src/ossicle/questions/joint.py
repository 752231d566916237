"""Clips of speech and sound together: LTU-AS's three conditions, as far as they are known.

    labels not full yet  ·  share of time without speech below 20 % (or above)  ·  more than five words ──► kept

The paper's words on the second condition could not be read: it is reported as *below*, but *above* would serve its
purpose, and what the share was measured with is not said. Each condition is a setting. Source: LTU-AS (arXiv
2309.14405) at second hand.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

from pydantic import Field

from ossicle.config import Section
from ossicle.data.clip import Clip
from ossicle.data.rows import Tally


class JointConfig(Section):
    """Which clips count as speech and sound together.

    Attributes:
        reading: Clips whose share without speech is `below`, or `above`, are kept; `any` = the condition is off.
        share: That share, 0 to 1.
        heard_by: What says where speech is: the owner's `events` (voicing where there are none), or `voicing` alone.
        min_words: Shorter transcripts go.
        per_label: A clip whose labels all have so many clips already goes; None = labels are not balanced.
    """

    reading: Literal["below", "above", "any"] = "below"
    share: float = Field(default=0.2, ge=0, le=1)
    heard_by: Literal["events", "voicing"] = "events"
    min_words: int = Field(default=6, ge=0)
    per_label: int | None = Field(default=500, ge=1)


def joint_subset(clips: Iterable[Clip], tally: Tally, config: JointConfig) -> Iterator[Clip]:
    """Yield the clips that meet the conditions; the others are counted with their reason."""
    counts: dict[str, int] = {}
    for clip in clips:
        tally.taken += 1
        reason = _why_not(clip, config) or _full(clip, counts, config.per_label)
        if reason:
            tally.skip(reason, clip.key)
            continue
        for label in clip.labels:
            counts[label] = counts.get(label, 0) + 1
        tally.given += 1
        yield clip


def _why_not(clip: Clip, config: JointConfig) -> str:
    if len((clip.transcript or "").split()) < config.min_words:
        return f"transcript of fewer than {config.min_words} words"
    if config.reading == "any":
        return ""
    silent = without_speech(clip, config.heard_by)
    if silent is None:
        return "share of speech not known"
    kept = silent < config.share if config.reading == "below" else silent >= config.share
    return "" if kept else f"share without speech not {config.reading} {config.share:.0%}"


def _full(clip: Clip, counts: dict[str, int], per_label: int | None) -> str:
    if per_label is None or not clip.labels:
        return ""
    return "its labels are full" if all(counts.get(label, 0) >= per_label for label in clip.labels) else ""


def without_speech(clip: Clip, heard_by: str) -> float | None:
    """Return the share of a clip in which nobody speaks, None where that was not measured."""
    if heard_by == "voicing":
        voiced = clip.facts.get("voice_share")
        return None if voiced is None else 1.0 - voiced
    return clip.facts.get("non_speech_share")
