"""Choice benchmarks in the forms of their official files, with questions of our own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.conftest import write_set
from evaluation.doubles import Deaf, Said
from ossicle.evaluation.card import read_card
from ossicle.evaluation.choices import asked, entry, read_choices, rotations
from ossicle.evaluation.run import Outcome, Setting, build_tasks, run_suite
from ossicle.evaluation.task import SourceSpec, suite_specs

MODEL = {"name": "chooser", "hash": ""}
OPTIONS = ["a cat", "a dog", "rain"]


def mmau_record(index: int) -> dict:
    """Return an entry as `mmau-test-mini.json` has them."""
    return {
        "id": f"0000-{index:04d}",
        "audio_id": f"./test-mini-audios/{index}.wav",
        "question": f"Which of these makes noise number {index}?",
        "choices": OPTIONS,
        "answer": OPTIONS[index % 3],
        "dataset": "Ours",
        "task": "sound",
        "split": "test-mini",
        "category": "Reasoning",
        "sub-category": "Acoustic Source Inference",
        "difficulty": "easy",
    }


def mmar_record(index: int) -> dict:
    """Return an entry as `MMAR-meta.json` has them; two to six choices, some answers in another case or with blanks."""
    choices = ["An owl", "Two owls", "Nobody", "Rain", "Wind", "A bell"][: 2 + index % 5]
    return {
        "id": f"clip{index}_00-00-01_00-00-09",
        "audio_path": f"./audio/{index}.wav",
        "question": f"Who calls in scene {index}?",
        "choices": str(choices) if index == 3 else choices,
        "answer": (" an owl ", "Two owls", "two Owls")[index % 3],
        "modality": "mix-sound-speech",
        "category": "Semantic Layer",
        "sub-category": "Speaker Analysis",
        "language": "en",
        "source": "youtube",
        "url": "",
        "timestamp": "00:00:01,00:00:09",
    }


FORMS = {
    "mmau_mini": ("mmau/mmau-test-mini.json", "test-mini-audios", mmau_record),
    "mmau_mini_v2": ("mmau-v05.15.25/mmau-test-mini.json", "test-mini-audios", mmau_record),
    "mmar": ("mmar/MMAR-meta.json", "audio", mmar_record),
}


def write_benchmark(root: Path, name: str, records: list, *, clips: int, lines: bool = False) -> Path:
    """Write an official file and its recordings; returns the file."""
    place, folder, _ = FORMS[name]
    path = root / place
    write_set(path.parent, [{} for _ in range(clips)])
    if folder != "audio":
        (path.parent / "audio").rename(path.parent / folder)
    if lines:
        path = path.with_suffix(".jsonl")
    path.write_text("\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=2), encoding="utf-8")
    return path


class Knowing:
    """Names the right option of every question, by the letter that it has this time."""

    def __init__(self, setting: Setting) -> None:
        outcome = Outcome()
        build_tasks(setting, suite_specs(setting.suite), outcome)
        self.letters = {
            item.question: "ABCDEF"[item.options.index(item.truth)]
            for task in outcome.built.values()
            for item in task.items
        }

    def answer(self, items, **_):
        return [Said(f"({self.letters[question]})" if wave is not None else "?") for wave, question in items]


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("name", sorted(FORMS))
def test_an_official_file_is_read_and_every_rotation_asked(name, lines, tmp_path):
    records = [FORMS[name][2](index) for index in range(10)]
    write_benchmark(tmp_path, name, records, clips=10, lines=lines)
    setting = Setting(suite=name, root=tmp_path)
    task = run_suite(setting, Knowing(setting), out=tmp_path / "o", model=MODEL)["tasks"][name]
    # three options each for MMAU; 2, 3, 4, 5, 6 and again for MMAR
    assert task["n"] == (40 if name == "mmar" else 30)
    assert task["interval"]["clusters"] == 10
    assert task["value"] == 1.0
    assert task["skipped"] == {}


def test_fields_of_the_official_file_are_scored_apart(tmp_path):
    """Whoever hears sounds and nothing else is told so, with an interval by question."""
    records = [mmau_record(i) | {"task": "speech" if i % 2 else "sound"} for i in range(10)]
    del records[0]["difficulty"]
    records[1]["difficulty"] = "hard"
    write_benchmark(tmp_path, "mmau_mini", records, clips=10)
    setting = Setting(suite="mmau_mini", root=tmp_path)

    class Sounds(Knowing):
        def answer(self, items, **_):
            odd = [any(f"number {i}?" in question for i in range(1, 10, 2)) for _, question in items]
            return [Said("?") if o else s for o, s in zip(odd, super().answer(items), strict=True)]

    result = run_suite(setting, Sounds(setting), out=tmp_path / "o", model=MODEL)
    by = result["tasks"]["mmau_mini"]["by"]
    assert {name: (one["value"], one["n"], one["clusters"]) for name, one in by["task"].items()} == {
        "sound": (1.0, 15, 5),
        "speech": (0.0, 15, 5),
    }
    assert {name: one["n"] for name, one in by["difficulty"].items()} == {"easy": 24, "hard": 3}
    assert by["task"]["sound"]["ci95"][0] < 1 == by["task"]["sound"]["ci95"][1]
    assert "| · task: sound | accuracy | 1.000 |" in (tmp_path / "o" / "card.md").read_text(encoding="utf-8")


def test_fields_to_score_apart_need_an_official_file():
    with pytest.raises(ValueError, match="official file"):
        SourceSpec(kind="clips", set="esc10", by=["category"])


def test_a_liked_letter_gains_nothing(tmp_path):
    class First:
        def answer(self, items, **_):
            return [Said("(A)") for _ in items]

    write_benchmark(tmp_path, "mmau_mini", [mmau_record(0) | {"id": i} for i in range(6)], clips=6)
    task = run_suite(Setting(suite="mmau_mini", root=tmp_path), First(), out=tmp_path / "o", model=MODEL)
    assert task["tasks"]["mmau_mini"]["value"] == pytest.approx(1 / 3), "though every right answer is printed first"


def test_rotations_are_all_cyclic_orders_and_keep_every_option():
    turns = rotations(["w", "x", "y", "z"])
    assert ["".join(turn) for turn in turns] == ["wxyz", "xyzw", "yzwx", "zwxy"]
    assert asked("What?", rotations(["x", "y"])[1]) == "What? Choose one: (A) y (B) x"
    many = [f"o{i}" for i in range(12)]
    assert asked("?", many).endswith("(K) o10 (L) o11")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "an elephant"}, "answer is none of its choices"),
        ({"answer": None}, "no 'answer'"),
        ({"question": ""}, "no 'question'"),
        ({"choices": []}, "no 'choices'"),
        ({"choices": ["a cat"], "answer": "a cat"}, "not 2 to 26 choices"),
        ({"choices": "a cat, a dog"}, "not 2 to 26 choices"),
        ({"choices": ["A cat", "a cat "], "answer": "a CAT"}, "answer is none of its choices"),
        ({"audio_id": None}, "no audio"),
        ({"audio_id": "./test-mini-audios/gone.wav"}, "file is missing"),
        (None, "no object"),
    ],
)
def test_one_bad_entry_is_left_out_counted_and_told(change, reason, tmp_path):
    records: list = [mmau_record(index) for index in range(20)]
    records[4] = "a line of text" if change is None else records[4] | change
    write_benchmark(tmp_path, "mmau_mini", records, clips=20)
    result = run_suite(Setting(suite="mmau_mini", root=tmp_path), Deaf(), out=tmp_path / "o", model=MODEL)
    task = result["tasks"]["mmau_mini"]
    assert task["skipped"] == {reason: 1}
    assert task["n"] == 19 * 3
    assert read_card(Path(result["card"]))["tasks"]["mmau_mini"]["skipped"] == {reason: 1}
    assert f"mmau_mini: left out 1 × {reason}." in (tmp_path / "o" / "card.md").read_text(encoding="utf-8")


def test_too_many_bad_entries_fail_the_task_in_one_line(tmp_path):
    records = [mmau_record(index) for index in range(20)]
    records[4] |= {"answer": "an elephant"}
    del records[7]["choices"]
    path = write_benchmark(tmp_path, "mmau_mini", records, clips=20)
    error = run_suite(Setting(suite="mmau_mini", root=tmp_path), Deaf(), out=tmp_path / "o", model=MODEL)
    assert error["tasks"]["mmau_mini"]["error"] == (
        f"DataError: {path}: too many questions cannot be used: "
        "1 × answer is none of its choices, 1 × no 'choices', of 20"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", "not JSON"),
        ("id,question\n1,what", "not JSON"),
        ("[]", "holds no questions"),
        ("", "holds no questions"),
    ],
)
def test_a_file_that_is_no_list_of_questions_is_one_line(text, message, tmp_path):
    path = write_benchmark(tmp_path, "mmar", [], clips=1)
    path.write_text(text)
    result = run_suite(Setting(suite="mmar", root=tmp_path), Deaf(), out=tmp_path / "o", model=MODEL)
    assert f"{path}: {message}" in result["tasks"]["mmar"]["error"]


def test_a_question_in_json_lines_may_hold_any_character(tmp_path):
    path = tmp_path / "lines.jsonl"
    path.write_text('{"question": "one\u2028two\x85three"}\n\n{"question": "four"}\n', encoding="utf-8")
    assert [record["question"] for record in read_choices(path)] == ["one\u2028two\x85three", "four"]


def test_an_id_that_occurs_twice_names_two_questions(tmp_path):
    records = [mmau_record(index) | {"id": "same"} for index in range(3)]
    write_benchmark(tmp_path, "mmau_mini", records, clips=3)
    result = run_suite(Setting(suite="mmau_mini", root=tmp_path), Deaf(), out=tmp_path / "o", model=MODEL)
    assert result["tasks"]["mmau_mini"]["interval"]["clusters"] == 3


def test_entries_are_read_letter_by_letter_first():
    record = {"audio": "a.wav", "question": "Which note?", "choices": ["b", "B"], "answer": "B"}
    assert entry(record, 0).answer == "B"
    assert entry(record | {"choices": ["b", " c"], "answer": "B"}, 0).answer == "b"
