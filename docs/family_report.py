"""Writes docs/family.md: the nano family measured, and each paper's claim decided or not.

    python docs/family_report.py                    from docs/family.json, what was kept of the last measured study
    python docs/family_report.py STUDY_FOLDER       from a study's folder; keeps its result in docs/family.json

Rows that nobody has run are named as such; nothing is filled in.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
KEPT = ROOT / "docs/family.json"
NAME = "nano-family"
EMPTY: dict[str, Any] = {"rows": [], "tests": [], "claims": [], "unfinished": []}

FRONT = """# The nano family

Written by `python docs/family_report.py` from a run of `ossicle study nano-family` ([its
settings](../src/ossicle/recipes/studies/nano-family.yaml)). {measured}

One decoder of 4 layers from nothing; nano's two encoders, frozen (their features are kept; what nano was taught,
they were taught); one data order; {samples} samples a row. LTU-AS has a tagger's stage before, which shifts the
order of its samples. Mixtures replace the sound encoder: nano's is the base, three weak encoders, each below a
tenth of it, start from nothing and train with the rest. Scores are means over the kinds of questions of suite
`nano` on recordings that neither nano nor any row was taught: esc10 fold 4, fsdd speaker theo, EMO-DB speakers 03
and 08, 12 % of the Berklee sound groups, parametric sounds of a fresh seed. `librispeech_gender` is outside: no
decoder was taught on that corpus (nano's speech encoder was), and it is left out of the mean.

*holds*: the 95 % interval of the paired difference lies above what is claimed; *does not*: below it; *cannot tell*:
it covers it, and the smallest detectable difference says what would have been seen; *not measured*: a row is
missing. All of it is about this size: a claim that fails here may hold at 1B.
"""


def main(arguments: list[str]) -> None:
    """Write the page."""
    if arguments:
        result = json.loads((Path(arguments[0]) / "result.json").read_text(encoding="utf-8"))
        kept = {key: result[key] for key in EMPTY}
        KEPT.write_text(json.dumps(kept, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs/family.md").write_text(family(), encoding="utf-8")


def family() -> str:
    """Return the page."""
    from ossicle.study.plan import load_study, unfold
    from ossicle.study.report import claims_table, table, tests_table
    from ossicle.training.recipe import load

    study, _ = load_study(NAME)
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else EMPTY
    names = [row.name for row in unfold(study)]
    done = {row["row"] for row in kept["rows"]}
    decided = {(claim["says"], claim["better"], claim["than"]): claim for claim in kept["claims"]}
    claims = [
        decided.get((claim.says, claim.better, claim.than), {**claim.model_dump(), "verdict": "not measured"})
        for claim in study.claims
    ]
    stages = load(study.recipe).recipe.stages
    samples = sum((stage.steps or 0) * stage.batch_size for stage in stages)
    measured = f"**{len(done)} of {len(names)} rows have been measured.**"
    lines = [FRONT.format(measured=measured, samples=f"{samples:,}"), "## Rows", ""]
    if kept["rows"]:
        lines += [*table(kept["rows"]), ""]
    missing = [name for name in names if name not in done]
    if missing:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    if kept["tests"]:
        lines += ["## Against the first row", "", *tests_table(kept["tests"]), ""]
    lines += ["## Claims", "", *claims_table(claims), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
