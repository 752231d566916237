"""A whole suite, by a model that hears and by one that does not."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from evaluation.conftest import write_set
from evaluation.doubles import Deaf, Oracle, Said, phrase
from ossicle.errors import ConfigError, DataError
from ossicle.evaluation import composed, text_only
from ossicle.evaluation.answers import AnswerStore, Request, read_header
from ossicle.evaluation.builders import build
from ossicle.evaluation.card import read_card
from ossicle.evaluation.compare import compare_cards, comparison_table
from ossicle.evaluation.contamination import file_hashes
from ossicle.evaluation.parse import vocabularies
from ossicle.evaluation.run import Outcome, Setting, build_tasks, run_suite
from ossicle.evaluation.task import suite_specs
from ossicle.evaluation.verify import verify_card
from ossicle.processor import AudioProcessor

NANO = {
    "esc10",
    "fsdd_digit",
    "librispeech_gender",
    "emodb_emotion",
    "berklee_instrument",
    "world",
    "scenes",
    "presence",
}
FEW = "esc10,fsdd_digit,emodb_emotion"
MODEL = {"name": "oracle", "hash": "0123456789"}


def test_a_model_that_hears_gets_everything_right(setting, oracle, tmp_path):
    result = run_suite(setting, oracle, out=tmp_path, model=MODEL)
    assert set(result["tasks"]) == NANO
    assert result["absent"] == []
    for name, task in result["tasks"].items():
        assert "error" not in task, task
        assert task["value"] == 1.0, (name, task)
        assert task["unparsed"] == 0
        assert task["gain"] == pytest.approx(1.0 - max(task["blind"], task["shuffled"], task["majority"]))
        assert task["gain"] >= 0.4, (name, task)
        assert task["listens"], name
    assert set(result["tasks"]["world"]["rows"]) == {"what", "first", "last", "count", "loudness", "pitch"}
    assert result["refusal"]["value"] == 1.0
    assert result["refusal"]["n"] >= 100
    assert result["refusal"]["within_skills"]["value"] == 0.0
    card = read_card(Path(result["card"]))
    assert card["decoding"] == "greedy, whole vocabulary"
    assert card["asked"]["esc10"]["sound"]["prompts"]
    assert "| esc10 | accuracy | 1.000" in (tmp_path / "card.md").read_text()


def test_a_deaf_model_is_caught(setting, tmp_path):
    result = run_suite(setting, Deaf(), out=tmp_path, model=MODEL)
    for task in result["tasks"].values():
        assert not task["listens"]
        assert task["gain"] <= 0.0
    assert result["refusal"]["value"] == 0.0


def test_a_run_that_stopped_goes_on_and_answers_are_asked_once(setting, built, tmp_path):
    setting = replace(setting, suite=FEW)

    class Dying(Oracle):
        def answer(self, items, **settings):
            if self.asked > 30:
                raise KeyboardInterrupt
            return super().answer(items, **settings)

    dying = Dying(built.built)
    with pytest.raises(KeyboardInterrupt):
        run_suite(setting, dying, out=tmp_path, model=MODEL)
    with (tmp_path / "answers.jsonl").open("a") as file:
        file.write('{"key": "torn')
    second = Oracle(built.built)
    result = run_suite(setting, second, out=tmp_path, model=MODEL)
    fresh = Oracle(built.built)
    run_suite(setting, fresh, out=tmp_path / "fresh", model=MODEL)
    assert second.asked == fresh.asked - dying.asked
    assert result["tasks"]["esc10"]["value"] == 1.0
    third = Oracle(built.built)
    run_suite(setting, third, out=tmp_path, model=MODEL)
    assert third.asked == 0, "scoring again must not ask the model"


def test_an_answer_may_hold_any_character_and_a_torn_header_is_no_run(tmp_path):
    path, request = tmp_path / "answers.jsonl", Request(task="t", audio="a", question="what\u2028now?")
    path.write_text('{"header": {"mod')
    AnswerStore(path, MODEL).add([request], ["one\u2028two\u2029three\x85four"])
    assert AnswerStore(path, MODEL)[request] == "one\u2028two\u2029three\x85four"
    assert read_header(path) == MODEL


def test_answers_of_another_model_are_not_mixed_in(setting, oracle, tmp_path):
    setting = replace(setting, suite=FEW)
    run_suite(setting, oracle, out=tmp_path, model=MODEL)
    with pytest.raises(DataError, match=r"another run \(model differ"):
        run_suite(setting, oracle, out=tmp_path, model={"name": "other"})


def test_a_crashed_task_is_an_error_not_a_missing_row(setting, built, tmp_path):
    setting = replace(setting, suite=FEW)

    class Crashing(Oracle):
        def answer(self, items, **settings):
            if any("emotion" in question for _, question in items):
                raise RuntimeError("boom")
            return super().answer(items, **settings)

    result = run_suite(setting, Crashing(built.built), out=tmp_path, model=MODEL)
    assert set(result["tasks"]) == set(FEW.split(","))
    assert result["tasks"]["emodb_emotion"]["error"] == "RuntimeError: boom"
    assert result["tasks"]["esc10"]["value"] == 1.0


@pytest.mark.parametrize(
    ("mode", "transcribe"), [("joint", "ctc"), ("audio_only", ""), ("text_only", "ctc"), ("joint", "")]
)
def test_a_mode_decides_what_of_a_clip_the_model_gets(mode, transcribe, tiny_root, tmp_path):
    from ossicle.inference.engine import load

    engine, got = load("nano"), {}
    alone = Setting(root=tiny_root, suite="fsdd_digit", limit=10, input_mode=mode, transcribe=transcribe)
    hearing = alone.hearing()
    assert (hearing.transcriber is not None) == bool(transcribe)
    engine.hearing = replace(hearing, transcriber=(lambda _: "nine") if transcribe else None)
    answer = engine.answer

    class Noting:
        def answer(self, items, **options):
            said = answer(items, **options)
            got.update(
                {question: found for (wave, question), found in zip(items, said, strict=True) if wave is not None}
            )
            return said

    specs = [spec.model_copy(update={"suites": []}) for spec in suite_specs("fsdd_digit")]  # no questions to decline
    result = run_suite(alone, Noting(), out=tmp_path, model=MODEL, specs=specs)
    assert "error" not in result["tasks"]["fsdd_digit"]
    assert got
    assert all((found.audio_tokens > 0) == (mode != "text_only") for found in got.values())
    assert {found.transcript for found in got.values()} == {"nine" if transcribe else ""}
    assert read_card(Path(result["card"]))["setting"]["input_mode"] == mode


def test_answers_can_be_drawn_as_ltu_as_draws_them(tiny_root, tmp_path):
    from ossicle.inference.drawing import DRAWINGS
    from ossicle.inference.engine import load

    engine, asked = load("nano"), []
    engine.drawing = DRAWINGS["ltu"]
    answer = engine.answer
    engine.answer = lambda items, **options: asked.append(options) or answer(items, **options)
    alone = Setting(root=tiny_root, suite="fsdd_digit", limit=2, decoding="ltu", controls=False)
    specs = [spec.model_copy(update={"suites": []}) for spec in suite_specs("fsdd_digit")]  # no questions to decline
    card = read_card(Path(run_suite(alone, engine, out=tmp_path / "a", model=MODEL, specs=specs)["card"]))
    again = read_card(Path(run_suite(alone, engine, out=tmp_path / "b", model=MODEL, specs=specs)["card"]))
    assert card["answers"] == again["answers"]
    assert card["setting"]["decoding"] == "ltu"
    assert card["decoding"] == "ltu: " + ", ".join(
        f"{key} {value}" for key, value in DRAWINGS["ltu"].model_dump(exclude_defaults=True).items()
    )
    assert "temperature 0.1, top_k 500" in card["decoding"]
    assert f"- decoding: {card['decoding']}; normaliser" in (tmp_path / "a" / "card.md").read_text()
    drawn = {
        "do_sample": True,
        "temperature": 0.1,
        "top_k": 500,
        "top_p": 0.95,
        "repetition_penalty": 1.1,
        "num_beams": 1,
    }
    assert asked
    assert all(options == {**drawn, "max_new_tokens": 400} for options in asked)
    with pytest.raises(ConfigError, match="greedy"):
        replace(alone, decoding="gredy").check()


def test_progress_knows_how_many_questions_there_are_and_leaves_stdout_alone(setting, oracle, tmp_path, capsys):
    result = run_suite(replace(setting, suite="fsdd_digit", progress=True), oracle, out=tmp_path, model=MODEL)
    said = capsys.readouterr()
    asked = 3 * result["tasks"]["fsdd_digit"]["n"]  # with its clip, without, with another
    assert f"0/{asked} [" in said.err
    assert f"{asked}/{asked} [" in said.err
    assert said.out == ""


def test_absent_sets_are_named(setting, oracle, tiny_root, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "fsdd").symlink_to(tiny_root / "fsdd")
    result = run_suite(Setting(suite="nano", root=tmp_path / "root", limit=8), Deaf(), out=tmp_path, model=MODEL)
    assert result["absent"] == ["berklee_sounds", "emodb_2s", "esc10", "librispeech_gender251"]
    assert set(result["tasks"]) == {"fsdd_digit", "world", "scenes"}
    card = read_card(Path(result["card"]))
    assert {a["set"]: a["licence"] for a in card["absent"]}["emodb_2s"] == "CC0 1.0"


def test_verify_says_whether_a_card_reproduces(setting, oracle, tmp_path):
    setting = replace(setting, suite=FEW)
    card = read_card(Path(run_suite(setting, oracle, out=tmp_path, model=MODEL)["card"]))
    again = verify_card(card, setting, oracle, out=None, model=MODEL)
    assert again["reproduces"] == "bit for bit"
    deaf = verify_card(card, setting, Deaf(), out=None, model=MODEL)
    assert deaf["reproduces"] == "no"
    assert deaf["tasks"]["esc10"]["verdict"] == "no"


def test_compare_finds_the_better_model(setting, oracle, tmp_path):
    setting = replace(setting, suite=FEW)
    good = read_card(Path(run_suite(setting, oracle, out=tmp_path / "a", model=MODEL)["card"]))
    bad = read_card(Path(run_suite(setting, Deaf(), out=tmp_path / "b", model=MODEL)["card"]))
    result = compare_cards(bad, good)
    assert set(result["tasks"]) == set(FEW.split(","))
    for name, task in result["tasks"].items():
        expected = good["tasks"][name]["value"] - bad["tasks"][name]["value"]
        assert task["delta"] == pytest.approx(expected, abs=1e-6)
        assert task["better"] == "second"
        assert task["p"] < 0.05
    same = compare_cards(good, good)
    assert all(task["delta"] == 0 and task["p"] == 1.0 for task in same["tasks"].values())


def test_scenes_of_another_seed_are_other_questions_under_the_same_keys(tiny_root, tmp_path):
    cards = []
    for seed in (0, 1):
        setting = Setting(suite="world,librispeech_gender", root=tiny_root, limit=12, seed=seed, controls=False)
        specs = [spec.model_copy(update={"suites": []}) for spec in suite_specs(setting.suite)]
        result = run_suite(setting, Deaf(), out=tmp_path / str(seed), model=MODEL, specs=specs)
        cards.append(read_card(Path(result["card"])))
    keys = [{row: [mark[0] for mark in marks] for row, marks in card["marks"]["world"].items()} for card in cards]
    assert keys[0] == keys[1]
    found = compare_cards(*cards)
    assert found["unshared"] == ["world"]
    assert (found["tasks"]["librispeech_gender"]["n"], found["tasks"]["librispeech_gender"]["left_out"]) == (12, 0)
    assert "all of world" in comparison_table(found)
    same = compare_cards(cards[0], {key: value for key, value in cards[0].items() if key != "items"})
    assert same["tasks"]["world"]["left_out"] == 0


def test_your_own_task_is_ten_lines(tiny_root, oracle, tmp_path):
    from ossicle.evaluation.task import load_spec

    (tmp_path / "mine.yaml").write_text(
        "task: mine\nsource: {kind: clips, manifest: esc10/manifest.jsonl, cluster: freesound_id}\n"
        "rows:\n  thing:\n    questions: ['What is it?']\n    truth: label\n    parser: label\n"
    )
    spec = load_spec(tmp_path / "mine.yaml")
    result = run_suite(Setting(suite="mine", root=tiny_root), Deaf(), out=tmp_path / "o", model=MODEL, specs=[spec])
    assert result["tasks"]["mine"]["n"] == 30
    assert result["tasks"]["mine"]["majority_from"] == "set"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rows: {}", "mine.yaml: 'task' is missing"),
        ("task: x\nrows: {a: {truth: y}}", "row 'a' asks nothing"),
        ("task: x\nrows: {a: {ask: sound, prser: label}}", "unknown key .*did you mean 'parser'"),
        ("- 1", "expected a mapping"),
    ],
)
def test_mistakes_in_a_task_file_are_named(tmp_path, text, message):
    from ossicle.evaluation.task import load_spec

    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_spec(tmp_path / "mine.yaml")


def test_unknown_suites_and_roots_are_named(tmp_path):
    with pytest.raises(ConfigError, match="no suite or task 'nana'; did you mean 'nano'"):
        run_suite(Setting(suite="nana", root=tmp_path), Deaf(), out=tmp_path, model=MODEL)
    with pytest.raises(DataError, match="no such folder"):
        run_suite(Setting(suite="nano", root=tmp_path / "x"), Deaf(), out=tmp_path, model=MODEL)
    with pytest.raises(DataError, match="none of the sets of 'clips' is here"):
        run_suite(Setting(suite="clips", root=tmp_path), Deaf(), out=tmp_path, model=MODEL)


def test_a_set_with_missing_files_is_refused_with_counts(tmp_path):
    folder = tmp_path / "esc10"
    folder.mkdir()
    (folder / "manifest.jsonl").write_text(json.dumps({"path": "gone.wav", "label": "rain"}) + "\n")
    result = run_suite(Setting(suite="esc10", root=tmp_path), Deaf(), out=tmp_path / "o", model=MODEL)
    assert "1 × file is missing, of 1" in result["tasks"]["esc10"]["error"]


@pytest.mark.parametrize("breaks", [False, True])
@pytest.mark.parametrize("lengths", [(8, 64), (64, 8)])
def test_a_blind_question_of_two_tasks_gets_the_longer_answer(lengths, breaks, tiny_root, tmp_path):
    from ossicle.evaluation.task import load_spec

    specs, asked = [], []
    for name, length in zip("ab", lengths, strict=True):
        row = f"{{truth: label, parser: label, questions: ['What is it?'], max_new_tokens: {length}}}"
        (tmp_path / name).write_text(f"task: {name}\nsource: {{set: esc10}}\nrows: {{sound: {row}}}\n")
        specs.append(load_spec(tmp_path / name))

    class Listing(Deaf):
        def answer(self, items, *, max_new_tokens, batch_size):
            if breaks and not asked:
                asked.append("broken")
                raise RuntimeError("the first batch breaks")
            asked.extend(max_new_tokens for wave, _ in items if wave is None)
            return super().answer(items, max_new_tokens=max_new_tokens, batch_size=batch_size)

    setting = Setting(suite="a,b", root=tiny_root, limit=3)
    result = run_suite(setting, Listing(), out=tmp_path / "o", model=MODEL, specs=specs)
    assert not [task for task in result["tasks"].values() if "error" in task]
    assert asked == ["broken"] * breaks + [64]


def own_task(tmp_path, labels, rows):
    """Build a task of one's own over clips with these labels."""
    from ossicle.evaluation.task import load_spec

    write_set(tmp_path / "own", [{"label": label, "about": None} for label in labels])
    path = tmp_path / "own.yaml"
    path.write_text(f"task: own\nsource: {{set: own}}\nrows:\n  {rows}\n")
    outcome = Outcome()
    build_tasks(Setting(suite="own", root=tmp_path), [load_spec(path)], outcome)
    return outcome.built["own"]


def test_null_is_no_label(tmp_path):
    row = "sound: {truth: label, parser: labels, metric: precision, questions: ['What is it?']}"
    task = own_task(tmp_path, [*"ab" * 20, None, [None], ["a", None]], row)
    assert task.vocabularies["sound"] == {"a": [], "b": []}
    assert task.skipped == {"no 'label'": 2}
    assert [item.truth for item in task.items] == [*"ab" * 20, ["a"]]
    assert {sound.tags for sound in task.sounds.values()} >= {"label: a", ""}


def test_a_truth_that_no_answer_can_name_is_left_out_and_counted(tmp_path):
    row = "state: {vocabulary: {healthy: [], worn: [used]}, questions: ['How is it?']}"
    task = own_task(tmp_path, [*["healthy", "worn"] * 20, "rusty"], row)
    assert task.skipped == {"'rusty' is no label of row 'state'": 1}
    assert {item.truth for item in task.items} == {"healthy", "worn"}


def test_a_suite_that_there_is_not_is_told_before_a_folder_that_there_is_not(tmp_path, monkeypatch, capsys):
    from ossicle.cli.app import run

    monkeypatch.chdir(tmp_path)
    assert run(["eval", "nano", "--suite", "nope"]) == 2
    assert "no suite or task 'nope'" in capsys.readouterr().err


def test_scoring_a_run_of_an_own_task_again_needs_its_file(tiny_root, tmp_path, monkeypatch, capsys):
    from ossicle.cli.app import run

    few = text_only.questions()[:8]
    monkeypatch.setattr(text_only, "questions", lambda: few)
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(
        "task: mine\nsource: {set: fsdd}\nrows:\n  digit: {truth: label, questions: ['Which digit?']}\n"
    )
    words = ["--root", str(tiny_root), "--out", "run"]
    assert run(["eval", "nano", "--task", "mine.yaml", "--limit", "2", *words]) == 0
    capsys.readouterr()
    assert run(["eval", "--rescore", *words]) == 2
    assert "give --task FILE" in capsys.readouterr().err
    assert run(["eval", "--rescore", "--task", "mine.yaml", *words]) == 0


def test_presence_of_two_labels_is_asked_of_single_clips(tmp_path):
    (spec,) = (spec for spec in suite_specs("nano") if spec.task == "presence")
    write_set(tmp_path / "esc10", [{"label": x} for x in ("dog bark", "rain") * 3])
    with pytest.raises(ConfigError, match="row 'scene' takes three"):
        build(spec, tmp_path, limit=8)
    task, absent = build(spec.model_copy(update={"rows": {"clip": spec.rows["clip"]}}), tmp_path, limit=8)
    assert not absent
    assert sorted(item.truth for item in task.items) == [False] * 4 + [True] * 4
    there = {"dog bark": "barking dog", "rain": "rain"}
    assert all(item.truth == (there[item.content] in item.question) for item in task.items)


def test_a_task_that_cannot_be_built_is_an_error_and_the_others_go_on(tiny_root, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "fsdd").symlink_to(tiny_root / "fsdd")
    write_set(tmp_path / "root" / "esc10", [{"label": "rain"}])
    manifest = tmp_path / "root" / "esc10" / "manifest.jsonl"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"duration_s": None}) + "\n")
    result = run_suite(Setting(suite="esc10,fsdd_digit", root=tmp_path / "root"), Deaf(), out=tmp_path, model=MODEL)
    assert result["tasks"]["esc10"]["error"].startswith("TypeError")
    assert result["tasks"]["fsdd_digit"]["n"] == 20


class Disturbed(Oracle):
    """Hears, but not the clip it is asked about: silence in its place, or always the clip before."""

    def __init__(self, built, how):
        super().__init__(built)
        self.how = how
        self.before = None

    def answer(self, items, **settings):
        waves = [wave for wave, _ in items]
        if self.how == "zeroed":
            heard = [wave and replace(wave, samples=0 * wave.samples) for wave in waves]
        else:
            clips = list({id(wave): wave for wave in waves}.values())
            before = dict(zip(map(id, clips), [self.before, *clips[:-1]], strict=True))
            heard = [before[id(wave)] for wave in waves]
            self.before = clips[-1]
        return super().answer([(wave, question) for wave, (_, question) in zip(heard, items, strict=True)], **settings)


def test_a_model_that_hears_the_wrong_thing_is_flagged_on_every_task(tmp_path, monkeypatch):
    monkeypatch.setattr(composed, "render", cache(composed.render))
    labels = list(vocabularies()["esc10"])
    rng = np.random.default_rng(5)
    write_set(tmp_path / "esc10", [{"label": labels[i]} for i in rng.integers(0, 10, 60)])
    write_set(tmp_path / "emodb_2s", [{"emotion": str(x)} for x in rng.choice(["anger", "fear", "sadness"], 60)])
    write_set(tmp_path / "fsdd", [{"label": int(x), "speaker": "ann"} for x in rng.integers(0, 10, 60)])
    write_set(tmp_path / "librispeech_gender251", [{"gender": str(x)} for x in rng.choice(["male", "female"], 60)])
    write_set(tmp_path / "berklee_sounds", [{"label": str(x)} for x in rng.choice(["piano", "guitar", "drum"], 60)])
    clips = {spec.task for spec in suite_specs("nano")} - {"presence", "world", "scenes"}
    for suite, limit in ((clips, 60), ({"presence"}, 30), ({"world", "scenes"}, 10)):
        setting = Setting(suite=",".join(sorted(suite)), root=tmp_path, limit=limit)
        outcome = Outcome()
        build_tasks(setting, suite_specs(setting.suite), outcome)
        models = {"good": Oracle(outcome.built)}
        models |= {how: Disturbed(outcome.built, how) for how in ("zeroed", "wrong clip")}
        for how, model in models.items():
            out = tmp_path / f"{how}{limit}"
            tasks = run_suite(setting, model, out=out, model=MODEL)["tasks"]
            assert all(task["n"] >= 50 for task in tasks.values())
            assert {name: task["listens"] for name, task in tasks.items()} == dict.fromkeys(suite, how == "good")
            assert ("**no**" in (out / "card.md").read_text()) == (how != "good")


class Counting(Oracle):
    """Hears nothing but how long a clip is, and counts by that."""

    def __init__(self, built):
        super().__init__(built)
        task = built["scenes"]
        self.known = [
            (task.sounds[item.audio].load().duration_s, item.truth) for item in task.items if item.row == "count"
        ]

    def _say(self, wave, question):
        if wave is None or "count" not in self.rows.get(question, ()):
            return "I cannot tell."
        others = [(abs(length - wave.duration_s), truth) for length, truth in self.known if length != wave.duration_s]
        return phrase(min(others)[1])


def test_counting_by_the_length_of_a_clip_is_not_listening(tmp_path):
    labels = list(vocabularies()["esc10"])
    write_set(tmp_path / "esc10", [{"label": labels[i % 10]} for i in range(20)])
    setting = Setting(suite="scenes", root=tmp_path, limit=60)
    outcome = Outcome()
    build_tasks(setting, suite_specs("scenes"), outcome)
    result = run_suite(setting, Counting(outcome.built), out=tmp_path / "o", model=MODEL)
    count = result["tasks"]["scenes"]["rows"]["count"]
    assert count["value"] - max(count["blind"], count["shuffled"], count["majority"]) >= 0.15, "it would seem to listen"
    assert count["length"] >= count["value"] - 0.15
    assert not count["listens"]
    assert not result["tasks"]["scenes"]["listens"]


def test_unreadable_clips_are_counted_and_too_many_fail_the_task(tmp_path):
    labels = list(vocabularies()["esc10"])
    write_set(tmp_path / "esc10", [{"label": labels[i % 10]} for i in range(30)])
    (tmp_path / "esc10" / "audio" / "4.wav").write_bytes(b"nothing")
    result = run_suite(Setting(suite="esc10", root=tmp_path), Deaf(), out=tmp_path / "o", model=MODEL)
    assert result["tasks"]["esc10"]["skipped"] == {"unreadable": 1}
    assert result["tasks"]["esc10"]["n"] == 30
    for answerer in (Deaf(), None):  # resumed, and scored again without a model
        again = run_suite(Setting(suite="esc10", root=tmp_path), answerer, out=tmp_path / "o", model=MODEL)
        assert again["tasks"] == result["tasks"]
    for index in (5, 6):
        (tmp_path / "esc10" / "audio" / f"{index}.wav").write_bytes(b"nothing")
    result = run_suite(Setting(suite="esc10", root=tmp_path), Deaf(), out=tmp_path / "p", model=MODEL)
    assert "3 of 30 clips unreadable" in result["tasks"]["esc10"]["error"]
    again = run_suite(Setting(suite="esc10", root=tmp_path), Deaf(), out=tmp_path / "p", model=MODEL)
    assert again["tasks"] == result["tasks"], "a resumed run knows what it could not hear"


def test_a_run_without_a_folder_gets_one_for_its_setting(setting, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = run_suite(replace(setting, suite="esc10"), Deaf(), out=None, model=MODEL)
    again = run_suite(replace(setting, suite="esc10"), Deaf(), out=None, model=MODEL)
    other = run_suite(replace(setting, suite="esc10", limit=5), Deaf(), out=None, model=MODEL)
    assert first["card"] == again["card"] != other["card"]
    assert first["card"].startswith("evaluations/oracle-esc10-")


def test_recordings_that_were_trained_on_are_found(tiny_root, tmp_path):
    taught = tmp_path / "taught"
    taught.mkdir()
    for index in range(3):
        (taught / f"{index}.wav").write_bytes((tiny_root / "esc10" / "audio" / f"{index}.wav").read_bytes())
    setting = Setting(suite="esc10,emodb_emotion", root=tiny_root, trained_on=(taught,))
    card = read_card(Path(run_suite(setting, Deaf(), out=tmp_path / "o", model=MODEL)["card"]))
    assert card["contamination"] == {"emodb_emotion": {"seen": 0, "of": 14}, "esc10": {"seen": 3, "of": 30}}
    assert "esc10: 3 of 30 recordings were trained on" in (tmp_path / "o" / "card.md").read_text()


def test_scoring_again_needs_no_model_and_another_parser_may_read(setting, built, tmp_path):
    setting = replace(setting, suite="esc10")

    class Misspelt:
        def answer(self, items, **_):
            return [Said("helicopterr") for _ in items]

    first = run_suite(setting, Misspelt(), out=tmp_path, model=MODEL)
    assert first["tasks"]["esc10"]["unparsed"] == first["tasks"]["esc10"]["n"]
    again = run_suite(setting, None, out=tmp_path, model={})
    assert again["tasks"] == first["tasks"]
    card = read_card(Path(again["card"]))
    assert card["model"] == MODEL
    assert card["parser_embedding"] is None
    read = run_suite(replace(setting, embedder="hash"), None, out=tmp_path, model={})
    card = read_card(Path(read["card"]))
    assert card["parser_embedding"]["embedder"] == "hash"
    assert read["tasks"]["esc10"]["read_by_embedding"] == 12
    assert read["tasks"]["esc10"]["unparsed"] == 0
    with pytest.raises(DataError, match="other questions or recordings"):
        run_suite(replace(setting, limit=5), None, out=tmp_path, model={})
    with pytest.raises(DataError, match=r"no answers\.jsonl to score"):
        run_suite(setting, None, out=tmp_path / "none", model={})


def test_skill_in_text_alone_before_and_after(tiny_root, tmp_path):
    from ossicle.evaluation.text_only import questions

    right = {q: options[0] for q, options in questions()}

    class Knowing:
        def answer(self, items, **_):
            return [Said(right.get(question.split(" Choose one")[0], "?")) for _, question in items]

    class First:
        def answer(self, items, **_):
            return [Said("(A)") for _ in items]

    setting = Setting(suite="esc10", root=tiny_root, limit=5, text_only=True)
    card = read_card(Path(run_suite(setting, First(), out=tmp_path / "a", model=MODEL)["card"]))
    assert card["text_only"]["value"] == pytest.approx(1 / 3), "a liked letter gains nothing"
    assert card["text_only"]["before"] is None
    assert "before training: not measured" in (tmp_path / "a" / "card.md").read_text()
    setting = replace(setting, before=(Knowing(), "base"))
    card = read_card(Path(run_suite(setting, First(), out=tmp_path / "b", model=MODEL)["card"]))
    assert card["text_only"]["before"]["value"] == 1.0
    assert card["text_only"]["forgotten"] == pytest.approx(2 / 3)
    assert card["text_only"]["p"] < 1e-6
    assert "forgotten 0.667" in (tmp_path / "b" / "card.md").read_text()


def test_training_manifests_are_compared_too(tiny_root, tmp_path):
    audio = tiny_root / "esc10" / "audio"
    taught = tmp_path / "train.jsonl"
    digest = hashlib.sha256((audio / "7.wav").read_bytes()).hexdigest()
    rows = [{"messages": [], "audios": [str(audio / "0.wav")]}, {"path": str(audio / "1.wav")}, {"sha256": digest}]
    rows[0]["title"] = "one\u2028two"
    taught.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    setting = Setting(suite="esc10", root=tiny_root, trained_on=(taught,))
    card = read_card(Path(run_suite(setting, Deaf(), out=tmp_path / "o", model=MODEL)["card"]))
    assert card["contamination"] == {"esc10": {"seen": 3, "of": 30}}
    taught.write_text(json.dumps({"path": "gone.wav"}) + "\n")
    with pytest.raises(DataError, match="none of its 1 recordings is there"):
        run_suite(setting, Deaf(), out=tmp_path / "p", model=MODEL)


class Zeroed(AudioProcessor):
    """Hears silence of the right length."""

    def audio_inputs(self, *args, **kwargs):
        inputs = super().audio_inputs(*args, **kwargs)
        return {**inputs, "audio_values": 0 * inputs["audio_values"]} if inputs else inputs


class Other(AudioProcessor):
    """Hears some other clip that it was handed, cut to the clip's own length so that nothing but the sound is wrong."""

    def audio_inputs(self, audio, **kwargs):
        pool = self.__dict__.setdefault("pool", [])
        rng = np.random.default_rng(len(pool))
        pool += audio
        heard = []
        for clip in audio:
            others = [one.samples for one in pool if one is not clip] or [np.zeros(1, np.float32)]
            heard.append(replace(clip, samples=np.resize(others[rng.integers(len(others))], clip.samples.shape)))
        return super().audio_inputs(heard, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(spec.task for spec in suite_specs("nano")))
def test_nano_made_deaf_inside_its_processor_is_flagged(name, data_root, tmp_path):
    """The page docs/deaf.md: the shipped model with another processor, everything else as it is."""
    from ossicle.inference.engine import load

    engine = load("nano", device="cpu")
    specs = [spec.model_copy(update={"suites": []}) for spec in suite_specs(name)]  # no questions to decline
    setting = Setting(suite=name, root=data_root, limit=60)
    found = {}
    for how, kind in (("as shipped", AudioProcessor), ("zeroed", Zeroed), ("wrong clip", Other)):
        engine.processor.__class__ = kind
        result = run_suite(setting, engine, out=tmp_path / how, model={**MODEL, "how": how}, specs=specs)
        task = found[how] = result["tasks"][name]
        cells = [f"{task[key]:.3f}" for key in ("value", "blind", "shuffled", "majority", "gain")]
        listens = "yes" if task["listens"] else "no"
        print(f"| {name} | {how} | {task['n']} | {' | '.join(cells)} | {listens} |", flush=True)
    assert found["as shipped"]["n"] >= 50
    assert not found["zeroed"]["listens"]
    assert not found["wrong clip"]["listens"]
    assert found["as shipped"]["listens"]


def test_rows_in_any_style_name_what_was_trained_on(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"a")
    known = {hashlib.sha256(b"a").hexdigest()}
    manifest = tmp_path / "m.jsonl"
    for row in (
        {"audio_filepath": "a.wav", "text": "hi"},
        {"source": "a.wav", "target": "hi", "prompt": "Say it."},
        {"audios": [{"path": "a.wav", "start_s": 1, "end_s": 2}]},
    ):
        manifest.write_text(json.dumps(row))
        assert file_hashes([manifest]) == known
    manifest.write_text('{"wav": "a.wav"}')
    with pytest.raises(DataError, match=r"m\.jsonl:1: names no recording"):
        file_hashes([manifest])
