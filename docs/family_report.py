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
they were taught); one data order. **The budget is small**: {steps} steps of {batch} samples ({samples} in all) for
every row, where nano itself took over 5,000 steps of 24. LTU-AS has a tagger's stage before, which shifts the order of
its samples. Mixtures replace the sound encoder: nano's is the base, and three weak encoders, each below a tenth of it,
are taught before (`nano-weak`, 120 steps each) and frozen, so that a mixture trains its routers and maps. Scores are
means over the kinds of questions of suite `nano` on recordings that neither nano nor any row was taught: esc10 fold 4,
fsdd speaker theo, EMO-DB speakers 03 and 08, 12 % of the Berklee sound groups, parametric sounds of a fresh seed.
`librispeech_gender` is outside: no decoder was taught on that corpus (nano's speech encoder was), and it is left out of
the mean. A row of one seed says nothing about how much another seed would differ: intervals are over recordings. Times
are of one thread that others interrupted; operations are not.

*holds*: the 95 % interval of the paired difference lies above what is claimed; *does not*: below it; *cannot tell*:
it covers it, and the smallest detectable difference says what would have been seen; or a row is missing, and the
claim was not measured. All of it is about this size: a claim that fails here may hold at 1B.
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
    from ossicle.study.plan import jobs_of, load_study, unfold
    from ossicle.study.report import claims_table, table, tests_table
    from ossicle.study.verdicts import undecided

    study, folder = load_study(NAME)
    kept = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else EMPTY
    names = [row.name for row in unfold(study)]
    done = {row["row"] for row in kept["rows"]}
    decided = {(claim["says"], claim["better"], claim["than"]): claim for claim in kept["claims"]}
    claims = [
        decided.get(
            (claim.says, claim.better, claim.than),
            undecided(claim.model_dump(), [name for name in (claim.better, claim.than) if name not in done]),
        )
        for claim in study.claims
    ]
    stages = jobs_of(study, folder)[0].loaded.recipe.stages
    steps, samples = (sum((s.steps or 0) * size(s) for s in stages) for size in (lambda s: 1, lambda s: s.batch_size))
    measured = f"**{len(done)} of {len(names)} rows have been measured.**"
    facts = {"steps": f"{steps:,}", "batch": stages[0].batch_size, "samples": f"{samples:,}"}
    lines = [FRONT.format(measured=measured, **facts), "## Rows", ""]
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
