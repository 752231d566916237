"""Studies: a base recipe over axes of settings, everything else the same, told apart by paired tests.

STUDY.yaml ──plan──► rows ──run, one after another or by ray──► rows.jsonl ──tests──► report.md, picture
"""

from __future__ import annotations
