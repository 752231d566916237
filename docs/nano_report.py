"""Writes nano's model card and docs/nano.md from its stored scores and loss curves.

    ossicle eval nano --suite nano --root HELD_OUT --out RUN
    python docs/nano_report.py RUN HELD_OUT     keeps that run's scores and confusions in scores.json, then as below
    python docs/nano_report.py                  writes both pages and their pictures

src/ossicle/nano/scores.json       what `ossicle eval` found on recordings that no part of nano was taught
src/ossicle/nano/loss_curve.json   losses of the three stages
"""

# ruff: noqa: E501 (tables)

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ossicle.evaluation.metrics import wilson

ROOT = Path(__file__).parents[1]
NANO = ROOT / "src/ossicle/nano"
PICTURES = ROOT / "docs/pictures"
CONFUSED = {"esc10": "which sound", "emodb_emotion": "which emotion", "fsdd_digit": "which digit"}
"""Tasks whose confusions are drawn."""

FRONT = """---
license: cc-by-sa-4.0
language: en
tags: [audio, audio-llm]
---
# nano

The audio language model that ships with ossicle: two small encoders (`cnn`, 1.24 M parameters each: one taught sounds,
one taught speech), one without weights that says how loud it is (`level`), and a 4-layer Llama decoder (3.4 M, own
byte-level BPE tokenizer) that *attends* to all three (PAL's integration). {parameters} weights in bf16, {megabytes} MB,
all trained from nothing. It answers in words, by free decoding over its whole vocabulary.
"""

DATA = """## Data

Recordings under CC0, CC BY and CC BY-SA only, and synthesised sound:

| set | licence | taught to nano | attribution |
|---|---|---|---|
| esc10 | CC BY 3.0 (clips CC0 or CC BY) | 3 of 4 public folds | K. J. Piczak, ESC: Dataset for Environmental Sound Classification, doi:10.1145/2733373.2806390; authors of the clips in its manifest |
| fsdd | CC BY-SA 4.0 | 4 of 5 public speakers | Z. Jackson and contributors, Free Spoken Digit Dataset |
| emodb_2s | CC0 1.0 | 6 of 8 public speakers | F. Burkhardt et al., A database of German emotional speech, Interspeech 2005 |
| librispeech_gender251, librispeech_other100 | CC BY 4.0 | 85 %, 80 % of the speakers | V. Panayotov et al., LibriSpeech, ICASSP 2015 |
| kathleen_arctic300 | CC0 1.0 | all | Kathleen / the Rhasspy project |
| berklee_sounds | CC BY 3.0 | 88 % of the sound groups | Berklee College of Music for One Laptop per Child, by way of the Tone.js project |
| salamander_piano_notes | CC BY 3.0 | all | Alexander Holm, Salamander Grand Piano |
| world | none needed | 95 % of 4000 sounds | parametric sources of `ossicle.world` |
| words, phrases | none needed | 97 % of 5100 | spoken by espeak-ng |

What was left out of every part of the training is what the scores below are measured on. The weights are licensed
**CC BY-SA 4.0** (fsdd is share-alike); keep these attributions with them.
"""

LIMITS = """## What it cannot do

- It knows the sounds, digits, commands and voices it was taught, and nothing of the world: no transcription of free
  speech (about 40 command words and ten digits only), no music titles, no translation, no arithmetic, no reasoning.
  Asked for such things it is taught to say that it cannot, and what it can do instead.
- A sound of a kind it never heard gets the name of one it knows.
- Emotions are acted German ones (EMO-DB); digits are English; all real digit speakers are male.
- Levels of loudness are of the recording, not of the event in its room; pitch is of steady tones.
- Overlapping sounds are named at most as one over another. Order and counts are taught up to four events.
- Whether a sound is there it judges less surely beside speech: it may name a sound and then say that it is not there.
- Of recordings over a minute it hears the twelve seconds that stand out most, and counts or orders nothing beyond them.
- Single seed; intervals are wide because the held-out sets are small.
"""

COMMANDS = """## How it was made

Seed {seed}. Retraining from nothing (espeak-ng installed, `OSSICLE_DATA` naming the folder of the sets):

    ossicle train nano

runs the same three stages: sound encoder, speech encoder, then decoder and connectors over kept features of 9350
composed audios. {history}
"""


def main() -> None:
    """Write both pages and their pictures; with a run and its recordings, take the scores from there first."""
    if sys.argv[1:]:
        keep(*map(Path, sys.argv[1:]))
    scores = json.loads((NANO / "scores.json").read_text())
    curve = json.loads((NANO / "loss_curve.json").read_text())
    table = score_table(scores)
    front = FRONT.format(parameters=scores["facts"]["parameters"], megabytes=scores["facts"]["megabytes"])
    commands = COMMANDS.format(seed=curve["seed"], history=scores["facts"]["history"])
    card = "\n".join([front, DATA, commands, table, LIMITS])
    (NANO / "README.md").write_text(card, encoding="utf-8")
    page = ["# nano, measured", "", "Written by `python docs/nano_report.py` from stored runs.", "", table]
    shown = [draw_confusions(scores["confusions"]), probe_table(scores), curves(curve), draw_curves(curve)]
    (ROOT / "docs/nano.md").write_text("\n".join([*page, *shown]), encoding="utf-8")


def keep(run: Path, root: Path) -> None:
    """Store the scores and confusions of a finished evaluation, whose answers are scored again."""
    from ossicle.evaluation.answers import AnswerStore, read_header
    from ossicle.evaluation.card import read_card
    from ossicle.evaluation.run import Outcome, Setting, build_tasks, rerun_setting, score_tasks
    from ossicle.evaluation.task import suite_specs

    header, card = read_header(run / "answers.jsonl"), read_card(run / "card.json")
    setting = rerun_setting(Setting(suite=header["suite"], root=root), {"setting": header})
    outcome = Outcome()
    build_tasks(setting, suite_specs(setting.suite), outcome)
    score_tasks(setting, AnswerStore(run / "answers.jsonl", header), outcome)
    scores = json.loads((NANO / "scores.json").read_text())
    scores |= {"tasks": card["tasks"], "refusal": card["refusal"], "confusions": {}}
    for task in CONFUSED:
        marks = [(str(m.item.truth), "-" if m.said is None else str(m.said)) for m in outcome.scores[task][0].marks]
        scores["confusions"][task] = [[*pair, count] for pair, count in sorted(Counter(marks).items())]
    (NANO / "scores.json").write_text(json.dumps(scores, indent=1) + "\n", encoding="utf-8")


def draw_confusions(confusions: dict[str, list[Any]]) -> str:
    """Draw truth by answer of a few tasks; return the page's section."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.6 * len(confusions), 4.4), layout="constrained")
    for axes, (task, counted) in zip(figure.subplots(1, len(confusions)), confusions.items(), strict=True):
        truths = sorted({truth for truth, _, _ in counted})
        said = truths + sorted({answer for _, answer, _ in counted} - set(truths))
        table = [[sum(n for t, a, n in counted if (t, a) == (truth, answer)) for answer in said] for truth in truths]
        axes.imshow(table, cmap="Blues")
        axes.set(title=f"{CONFUSED[task]} ({task})", xlabel="said", ylabel="truth")
        axes.set_xticks(range(len(said)), said, rotation=90)
        axes.set_yticks(range(len(truths)), truths)
        for y, row in enumerate(table):
            for x, count in enumerate(row):
                dark = count > max(map(max, table)) / 2
                axes.text(x, y, count or "", ha="center", va="center", color="white" if dark else "black", fontsize=8)
    figure.savefig(PICTURES / "nano-confusions.png", dpi=80, metadata={"Software": None})
    return "## Confusions\n\n![truth by answer](pictures/nano-confusions.png)\n\nA dash is an answer that names no class.\n"


def draw_curves(curve: dict[str, Any]) -> str:
    """Draw the losses of the stages; return the page's line."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 2.8), layout="constrained")
    for axes, (stage, losses) in zip(figure.subplots(1, len(curve["stages"])), curve["stages"].items(), strict=True):
        points = losses["every_10"]
        axes.plot([10 * i for i in range(len(points))], points, linewidth=0.8)
        axes.set(title=stage, xlabel="step", ylabel="loss")
    figure.savefig(PICTURES / "nano-curves.png", dpi=80, metadata={"Software": None})
    return "![losses](pictures/nano-curves.png)\n"


def score_table(scores: dict[str, Any]) -> str:
    """Return every measured row with its interval and controls."""
    lines = [
        "## Scores",
        "",
        f"{scores['facts']['measured_on']} Greedy decoding; question wordings that the training never saw; Wilson 95 %",
        "intervals over items for accuracies (clips of one speaker or recording are not independent, so true intervals",
        "are wider); blind = no audio, shuffled = another clip's audio.",
        "",
        "| task | row | n | score | 95 % | blind | shuffled |",
        "|---|---|---|---|---|---|---|",
    ]
    for task, report in scores["tasks"].items():
        for row, values in (report.get("rows") or {"": report}).items():
            lines.append(_row(task, row, values))
    refusal = scores.get("refusal")
    if refusal:
        lines.append(_row("questions outside its skills", "declined", refusal))
        lines.append(_row("questions within its skills", "declined", refusal["within_skills"]))
    return "\n".join([*lines, ""])


def _row(task: str, row: str, values: dict[str, Any]) -> str:
    if values.get("value") is None:
        return f"| {task} | {row} | 0 | | | | |"
    low, high = wilson(values["value"] * values["n"], values["n"])
    controls = [values.get(name) for name in ("blind", "shuffled")]
    shown = ["" if control is None else f"{control:.2f}" for control in controls]
    return f"| {task} | {row} | {values['n']} | {values['value']:.2f} | {low:.2f}–{high:.2f} | {' | '.join(shown)} |"


def probe_table(scores: dict[str, Any]) -> str:
    """Return the linear heads on the same encoders, for what the language side adds or costs."""
    lines = ["## Linear heads on the same encoders", "", "| head | n | accuracy |", "|---|---|---|"]
    lines += [f"| {probe['head']} | {probe['n']} | {probe['accuracy']:.2f} |" for probe in scores["probes"]]
    return "\n".join([*lines, ""])


def curves(curve: dict[str, Any]) -> str:
    """Return the loss of each stage at ten points."""
    lines = ["## Loss curves", "", "| stage | " + " | ".join(f"{10 * i} %" for i in range(1, 11)) + " |"]
    lines.append("|---|" + "---|" * 10)
    for stage, losses in curve["stages"].items():
        points = losses["every_10"]
        cells = [points[max(0, len(points) * i // 10 - 1)] for i in range(1, 11)]
        lines.append(f"| {stage} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
