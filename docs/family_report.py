"""Writes docs/family.md: the nano family measured, and each paper's claim decided or not; and its part of papers/*.md.

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

PAPERS = {
    "pal": ("plits", "qformer", "lal", "pal-v1", "pal-v2", "pal-v3", "cross"),
    "mowe": ("plits", "mowe-diverse", "mowe-uniform", "mowe-independent", "mowe-dependent", "pam", "concat"),
    "ltu-as": ("plits", "ltu-as", "audio-only", "speech-only", "all-at-once"),
}
"""Page of a paper → the rows it shows; a claim stands where both of its rows do."""
BEGIN, END = "<!-- measured: written by docs/family_report.py -->", "<!-- end -->"

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
are of one thread that others interrupted; operations are not. p is McNemar's test over answers, made before `compare`
swapped whole clusters: it takes several seeds of one recording for independent and is too small there.

*holds*: the 95 % interval of the paired difference lies above what is claimed; *does not*: below it; *cannot tell*:
it covers it, and the smallest detectable difference says what would have been seen; or a row is missing, and the
claim was not measured. All of it is about this size: a claim that fails here may hold at 1B.
"""


def main(arguments: list[str]) -> None:
    """Write the page."""
    if arguments:
        result = json.loads((Path(arguments[0]) / "result.json").read_text(encoding="utf-8"))
        chosen = {key: result[key] for key in EMPTY}
        KEPT.write_text(json.dumps(chosen, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    (ROOT / "docs/family.md").write_text(family(), encoding="utf-8")
    for name in PAPERS:
        (ROOT / f"docs/papers/{name}.md").write_text(paper(name), encoding="utf-8")


def kept() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return what was measured, and every claim of the study as it stands."""
    from ossicle.study.plan import load_study
    from ossicle.study.verdicts import undecided

    found = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.is_file() else EMPTY
    done = {row["row"] for row in found["rows"]}
    decided = {(claim["says"], claim["better"], claim["than"]): claim for claim in found["claims"]}
    claims = [
        decided.get(
            (claim.says, claim.better, claim.than),
            undecided(claim.model_dump(), [name for name in (claim.better, claim.than) if name not in done]),
        )
        for claim in load_study(NAME)[0].claims
    ]
    return found, claims


def paper(name: str) -> str:
    """Return the page of a paper, its own rows and claims written into it."""
    from ossicle.study.report import claims_table, table

    found, claims = kept()
    wanted = PAPERS[name]
    rows = [row for row in found["rows"] if row["row"] in wanted]
    own = [claim for claim in claims if {claim["better"], claim["than"]} <= set(wanted)]
    text = (ROOT / f"docs/papers/{name}.md").read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    shown = table(rows) if rows else ["No row of it has been measured."]
    missing = [row for row in wanted if row not in {one["row"] for one in rows}]
    lines = [BEGIN, "", *shown, "", *([f"Not measured: {', '.join(missing)}.", ""] if missing else [])]
    return before + "\n".join([*lines, *claims_table(own), "", END]) + after


def family() -> str:
    """Return the page."""
    from ossicle.study.plan import jobs_of, load_study, unfold
    from ossicle.study.report import claims_table, table, tests_table

    study, folder = load_study(NAME)
    found, claims = kept()
    names = [row.name for row in unfold(study)]
    done = {row["row"] for row in found["rows"]}
    stages = jobs_of(study, folder)[0].loaded.recipe.stages
    steps, samples = (sum((s.steps or 0) * size(s) for s in stages) for size in (lambda s: 1, lambda s: s.batch_size))
    measured = f"**{len(done)} of {len(names)} rows have been measured.**"
    facts = {"steps": f"{steps:,}", "batch": stages[0].batch_size, "samples": f"{samples:,}"}
    lines = [FRONT.format(measured=measured, **facts), "## Rows", ""]
    if found["rows"]:
        lines += [*table(found["rows"]), ""]
    missing = [name for name in names if name not in done]
    if missing:
        lines += [f"Not measured: {', '.join(missing)}.", ""]
    if found["tests"]:
        lines += ["## Against the first row", "", *tests_table(found["tests"]), ""]
    lines += ["## Claims", "", *claims_table(claims), ""]
    return "\n".join(lines)


if __name__ == "__main__":
    main(sys.argv[1:])
