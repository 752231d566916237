"""Closed questions from labelled clips: every task, both styles of answer, the same rows from the same seed."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from ossicle.data.clip import Clip
from ossicle.data.readers import read_row
from ossicle.errors import ConfigError
from ossicle.questions import templates
from ossicle.questions.corpus import survey
from ossicle.questions.generate import PREFIX, Plan, generate, rows_of
from ossicle.questions.labelled import TASKS

LABELS = ("rain", "dog bark", "siren", "bell", "piano", "wind")


def clip(number: int) -> Clip:
    label = LABELS[number % len(LABELS)]
    events = (("dog", 0.5, 1.0), ("bell", 2.25, 3.0), ("dog", 4.0, 5.0))
    return Clip(
        path=Path(f"/clips/{number}.wav"), source="made", labels=(label,), duration_s=2.0 + number % 7,
        transcript="four words are said", gender=("female", "male")[number % 2], age=str(20 + number), emotion="anger",
        language="de", sentiment="-2", genres=("jazz",), captions=("A dog barks.",), events=events,
        facts={"f0_median_hz": 90.0 + 3 * number, "rms_db": -60.0 + number, "words_per_s": 1 + number / 30},
    )  # fmt: skip


CLIPS = [clip(number) for number in range(60)]


def rows(plan: Plan) -> list[dict]:
    return rows_of(CLIPS, survey(CLIPS), plan)


def test_every_task_has_twenty_wordings_and_is_asked():
    book = templates.closed()
    written = yaml.safe_load((templates.FOLDER / "closed.yaml").read_text(encoding="utf-8"))["tasks"]
    assert set(book.tasks) == set(TASKS) == set(written)
    bare = {name: {re.sub(r"{\w+}|\W", "", text.lower()) for text in some} for name, some in written.items()}
    assert {name: len(some) for name, some in bare.items() if len(some) < 20} == {}  # before any slot is filled
    assert {name: len(some) for name, some in book.tasks.items() if len(set(some)) < len(bare[name])} == {}
    asked = Counter(row["task"] for row in rows(Plan()))
    assert set(asked) == set(TASKS)
    for row in rows(Plan()):
        assert "{" not in row["messages"][0]["content"]
        messages, audios = read_row(row)
        assert messages[0]["content"].count("<audio>") == len(audios) == (2 if "other" in row else 1)


def test_answers_are_true():
    by_key = {clip.key: clip for clip in CLIPS}
    for row in rows(Plan(repeat=3)):
        own, answer = by_key[row["clip"]], row["messages"][1]["content"]
        question = row["messages"][0]["content"].lower()
        if row["task"] == "presence":
            assert (answer == "Yes.") is any(label in question for label in own.labels)
        if row["task"] == "choice":
            assert answer in row["messages"][0]["content"]
            assert answer.endswith(own.labels[0])
        if row["task"] == "count":
            assert answer == ("2." if "dog" in question else "1.")
        if row["task"].startswith("compare"):
            fact = {"compare_pitch": "f0_median_hz", "compare_volume": "rms_db"}.get(row["task"])
            mine, theirs = (c.facts[fact] if fact else c.duration_s for c in (own, by_key[row["other"]]))
            assert answer == ("The first." if mine > theirs else "The second.")
        if row["task"] == "same_label":
            assert (answer == "Yes.") is (by_key[row["other"]].labels == own.labels)
            assert row["other"] != row["clip"]
        if row["task"] == "event_duration":
            assert answer == "0.8 seconds."  # of the bell; there are two dogs
            assert "bell" in question
        if row["task"] == "order":
            assert answer == "Dog, then bell."
    lowest = next(row for row in rows(Plan(tasks=("pitch",))) if row["clip"] == CLIPS[0].key)
    assert lowest["messages"][1]["content"] == "Very low."


def test_clips_that_share_some_of_their_labels_are_neither_the_same_nor_different():
    several = [("rain",), ("rain", "wind"), ("wind", "rain"), ("bell",), ("rain", "rain"), ("bell", "wind")]
    clips = [replace(clip(number), labels=several[number % len(several)]) for number in range(60)]
    labels = {clip.key: set(clip.labels) for clip in clips}
    made = list(rows_of(clips, survey(clips), Plan(tasks=("same_label",), repeat=5)))
    assert {row["messages"][1]["content"] for row in made} == {"Yes.", "No."}
    for row in made:
        one, other = labels[row["clip"]], labels[row["other"]]
        assert one == other if row["messages"][1]["content"] == "Yes." else one.isdisjoint(other)


def test_the_papers_answer_shapes_and_prefix():
    made = rows(Plan(paper=True))
    answers = {row["task"]: row["messages"][1]["content"] for row in made if row["clip"] == CLIPS[0].key}
    assert answers["label"] == "Label(s): rain"
    assert answers["asr"] == "Spoken text: four words are said"
    assert answers["caption"] == "Audio caption: A dog barks."
    assert answers["age"].rstrip(".").split()[-1] == "20"
    assert answers["pitch"] == "Very low (<160 Hz)."
    messages, _ = read_row(made[0])
    assert messages[0]["transcript"] == "four words are said"
    share = sum(PREFIX in row["messages"][0]["content"] for row in made) / len(made)
    assert 0.4 < share < 0.6
    assert not any(PREFIX in row["messages"][0]["content"] for row in rows(Plan()))


def test_a_seed_decides_and_no_part_depends_on_another():
    corpus = survey(CLIPS)
    whole = rows_of(CLIPS, corpus, Plan(seed=3))
    assert whole == rows_of(CLIPS[:20], corpus, Plan(seed=3)) + rows_of(CLIPS[20:], corpus, Plan(seed=3))
    assert whole != rows_of(CLIPS, corpus, Plan(seed=4))
    ids = [row["id"] for row in whole]
    assert len(set(ids)) == len(ids)
    assert list(generate(CLIPS, survey(list(reversed(CLIPS))), Plan(seed=3))) == whole


def test_hard_negatives_keep_company():
    clips = [
        replace(clip(0), path=Path(f"/c/{n}.wav"), labels=labels)
        for n, labels in enumerate([("dog", "cat"), ("dog", "cat"), ("dog",), ("organ",)])
    ]
    corpus = survey(clips)
    assert corpus.absent(clips[2]) == ["cat"]
    assert corpus.absent(clips[3]) == ["cat", "dog"]


def test_unknown_tasks_and_files_of_wordings_are_one_line(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'gender'"):
        list(generate(CLIPS, survey(CLIPS), Plan(tasks=("gander",))))
    own = tmp_path / "own.yaml"
    own.write_text("version: mine\nslots: {clip: [clip]}\ntasks: {gender: ['Who is it in the {clip}?']}\n")
    only = rows(Plan(wordings=own))
    assert {row["messages"][0]["content"] for row in only} == {"<audio>Who is it in the clip?"}
    assert only[0]["made"]["wordings"].startswith("mine/")
    own.write_text("tasks: {gender: ['Who {when}?']}\n")
    templates.closed.cache_clear()
    with pytest.raises(ConfigError, match=r"slot \{when\}"):
        rows(Plan(wordings=own))
    json.dumps(only)
