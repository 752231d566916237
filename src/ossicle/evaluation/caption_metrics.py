"""Other metrics of captions beside CIDEr-D, by the libraries that define them.

    BLEU-4, chrF     sacrebleu                      corpus level, all references of a clip
    ROUGE-L          rouge-score                    best reference of each clip, mean
    METEOR, SPICE, FENSE    aac-metrics, where it is installed with what it downloads (Java, models)
    METEOR, SPICE    else pycocoevalcap, whose package holds all of METEOR but Java, and SPICE without its models
    FENSE            else our own (`fense.py`) on the same models, where they lie on disk

What is not installed is named in the result with the reason, never silently missing.
"""

from __future__ import annotations

import importlib
import logging
import re
import shutil
from collections.abc import Sequence
from typing import Any

from ossicle.errors import require
from ossicle.evaluation import fense, spice

OPTIONAL = ("meteor", "spice", "fense")
logger = logging.getLogger(__name__)


def caption_metrics(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Return name → score, and `not_measured`: name → why not.

    Args:
        captions: One caption for each clip.
        references: The references of each clip, at least one.
    """
    scores: dict[str, Any] = {**_sacrebleu(captions, references), "rouge_l": rouge_l(captions, references)}
    missing = {}
    for name in OPTIONAL:
        value, reason = _optional(name, captions, references)
        if reason:
            missing[name] = reason
        else:
            scores[name] = value
    return {**scores, "not_measured": missing}


def _sacrebleu(captions: Sequence[str], references: Sequence[Sequence[str]]) -> dict[str, float]:
    sacrebleu = require("sacrebleu", "eval")
    most = max(map(len, references))
    # sacrebleu wants one list per reference number; clips with fewer repeat none: None is skipped there
    streams = [[texts[i].lower() if i < len(texts) else None for texts in references] for i in range(most)]
    said = [text.lower() for text in captions]
    bleu = sacrebleu.BLEU(effective_order=False).corpus_score(said, streams)
    chrf = sacrebleu.CHRF().corpus_score(said, streams)
    return {"bleu": bleu.score / 100, "chrf": chrf.score / 100}


def rouge_l(captions: Sequence[str], references: Sequence[Sequence[str]]) -> float:
    """Return the mean over clips of the best ROUGE-L F1 over references."""
    scorer = require("rouge_score.rouge_scorer", "eval").RougeScorer(["rougeL"], use_stemmer=False)
    best = [
        max(scorer.score(reference, caption)["rougeL"].fmeasure for reference in texts)
        for caption, texts in zip(captions, references, strict=True)
    ]
    return sum(best) / len(best)


def _optional(
    name: str, captions: Sequence[str], references: Sequence[Sequence[str]]
) -> tuple[float | None, str | None]:
    """Return a metric of aac-metrics, or why there is none."""
    try:
        measure = getattr(importlib.import_module(f"aac_metrics.functional.{name}"), name)
    except ModuleNotFoundError:
        return OWN[name](captions, references)
    try:
        corpus, _ = measure(list(captions), [list(texts) for texts in references])
    except (OSError, RuntimeError, ValueError, ImportError) as error:  # Java or a model is missing
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        logger.warning("%s: %s", name, first)
        return None, first
    return float(corpus[name]), None


def _meteor(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float | None, str | None]:
    """Return METEOR 1.5 (Denkowski & Lavie, 2014) by the Java program in pycocoevalcap, or why there is none."""
    if shutil.which("java") is None:
        return None, "METEOR needs Java: install a Java runtime"
    try:
        scorer = importlib.import_module("pycocoevalcap.meteor.meteor").Meteor()
    except ImportError:
        return None, "neither aac-metrics nor pycocoevalcap is installed: pip install 'ossicle[captions]'"
    names = range(len(captions))
    said = {i: [_words(captions[i])] for i in names}
    try:
        mean, _ = scorer.compute_score({i: [_words(text) for text in references[i]] for i in names}, said)
    except (OSError, ValueError, IndexError) as error:
        if scorer.lock.locked():
            scorer.lock.release()  # it is left locked, and the scorer's end would wait for it for ever
        return None, f"METEOR's program failed: {error}"
    return float(mean), None


def _words(text: str) -> str:
    """Return the lowercase words of a text without punctuation, which METEOR's caption protocol leaves out."""
    return " ".join(re.findall(r"[\w']+", text.lower()))


OWN = {"meteor": _meteor, "spice": spice.measure, "fense": fense.measure}
"""Metrics that are measured without aac-metrics too."""
