"""The synthetic sound world: parametric sources, speech and real clips on a timeline with exact truth.

sounds (what things sound like) ──┐
speech (espeak-ng)              ──┼─► items ──► scenes (when, how loud, in what room) ──► sheet (to listen to)
real recordings                 ──┘
"""

from __future__ import annotations

from ossicle.world.speed import Throughput, throughput

__all__ = ["Throughput", "throughput"]
