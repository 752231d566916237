"""A language model as judge: does the answer say the same as the truth? Kept beside the parser, never instead of it.

Prompt, model, parameters and raw replies stand in the card, and how often judge and parser agree.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ossicle.data.rows import read_appended
from ossicle.evaluation.metrics import wilson
from ossicle.evaluation.parse import yes_no
from ossicle.evaluation.remote import Remote
from ossicle.evaluation.score import Marked, RowScore

PROMPT = (
    "A listener was asked about a recording.\nQuestion: {question}\nRight answer: {truth}\nTheir answer: {answer}\n"
    "Does the listener's answer say the same as the right answer? Reply with yes or no."
)
FOLLOWING = (
    "A listener was asked about a recording.\nQuestion: {question}\nTheir answer: {answer}\n"
    "Does the answer address the question, whether or not it is right? Reply with yes or no."
)
MAX_NEW_TOKENS = 8


def judge_rows(judge: Remote, rows: Sequence[RowScore], replies: Path) -> dict[str, Any]:
    """Return the judge's share of right answers, its agreement with the parser, and the instruction following rate.

    Args:
        judge: The judging model.
        rows: Marked answers.
        replies: JSONL file of raw replies; what it holds of this judge is not asked again. A reply that does not say
            whose it is, as older files have them, is no judge's.
    """
    told = {"url": judge.url, "model": judge.model}
    kept = [line for line in read_appended(replies) if {key: line.get(key) for key in told} == told]
    known: dict[str, str] = {line["prompt"]: line["reply"] for line in kept}
    read = [(mark, _right(row, mark)) for row in rows for mark in row.marks]
    marks = [mark for mark, _ in read]
    prompts = [PROMPT.format(question=m.item.question, truth=m.item.truth, answer=m.answer) for m in marks]
    followed = [FOLLOWING.format(question=m.item.question, answer=m.answer) for m in marks]
    with replies.open("a", encoding="utf-8") as file:
        for prompt in dict.fromkeys([*prompts, *followed]):
            if prompt not in known:
                known[prompt] = judge.say(prompt, MAX_NEW_TOKENS)
                line = {**told, "prompt": prompt, "reply": known[prompt]}
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
    verdicts = [yes_no(known[prompt]) for prompt in prompts]
    decided = [(verdict, right) for verdict, (_, right) in zip(verdicts, read, strict=True) if verdict is not None]
    agreeing = sum(verdict == right for verdict, right in decided)
    right = sum(verdict for verdict, _ in decided)
    following = [yes_no(known[prompt]) for prompt in followed]
    return {
        "following_rate": sum(bool(verdict) for verdict in following) / len(marks) if marks else None,
        "following_undecided": sum(verdict is None for verdict in following),
        "following_prompt": FOLLOWING,
        "value": right / len(marks) if marks else None,
        "ci95": list(wilson(right, len(marks))),
        "n": len(marks),
        "undecided": len(marks) - len(decided),
        "agreement": agreeing / len(decided) if decided else None,
        "model": judge.model,
        "prompt": PROMPT,
        "parameters": {"temperature": 0.0, "max_tokens": MAX_NEW_TOKENS},
        "replies": {"file": replies.name, "sha256": hashlib.sha256(replies.read_bytes()).hexdigest()},
    }


def _right(row: RowScore, mark: Marked) -> bool:
    """Return whether the parser's mark is at least half of all there is; of errors, less than half."""
    share = mark.credit / max(mark.weight, 1e-12)
    return share < 0.5 if row.lower_is_better else share >= 0.5
