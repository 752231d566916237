"""Metrics against values worked out by hand and against scikit-learn."""

from __future__ import annotations

import json
import math
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from ossicle.evaluation import metrics
from ossicle.evaluation.caption_metrics import OPTIONAL, _meteor, caption_metrics, rouge_l
from ossicle.evaluation.captions import cider_d
from ossicle.evaluation.compare import holm, mcnemar
from ossicle.evaluation.normalise import normalise


def test_wilson_by_hand():
    low, high = metrics.wilson(8, 10)
    assert (low, high) == (pytest.approx(0.49016, abs=1e-4), pytest.approx(0.94331, abs=1e-4))
    assert metrics.wilson(0, 10)[0] == pytest.approx(0.0, abs=1e-12)
    assert metrics.wilson(0, 0) == (0.0, 1.0)


def test_interval_by_cluster_is_wider_and_few_clusters_are_flagged():
    values = np.repeat([1, 0, 1, 1, 0, 1, 0, 1, 1, 1], 20).astype(float)
    alone = metrics.interval(values, [str(i) for i in range(200)])
    together = metrics.interval(values, [str(i // 20) for i in range(200)])
    assert alone.method == "wilson"
    assert together.method == "cluster bootstrap"
    assert together.high - together.low > 2 * (alone.high - alone.low)
    few = metrics.interval(values, [str(i // 100) for i in range(200)])
    assert few.flagged
    assert (few.low, few.high) == (alone.low, alone.high)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(100):
        rates = np.repeat(rng.beta(6, 2, 30), 5)
        drawn = (rng.random(150) < rates).astype(float)
        spread = metrics.interval(drawn, [str(i // 5) for i in range(150)], seed=int(rng.integers(99)))
        hits += spread.low <= 0.75 <= spread.high
    assert hits >= 89


def test_all_right_in_clusters_still_has_an_interval():
    spread = metrics.interval(np.ones(100), [str(i // 10) for i in range(100)])
    assert spread.high == pytest.approx(1.0)
    assert spread.low < 0.8


def test_macro_f1_by_hand():
    truths, said = ["a", "a", "b", "c"], ["a", "b", "b", "b"]
    # a: P 1, R 1/2 -> 2/3; b: P 1/3, R 1 -> 1/2; c: 0
    assert metrics.macro_f1(truths, said) == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)


def test_average_precision_and_f1_as_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    for _ in range(20):
        truth = rng.random(40) < 0.3
        truth[0] = True
        scores = np.round(rng.random(40), 1)  # many ties
        assert metrics.average_precision(truth, scores) == pytest.approx(sklearn.average_precision_score(truth, scores))
        said = rng.choice(list("abc"), 40)
        names = rng.choice(list("abc"), 40)
        assert metrics.macro_f1(list(names), list(said)) == pytest.approx(
            sklearn.f1_score(names, said, average="macro")
        )
    assert metrics.average_precision([False, False], [0.1, 0.2]) == 0.0


def test_word_and_character_errors_by_hand():
    pytest.importorskip("jiwer")
    assert metrics.edits("the cat sat", "the cat sat down") == (1, 3)
    assert metrics.edits("the cat sat", "") == (3, 3)
    assert metrics.edits("", "two words") == (2, 0)
    assert metrics.edits("abc", "abd", characters=True) == (1, 3)
    assert metrics.error_rate(["a b c d", "e f"], ["a b c", "e g"]) == pytest.approx(2 / 6)


def test_cider_d_by_hand():
    """Two clips, one reference each, no word shared between clips: every IDF is log 2."""
    corpus, each = cider_d(["a dog barks", "rain"], [["a dog barks"], ["heavy rain falls"]])
    # first: all n-grams that exist agree: orders 1, 2, 3 have cosine 1, order 4 has none: 10 * 3 / 4
    assert each[0] == pytest.approx(7.5)
    # second: one of three words: min·r / (1 · sqrt 3) = 1 / sqrt 3, lengths 0 and 2 bigrams: exp(-4 / 72)
    assert each[1] == pytest.approx(10 / 4 * (1 / math.sqrt(3)) * math.exp(-4 / 72))
    assert corpus == pytest.approx(sum(each) / 2)


def test_cider_d_clips_repeats():
    """Saying a word four times earns no more than the reference holds."""
    references = [["a dog barks"], ["rain falls"]]
    _, honest = cider_d(["dog", "rain falls"], references)
    _, padded = cider_d(["dog dog dog dog", "rain falls"], references)
    assert padded[0] < honest[0]


def test_mcnemar_by_hand():
    assert mcnemar(1, 9) == pytest.approx(2 * (1 + 10) / 1024)
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(5, 5) == 1.0


def test_holm_by_hand():
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03})
    assert corrected == {"a": pytest.approx(0.03), "c": pytest.approx(0.06), "b": pytest.approx(0.06)}


def test_normalisers():
    assert normalise("Don’t  STOP, Mr. Smith!", "basic") == "don't stop mr smith"
    assert normalise("A b.", "none") == "A b."
    assert normalise("It's twenty-five dollars, uh, okay.") == normalise("it is $25 okay")


def test_cider_d_equals_the_public_implementation():
    stored = json.loads(Path(__file__).with_name("cider_d.json").read_text())
    for case in stored["cases"]:
        corpus, each = cider_d([c["caption"] for c in case["clips"]], [c["references"] for c in case["clips"]])
        assert corpus == pytest.approx(case["corpus"], abs=1e-6)
        assert each == pytest.approx([c["score"] for c in case["clips"]], abs=1e-6)
    assert sum(len(case["clips"]) for case in stored["cases"]) >= 40


@pytest.mark.usefixtures("no_java")
def test_other_caption_metrics_and_what_is_missing():
    pytest.importorskip("sacrebleu")
    pytest.importorskip("rouge_score")
    references = [["a dog barks at the door", "a dog barking"], ["rain falls on the old roof"]]
    perfect = caption_metrics(["a dog barks at the door", "rain falls on the old roof"], references)
    assert perfect["bleu"] == pytest.approx(1.0)
    assert perfect["chrf"] == pytest.approx(1.0, abs=0.01)
    assert perfect["rouge_l"] == pytest.approx(1.0)
    # "a dog at": longest common run of words with the first reference is 3 of 3 and 3 of 6: F1 = 2/3
    assert rouge_l(["a dog at", "x"], references) == pytest.approx((2 / 3 + 0) / 2)
    missing = set(OPTIONAL) - set(perfect)
    assert set(perfect["not_measured"]) == missing
    assert all(perfect["not_measured"].values())


@pytest.mark.usefixtures("no_java")
def test_a_caption_metric_whose_download_is_missing_says_so(monkeypatch):
    """As aac-metrics does without its Java programs; the other metrics are there all the same."""
    broken = types.ModuleType("aac_metrics.functional.spice")

    def spice(captions, references):
        raise FileNotFoundError("Cannot find SPICE JAR file 'spice-1.0.jar'")

    broken.spice = spice
    monkeypatch.setitem(sys.modules, "aac_metrics", types.ModuleType("aac_metrics"))
    monkeypatch.setitem(sys.modules, "aac_metrics.functional", types.ModuleType("aac_metrics.functional"))
    monkeypatch.setitem(sys.modules, "aac_metrics.functional.spice", broken)
    found = caption_metrics(["a dog barks"], [["a dog barks"]])
    assert found["not_measured"]["spice"] == "Cannot find SPICE JAR file 'spice-1.0.jar'"
    assert found["rouge_l"] == pytest.approx(1.0)


@pytest.mark.slow
def test_meteor_gives_what_the_program_gave():
    """Needs Java and the package that holds METEOR 1.5; the program reads its paraphrases for 20 s."""
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed: METEOR's program is in it")
    if shutil.which("java") is None:
        pytest.skip("METEOR needs Java")
    said = ["a dog barks at the door", "Rain is falling on an old roof.", "music plays while people are talking"]
    said += ["silence", "A motor begins running"]
    references = [["A dog barks at the door.", "a dog barking"], ["Rain falls on the old roof"]]
    references += [["people talk while music plays in the background"], ["a cat meows"]]
    references += [["an engine starts and idles", "a car engine is starting"]]
    value, reason = _meteor(said, references)
    assert reason is None
    assert value == pytest.approx(0.3481017806899795, abs=1e-9)


def test_meteor_says_what_it_lacks(monkeypatch):
    monkeypatch.setitem(sys.modules, "aac_metrics.functional.meteor", None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    perfect = caption_metrics(["a dog barks"], [["a dog barks"]])
    assert perfect["not_measured"]["meteor"] == "METEOR needs Java: install a Java runtime"
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/java")
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", None)
    perfect = caption_metrics(["a dog barks"], [["a dog barks"]])
    assert perfect["not_measured"]["meteor"].endswith("pip install 'ossicle[captions]'")


@pytest.mark.slow
def test_a_meteor_that_dies_is_told_and_does_not_hang(tmp_path, monkeypatch):
    pytest.importorskip("pycocoevalcap", reason="pycocoevalcap is not installed: METEOR's program is in it")
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexit 1\n")
    java.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    value, reason = _meteor(["a dog barks"], [["a dog barks"]])
    assert value is None
    assert reason.startswith("METEOR's program failed: ")
