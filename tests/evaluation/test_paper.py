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
    score = paper.score_audioset(*columns(case["items"], "ref", "pred"), labels, fake_embed, mode)
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
            paper.audioset_truth(single["ref"], labels)


def test_every_quirk_is_listed():
    assert set(paper.NEAREST) | {"age", "gender", "librispeech", "audiocaps", "audioset"} == set(paper.QUIRKS)


PAIRS = yaml.safe_load(Path(__file__).with_name("paper_pairs.yaml").read_text(encoding="utf-8"))
READINGS = {
    "age": lambda answer: (paper.age_numbers(answer) or [None])[0],
    "gender": paper.gender_of,
    **{name: lambda answer, rule=rule: paper.nearest_text(answer, rule) for name, rule in paper.NEAREST.items()},
    "audiocaps": paper.caption_text,
    "audioset_caption": lambda answer: paper.audioset_texts(answer, "caption")[0],
    "audioset_label": lambda answer: paper.audioset_texts(answer, "label"),
}


@pytest.mark.parametrize("name", sorted(READINGS))
def test_our_own_pairs_read_as_the_scripts_would(name):
    wrong = [(answer, said, READINGS[name](answer)) for answer, said in PAIRS[name] if READINGS[name](answer) != said]
    assert not wrong


def test_our_own_transcripts_are_replaced_as_the_script_would():
    for answer, whisper, scored, replaced in PAIRS["librispeech"]:
        item = paper.score_librispeech(["hello world"], [answer], [whisper]).items[0]
        assert (item["scored"], item["substituted"]) == (scored, replaced), (answer, item)


def test_every_scorer_is_held_to_thirty_pairs_of_our_own():
    counts = {name: len({str(pair) for pair in pairs}) for name, pairs in PAIRS.items()}
    assert {name.split("_")[0] for name in counts} == set(paper.QUIRKS)
    assert min(counts.values()) >= 30, counts
