"""What is taken out of a set of questions, why, and that all of it can be put back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ossicle.data.clip import Clip
from ossicle.data.describe import describe
from ossicle.data.rows import Tally, read_rows, row_of, write_rows
from ossicle.questions.filter import FilterConfig, Filters, Held, apply, joint_subset, restore
from ossicle.questions.not_answers import is_not_an_answer
from ossicle.questions.paper_data import keeps
from ossicle.questions.whole import subset_file

FLOORS = {"labelled": (0.95, 0.95), "fresh": (0.95, 0.95), "unseen": (0.9, 0.6)}
"""Precision and recall. `unseen` was written and labelled after the shapes were, and nothing was changed for it."""


def row(question: str, answer: str, **more) -> dict:
    turns = [{"role": "user", "content": f"<audio>{question}"}, {"role": "assistant", "content": answer}]
    return {"id": question[:8], "messages": turns, "audios": ["a.wav"], "task": "open", "clip": "s/a", **more}


def measured(sample: list[dict], declines) -> tuple[float, float]:
    found = [item for item in sample if declines(item["text"])]
    right = sum(not item["answer"] for item in found)
    return right / len(found), right / sum(not item["answer"] for item in sample)


@pytest.mark.parametrize("name", FLOORS)
def test_answers_that_are_none_are_found_better_than_by_the_papers_phrases(name):
    text = Path(__file__).with_name(f"answers_{name}.jsonl").read_text(encoding="utf-8")
    sample = [json.loads(line) for line in text.splitlines()]
    assert len(sample) >= 100
    precision, recall = measured(sample, is_not_an_answer)
    paper_precision, paper_recall = measured(sample, lambda text: not keeps(text))
    assert precision >= FLOORS[name][0]
    assert recall >= FLOORS[name][1]
    assert precision > paper_precision + 0.2
    assert recall > paper_recall + 0.2


def test_each_filter_has_its_reason_and_all_of_it_can_be_put_back(tmp_path):
    rows = [
        row("What happens?", "A dog barks twice and then rain begins to fall."),
        row("What happens?", "A dog barks twice, and then rain begins to fall!"),
        row("What happens now?", "A dog barks twice and then rain begins to fall."),
        row("Who speaks?", "It cannot be determined from the audio."),
        row("Why does the dog bark at the door?", "The dog at the door."),
        row("Was sagt er?", "Он говорит, что идёт дождь."),
        row("And then?", "It stops."),
        row("What falls?", "Heavy rain on a metal roof.", recording="youtube x"),
        row("What does he say?", "He greets a friend.", transcript="Hello my old friend, come in!"),
        row("Is there any rain?", "Yes.", task="presence"),
    ]
    held = Held()
    held.add(Clip(path=Path("e.wav"), source="e", recording="youtube x", transcript="hello my old friend come in"))
    write_rows(tmp_path / "all.jsonl", rows)
    tally, gone = Tally(), []
    filters = Filters(FilterConfig(min_answer_words=3), held)
    write_rows(tmp_path / "kept.jsonl", apply(rows, filters, tally, gone.append))
    write_rows(tmp_path / "gone.jsonl", gone)
    assert [item["row"] for item in gone] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert tally.skipped == {
        "duplicate": 1, "near duplicate": 1, "not an answer": 1, "answer in the question": 1, "another script": 1,
        "answer too short": 1, "recording of an evaluation set": 1, "transcript of an evaluation set": 1,
    }  # fmt: skip
    assert (
        list(restore(tmp_path / "kept.jsonl", tmp_path / "gone.jsonl"))
        == rows
        == list(read_rows(tmp_path / "all.jsonl"))
    )


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
        facts = {} if share is None else {"non_speech_share": share}
        return Clip(path=Path(name), source="s", labels=(label,), transcript=" ".join(["word"] * words), facts=facts)

    clips = [clip("a", "dog", 6, 0.1), clip("b", "dog", 6, 0.1), clip("c", "cat", 5, 0.1), clip("d", "cow", 9, 0.5)]
    tally = Tally()
    assert [c.path.name for c in joint_subset(clips, tally, per_label=1)] == ["a"]
    assert tally.skipped == {
        "its labels are full": 1, "transcript of five words or fewer": 1, "share without speech not below 20%": 1,
    }  # fmt: skip
    assert [c.path.name for c in joint_subset(clips, Tally(), reading="above", per_label=1)] == ["d"]
    tally = Tally()
    assert not list(joint_subset([clip("e", "dog", 8, None)], tally, per_label=1))
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
        assert subset_file(tmp_path / "described.jsonl", out, reading=reading, per_label=5).given == kept


@pytest.mark.parametrize(("which", "kept"), [("ours", 1), ("paper", 0), ("", 1)])
def test_which_list_decides(which, kept):
    rows = [row("How loud is it?", "There is enough noise to wake a child.")]
    assert len(list(apply(rows, Filters(FilterConfig(not_answers=which)), Tally(), lambda _: None))) == kept
