"""The papers' scorers against what their official scripts gave on the same made-up answers."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
import yaml

from ossicle.errors import DataError
from ossicle.evaluation import paper
from ossicle.evaluation.parse import parse
from ossicle.evaluation.task import suite_specs


def fake_embed(texts):
    """Words and letter trigrams in 64 dimensions, as the reference numbers were made with."""
    out = np.zeros((len(texts), 64))
    for row, text in enumerate(texts):
        for token in re.findall(r"[A-Za-z0-9]+", text):
            framed = f"^{token}$"
            parts = [(f"w:{token}", 1.0), *((f"c:{framed[i : i + 3]}", 0.5) for i in range(len(framed) - 2))]
            for part, weight in parts:
                number = int(hashlib.md5(part.encode(), usedforsecurity=False).hexdigest()[:8], 16)
                out[row, number % 64] += -weight if number >> 6 & 1 else weight
        if not out[row].any():
            out[row, 0] = 1.0
    return out


@pytest.fixture(scope="module")
def golden(golden_root):
    return lambda name: json.loads((golden_root / "ltu_eval" / f"{name}.json").read_text())


def columns(items, *keys):
    return [[item[key] for item in items] for key in keys]


def test_the_fake_embedding_is_the_one(golden):
    for text, vector in golden("fake_embedding_check").items():
        np.testing.assert_allclose(fake_embed([text])[0], vector)


def test_age(golden):
    case = golden("age")
    score = paper.score_age(*columns(case["items"], "ref", "pred"))
    for mine, theirs in zip(score.items, case["items"], strict=True):
        assert mine["numbers"] == theirs["numbers_found"]
        assert (mine["truth"], mine["said"]) == (theirs["parsed_ref"], theirs["parsed_pred"])
    assert score.value == pytest.approx(case["metric"]["value"], abs=1e-9)
    assert score.extra["pearson"] == pytest.approx(case["metric"]["pearson"], abs=1e-9)
    assert score.n == case["metric"]["n_counted"]
    for form in case["reference_forms"]:
        if form["raises"]:
            with pytest.raises(DataError):
                paper.age_reference(form["ref"])
        else:
            assert [paper.age_reference(form["ref"]), paper.age_numbers(form["pred"])[0]] == form["parsed"]


def test_gender(golden):
    case = golden("gender")
    score = paper.score_gender(*columns(case["items"], "ref", "pred"))
    assert [(i["truth"], i["said"], i["right"]) for i in score.items] == [
        (i["parsed_ref"], i["parsed_pred"], i["correct"]) for i in case["items"]
    ]
    assert score.value == pytest.approx(case["metric"]["macro_f1"], abs=1e-9)
    assert score.extra["accuracy"] == pytest.approx(case["metric"]["accuracy"], abs=1e-9)


@pytest.mark.parametrize("name", ["emotion", "esc50", "gtzan"])
def test_nearest_class(golden, name):
    case, rule = golden(name), paper.NEAREST[name]
    score = paper.score_nearest(*columns(case["items"], "ref", "pred"), case["labels"], rule, fake_embed)
    for mine, theirs in zip(score.items, case["items"], strict=True):
        assert [mine["text"]] == theirs["embedded_texts"]
        assert (mine["truth"], mine["said"]) == (theirs["truth_label"], theirs["parsed_label"])
        assert mine["right"] == theirs["correct"]
        assert mine["score"] == pytest.approx(theirs["top_score"], abs=1e-6)
        assert mine["margin"] == pytest.approx(theirs["margin_to_second"], abs=1e-6)
    assert score.value == pytest.approx(case["metric"]["value"], abs=1e-9)
    for single in case["single_item_runs"]:
        if single["raises"]:
            with pytest.raises(DataError, match="is no label"):
                paper.nearest_truth(single["ref"], case["labels"], rule)
        else:
            assert paper.nearest_truth(single["ref"], case["labels"], rule)


def test_librispeech(golden):
    case = golden("librispeech")
    score = paper.score_librispeech(*columns(case["items"], "ref", "pred", "whisper"))
    names = {"truth": "norm_ref", "said": "norm_pred", "whisper": "norm_whisper", "scored": "scored_text"}
    names |= {"substituted": "substituted", "edits": "edits_scored", "edits_raw": "edits_raw", "words": "ref_words"}
    for mine, theirs in zip(score.items, case["items"], strict=True):
        assert {key: mine[key] for key in names} == {key: theirs[name] for key, name in names.items()}
    metric = case["metric"]
    assert score.value == pytest.approx(metric["wer_paper_mode_with_substitution"], abs=1e-9)
    assert score.extra["raw"] == pytest.approx(metric["wer_raw"], abs=1e-9)
    assert score.extra["whisper"] == pytest.approx(metric["wer_whisper"], abs=1e-9)


def test_audiocaps_texts_and_trials(golden):
    case = golden("audiocaps_text")
    for item in case["items"]:
        assert paper.caption_text(item["ref"]) == item["norm_ref"]
        assert paper.caption_text(item["pred"]) == item["norm_pred"]
    trials = paper.caption_trials(*columns(case["items"], "audio_id", "ref", "pred"))
    assert [{"pred": said, "refs": truth} for said, truth in trials] == case["trials"]


@pytest.mark.parametrize("mode", ["caption", "label"])
def test_audioset(golden, data_root, mode):
    case = golden("audioset")[f"{mode}_mode"]
    ontology = json.loads((data_root / "text_metadata" / "audioset" / "ontology.json").read_text())
    labels = [entry["name"] for entry in ontology if "abstract" not in entry["restrictions"]]
    score = paper.score_tagging(*columns(case["items"], "ref", "pred"), labels, fake_embed, mode)
    for mine, theirs in zip(score.items, case["items"], strict=True):
        assert mine["texts"] == theirs["embedded_texts"]
        assert mine["truth"] == theirs["truth_labels"]
        for label, value in theirs["top3"]:
            assert mine["scores"][labels.index(label)] == pytest.approx(value, abs=1e-6)
    # The ontology names some classes that were never released; without positives they add nothing to the sum.
    total = case["metric"]["mAP_all_classes"] * case["n_labels"]
    assert score.value * len(labels) == pytest.approx(total, abs=1e-6 * case["n_labels"])
    assert score.extra["map_present"] == pytest.approx(case["metric"]["mAP_classes_with_positives"], abs=1e-6)
    for single in case.get("single_item_runs", []):
        with pytest.raises(DataError, match="is no class"):
            paper.tagging_truth(single["ref"], labels)


def test_every_quirk_is_listed():
    others = {"age", "gender", "librispeech", "audiocaps"}
    assert set(paper.NEAREST) | set(paper.TAGGING) | others == set(paper.QUIRKS)


HERE = Path(__file__).parent
PAIRS = yaml.safe_load((HERE / "paper_pairs.yaml").read_text(encoding="utf-8"))
REFERENCES = yaml.safe_load((HERE / "paper_references.yaml").read_text(encoding="utf-8"))
TASKS = {spec.task: row for spec in [*suite_specs("ltu-as"), *suite_specs("ltu")] for row in spec.rows.values()}
NOT_PUBLIC = {"mosei_sentiment"}
"""Tasks whose official scorer is in no public repository: only ours reads them."""


def reading(task, answer):
    """Return what the scorer that the task's own file names makes of an answer."""
    name = TASKS[task].paper
    if task in NOT_PUBLIC:
        return parse(TASKS[task].parser, answer, {label: [] for label in REFERENCES[task]["labels"]})
    if name in paper.NEAREST:
        return paper.nearest_text(answer, paper.NEAREST[name])
    if name in paper.TAGGING:
        return paper.tagging_texts(answer, "label", paper.TAGGING[name])
    if name == "age":
        return (paper.age_numbers(answer) or [None])[0]
    return {"gender": paper.gender_of, "audiocaps": paper.caption_text}[name](answer)


@pytest.mark.parametrize("task", sorted(set(TASKS) - {"librispeech_clean_wer"}))
def test_our_own_pairs_read_as_the_scripts_would(task):
    wrong = [(answer, said, reading(task, answer)) for answer, said in PAIRS[task] if reading(task, answer) != said]
    assert not wrong


def test_our_own_transcripts_are_replaced_as_the_script_would():
    for answer, whisper, scored, replaced in PAIRS["librispeech_clean_wer"]:
        item = paper.score_librispeech(["hello world"], [answer], [whisper]).items[0]
        assert (item["scored"], item["substituted"]) == (scored, replaced), (answer, item)


def test_our_own_captions_of_several_labels_are_cut_as_the_script_would():
    wrong = [pair for pair in PAIRS["audioset_caption"] if paper.tagging_texts(pair[0], "caption") != [pair[1]]]
    assert not wrong


def test_every_task_of_the_papers_is_held_to_thirty_pairs_of_its_own():
    assert set(PAIRS) - {"audioset_caption"} == set(TASKS)
    assert {task for task, row in TASKS.items() if not row.paper} == NOT_PUBLIC
    answers = {task: {str(pair[0]) for pair in PAIRS[task]} for task in TASKS}
    for task, own in answers.items():
        others = set().union(*(texts for name, texts in answers.items() if name != task))
        assert len(own - others) >= 30, (task, len(own - others))


@pytest.mark.parametrize("task", sorted(task for task, row in TASKS.items() if row.paper in paper.NEAREST))
def test_an_answer_that_is_a_class_text_is_that_class(task):
    rule, labels = paper.NEAREST[TASKS[task].paper], REFERENCES[task]["labels"]
    names = {rule.prefix + label.replace("_", rule.underscore).lower(): label for label in labels}
    exact = {answer: names[text] for answer, text in PAIRS[task] if text in names}
    assert len(set(exact.values())) >= 3
    right = next(r for r, said in REFERENCES[task]["references"] if said)
    score = paper.score_nearest([right] * len(exact), list(exact), labels, rule, fake_embed)
    assert [item["said"] for item in score.items] == list(exact.values())


@pytest.mark.parametrize("task", sorted(task for task, case in REFERENCES.items() if "references" in case))
def test_our_own_references_name_their_labels_or_fail_as_the_scripts_would(task):
    labels, name = REFERENCES[task].get("labels", []), TASKS[task].paper

    def named(reference):
        if name == "age":
            return paper.age_reference(reference)
        if name in paper.NEAREST:
            return paper.nearest_truth(reference, labels, paper.NEAREST[name])
        rule = paper.TAGGING[name]
        return paper.tagging_truth(reference, [label.replace("_", rule.underscore) for label in labels], rule)

    for reference, said in REFERENCES[task]["references"]:
        if said is None:
            with pytest.raises(DataError, match=r"is no (label|class|integer)"):
                named(reference)
        else:
            assert named(reference) == said


def test_macro_f1_counts_every_class_and_accuracy_is_micro_f1():
    rule, labels = paper.NEAREST["dcase"], ["Bus", "Truck", "Car", "Train"]
    score = paper.score_nearest(["Bus", "Bus", "Truck"], ["x: Bus", "x: Truck", "x: Truck"], labels, rule, fake_embed)
    assert (score.metric, score.value) == ("micro_f1", pytest.approx(2 / 3))
    # Bus: P 1, R 1/2 -> 2/3; Truck: P 1/2, R 1 -> 2/3; Car and Train have none: 0
    assert score.extra["macro_f1"] == pytest.approx((2 / 3 + 2 / 3) / 4)


def test_fsd50k_sums_cosines_of_labels_and_counts_absent_classes_as_nothing():
    labels = ["Bark", "Meow", "Chirp_and_tweet"]
    references = ["Labels: Bark", "Labels: Chirp and tweet"]
    score = paper.score_tagging(
        references, ["Labels: Bark", "Labels: Meow"], labels, fake_embed, "label", paper.TAGGING["fsd50k"]
    )
    # Bark is ranked first for its own clip: AP 1; the other's clip has the smaller cosine with its class or not
    own = [
        paper.cosine(fake_embed([f"sound of {x}"]), fake_embed(["sound of chirp and tweet"]))[0, 0]
        for x in ("bark", "meow")
    ]
    chirp = 1.0 if own[1] > own[0] else 0.5
    assert score.value == pytest.approx((1 + 0 + chirp) / 3)
    assert score.extra["map_present"] == pytest.approx((1 + chirp) / 2)
