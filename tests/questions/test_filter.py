"""What is taken out of a set of questions, why, and that all of it can be put back."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from ossicle.data.clip import Clip
from ossicle.data.describe import describe
from ossicle.data.imports import import_clips
from ossicle.data.rows import Tally, read_rows, row_of, write_rows
from ossicle.questions import declining
from ossicle.questions.corpus import survey
from ossicle.questions.filter import FilterConfig, Filters, Held, apply, restore
from ossicle.questions.generate import Plan, rows_of
from ossicle.questions.joint import JointConfig, joint_subset
from ossicle.questions.not_answers import is_not_an_answer
from ossicle.questions.paper_data import keeps
from ossicle.questions.whole import closed_file, filter_file, subset_file

FLOORS = {"labelled": (0.95, 0.95), "fresh": (0.95, 0.95), "unseen": (0.9, 0.9)}
"""Precision and recall. `unseen` was written and labelled after the shapes were, and nothing was changed for it:
neither shapes nor the sentences that `declining` learns from, which were written without it."""


def row(question: str, answer: str, **more) -> dict:
    turns = [{"role": "user", "content": f"<audio>{question}"}, {"role": "assistant", "content": answer}]
    return {"id": question[:8], "messages": turns, "audios": ["a.wav"], "task": "open", "clip": "s/a", **more}


def measured(sample: list[dict], declines) -> tuple[float, float]:
    found = [item for item in sample if declines(item["text"])]
    right = sum(not item["answer"] for item in found)
    return right / len(found), right / sum(not item["answer"] for item in sample)


def _plain(text: str) -> str:
    return re.sub(r"[^a-z ]", "", text.lower().replace("cannot", "can not")).strip()


def _lines(name: str) -> list[str]:
    return Path(__file__).with_name(f"answers_{name}.jsonl").read_text(encoding="utf-8").splitlines()


@pytest.mark.parametrize("name", FLOORS)
def test_answers_that_are_none_are_found_better_than_by_the_papers_phrases(name):
    sample = [json.loads(line) for line in _lines(name)]
    assert len(sample) >= 100
    precision, recall = measured(sample, is_not_an_answer)
    paper_precision, paper_recall = measured(sample, lambda text: not keeps(text))
    assert precision >= FLOORS[name][0]
    assert recall >= FLOORS[name][1]
    assert precision > paper_precision + 0.2
    assert recall > paper_recall + 0.2


def test_declining_is_learnt_from_sentences_and_known_in_others():
    """Five times, four fifths of the lists teach and the others, hard on purpose, are judged."""
    book = yaml.safe_load(declining.FILE.read_text(encoding="utf-8"))
    assert {len(set(some)) - len(some) for some in (book["none"], book["answers"])} == {0}
    samples = {_plain(json.loads(line)["text"]) for name in FLOORS for line in _lines(name)}
    assert not samples & {_plain(text) for text in (*book["none"], *book["answers"])}
    found, right, wanted = 0, 0, len(book["none"])
    for fold in range(5):
        known = declining.learn(*([t for i, t in enumerate(book[k]) if i % 5 != fold] for k in ("none", "answers")))
        for kind in ("none", "answers"):
            odds = [sum(known.get(name, 0.0) for name in declining.features(text)) for text in book[kind][fold::5]]
            found += sum(odd > 0 for odd in odds)
            right += sum(odd > 0 for odd in odds) if kind == "none" else 0
    assert right / found > 0.75
    assert right / wanted > 0.8
    again = declining.learn(book["none"], book["answers"])
    assert again == declining.weights()


def test_each_filter_has_its_reason_and_all_of_it_can_be_put_back(tmp_path):
    rows = [
        row("What happens?", "A dog barks twice and then rain begins to fall."),
        row("What happens?", "A dog barks twice, and then rain begins to fall!"),
        row("What happens now?", "A dog barks twice and then rain begins to fall."),
        row("Who speaks?", "It cannot be determined from the audio."),
        row("Why does the dog bark at the door?", "The dog at the door."),
        row("Was sagt er?", "Он говорит, что идёт дождь."),
        row("Was fällt?", "Das ist der Regen auf dem Dach."),
        row("And then?", "It stops."),
        row("What falls?", "Heavy rain on a metal roof.", recording="youtube x"),
        row("What does he say?", "He greets a friend.", transcript="Hello my old friend, come in!"),
        row("Who is it?", "A neighbour who rings the bell.", clip="e/e"),
        row("Which is louder?", "The first of both.", other="e/e"),
        row("Is there any rain?", "Yes.", task="presence"),
        row(
            "What is said?", "Das ist der Regen auf dem Dach.", task="asr", transcript="Das ist der Regen auf dem Dach."
        ),
    ]
    held = Held()
    held.add(Clip(path=Path("e.wav"), source="e", recording="youtube x", transcript="hello my old friend come in"))
    write_rows(tmp_path / "all.jsonl", rows)
    tally, gone = Tally(), []
    filters = Filters(FilterConfig(min_answer_words=3), held)
    write_rows(tmp_path / "kept.jsonl", apply(rows, filters, tally, gone.append))
    write_rows(tmp_path / "gone.jsonl", gone)
    assert [item["row"] for item in gone] == list(range(1, 12))
    assert tally.skipped == {
        "duplicate": 1, "near duplicate": 1, "not an answer": 1, "answer in the question": 1, "another script": 1,
        "another language": 1, "answer too short": 1, "recording of an evaluation set": 1,
        "transcript of an evaluation set": 1, "clip of an evaluation set": 2,
    }  # fmt: skip
    assert (
        list(restore(tmp_path / "kept.jsonl", tmp_path / "gone.jsonl"))
        == rows
        == list(read_rows(tmp_path / "all.jsonl"))
    )


def test_a_recording_that_two_datasets_cut_is_found_by_its_source(tmp_path):
    """ESC-50 and FSD50K both hold Freesound's recording 100, as clips of other names, lengths and bytes."""
    for place, content in (
        ("esc/meta/esc50.csv", "filename,fold,target,category,esc10,src_file,take\n1-100-A-0.wav,1,0,dog,True,100,A\n"),
        ("fsd/FSD50K.ground_truth/dev.csv", 'fname,labels,mids,split\n100,"Dog","/m",train\n200,"Rain","/m",train\n'),
    ):
        (tmp_path / place).parent.mkdir(parents=True)
        (tmp_path / place).write_text(content)
    for place in ("esc/audio/1-100-A-0.wav", "fsd/FSD50K.dev_audio/100.wav", "fsd/FSD50K.dev_audio/200.wav"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / place, np.random.default_rng(len(place)).normal(0, 0.1, 1600), 16000)
    import_clips(tmp_path / "fsd", tmp_path / "clips.jsonl", adapter="fsd50k")
    closed_file(tmp_path / "clips.jsonl", tmp_path / "q.jsonl", Plan(tasks=("label",)))
    sets = [f"esc50:{tmp_path / 'esc'}"]
    tally = filter_file(
        tmp_path / "q.jsonl", tmp_path / "kept.jsonl", tmp_path / "gone", FilterConfig(), eval_sets=sets
    )
    assert tally.skipped == {"recording of an evaluation set": 1}
    assert [row["clip"] for row in read_rows(tmp_path / "kept.jsonl")] == ["fsd50k/200"]


def test_a_file_of_an_evaluation_set_is_found_by_its_bytes(tmp_path):
    (tmp_path / "e.wav").write_bytes(b"the same sound")
    (tmp_path / "copy.wav").write_bytes(b"the same sound")
    (tmp_path / "other.wav").write_bytes(b"another sound!")
    held = Held()
    held.add(Clip(path=tmp_path / "e.wav", source="e"))
    assert held.why({"audios": [str(tmp_path / "copy.wav")]}) == "recording of an evaluation set"
    assert held.why({"audios": [str(tmp_path / "other.wav")]}) is None


def test_the_three_conditions_in_both_readings():
    def clip(name, label, words, share):
        facts = {} if share is None else {"non_speech_share": share, "voice_share": 0.5}
        return Clip(path=Path(name), source="s", labels=(label,), transcript=" ".join(["word"] * words), facts=facts)

    def kept(clips, **settings):
        return [c.path.name for c in joint_subset(clips, Tally(), JointConfig(**{"per_label": 1, **settings}))]

    clips = [clip("a", "dog", 6, 0.1), clip("b", "dog", 6, 0.1), clip("c", "cat", 5, 0.1), clip("d", "cow", 9, 0.5)]
    tally = Tally()
    assert [c.path.name for c in joint_subset(clips, tally, JointConfig(per_label=1))] == ["a"]
    assert tally.skipped == {
        "its labels are full": 1, "transcript of fewer than 6 words": 1, "share without speech not below 20%": 1,
    }  # fmt: skip
    assert kept(clips, reading="above") == ["d"]
    assert kept(clips, reading="any") == ["a", "d"]
    assert kept(clips, per_label=None) == ["a", "b"]
    assert kept(clips, min_words=5) == ["a", "c"]
    assert kept(clips, share=0.6) == ["a", "d"]
    assert kept(clips, heard_by="voicing") == [] and kept(clips, heard_by="voicing", share=0.6) == ["a", "d"]
    tally = Tally()
    assert not list(joint_subset([clip("e", "dog", 8, None)], tally, JointConfig()))
    assert tally.skipped == {"share of speech not known": 1}


def test_the_three_conditions_on_described_clips(tmp_path):
    """The share without speech is measured: from events where the owner gives them, else from the voice."""
    rate, rng = 16000, np.random.default_rng(0)
    voice = sum(np.sin(2 * np.pi * 140 * k * np.arange(4 * rate) / rate) / k for k in range(1, 8)) * 0.1
    for name, wave in (("all", voice), ("half", np.concatenate([voice, rng.normal(0, 0.02, 4 * rate)]))):
        soundfile.write(tmp_path / f"{name}.wav", wave, rate)
    said = {"source": "s", "labels": ("Speech",), "transcript": "one two three four five six"}
    spans = (("Speech", 0.0, 3.0), ("Male speech, man speaking", 2.0, 3.5), ("Dog", 0.0, 8.0))
    clips = [Clip(path=tmp_path / "all.wav", **said), Clip(path=tmp_path / "half.wav", **said)]
    clips.append(Clip(path=tmp_path / "half.wav", start_s=0.5, events=spans, **said))
    described = list(describe(clips, Tally()))
    shares = [clip.facts["non_speech_share"] for clip in described]
    assert shares == [pytest.approx(0, abs=0.05), pytest.approx(0.5, abs=0.05), pytest.approx(1 - 3.5 / 7.5, abs=1e-3)]
    write_rows(tmp_path / "described.jsonl", map(row_of, described))
    for reading, kept in (("below", 1), ("above", 2)):
        out = tmp_path / f"{reading}.jsonl"
        assert subset_file(tmp_path / "described.jsonl", out, JointConfig(reading=reading, per_label=5)).given == kept


def test_answers_of_one_word_stay(tmp_path):
    clips = [
        Clip(path=Path(f"/c/{n}.wav"), source="s", labels=(("dog", "rain")[n % 2],), duration_s=2.0 + n)
        for n in range(40)
    ]
    made = rows_of(clips, survey(clips), Plan())
    assert sum(row["messages"][1]["content"] == "No." for row in made) > 20
    filters = Filters(FilterConfig(leaked=1))
    assert [filters.why(row) for row in made] == [None] * len(made)
    assert not any(
        is_not_an_answer(answer) for answer in ("No.", "Yes.", "Two.", "Very low.", "Dog, then bell.", "Fear.")
    )


@pytest.mark.parametrize(("which", "kept"), [("ours", 1), ("paper", 0), ("", 1)])
def test_which_list_decides(which, kept):
    rows = [row("How loud is it?", "There is enough noise to wake a child.")]
    assert len(list(apply(rows, Filters(FilterConfig(not_answers=which)), Tally(), lambda _: None))) == kept
