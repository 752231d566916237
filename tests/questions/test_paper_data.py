"""The official data generators' behaviour, from numbers they computed: decoders, filter, pitch, prompt facts."""

from __future__ import annotations

import json

import pytest

from ossicle.audio.levels import f0_phrase
from ossicle.data.clip import Clip
from ossicle.questions import replies
from ossicle.questions.paper_data import PAPER_PHRASES, facts_of, keeps


def cases(golden_root, name):
    return json.loads((golden_root / "ltu_data" / name).read_text())


def same(expected, call):
    if isinstance(expected, dict) and "raises" in expected:
        with pytest.raises(Exception) as caught:
            call()
        assert caught.type.__name__ == expected["raises"]
    else:
        assert call() == (expected["returns"] if isinstance(expected, dict) else expected)


def test_decoders_and_what_each_generator_saves(golden_root):
    for case in cases(golden_root, "decode_replies.json"):
        same(case["strict"], lambda case=case: replies.paper_strict(case["reply"]))
        same(case["lenient"], lambda case=case: replies.paper_lenient(case["reply"]))
        for saved in case["saved_pairs_by_generator"]:
            for generator in saved["generators"]:
                same(saved["result"], lambda case=case, name=generator: replies.paper_pairs(case["reply"], name))


def test_the_official_filter(golden_root):
    assert len(PAPER_PHRASES) == 21
    for case in cases(golden_root, "filter_not_answerable.json"):
        assert keeps(case["answer"]) is case["kept"], case["answer"]


def test_pitch_phrases(golden_root):
    for case in cases(golden_root, "pitch_by_gender.json"):
        agreed = case if case.get("all_four_agree") else case["voxceleb"]
        assert f0_phrase(case["f0"], case["gender"], compat=True) == agreed["phrase"]


def test_prompt_facts(golden_root):
    for case in cases(golden_root, "prompt_facts.json"):
        entry = case["entry"]
        if case["raises"]:
            with pytest.raises(Exception):  # noqa: B017 - ours says more than the official one
                facts_of(case["builder"], entry)
            continue
        facts = facts_of(case["builder"], entry)
        for key in ("pitch_phrase", "sentiment_word", "genre_text", "speech_part_called"):
            if key in case:
                assert facts[key] == case[key]
    assert Clip
