"""The papers' protocol, choices, predictions from a file, remote models and judges, the report, the command line."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import soundfile

from evaluation.conftest import write_set
from evaluation.doubles import Deaf, Oracle, Said
from evaluation.tiny_lms import text_lm
from ossicle.errors import ConfigError, DataError
from ossicle.evaluation import text_only
from ossicle.evaluation.card import read_card
from ossicle.evaluation.embedding import cosine, embedder_named, hash_embed, nearest
from ossicle.evaluation.predictions import write_questions
from ossicle.evaluation.remote import Remote, remote_named
from ossicle.evaluation.run import Outcome, Setting, build_tasks, run_suite
from ossicle.evaluation.task import HERE, shipped_specs, suite_specs

MODEL = {"name": "oracle", "hash": ""}


def built_of(setting):
    outcome = Outcome()
    build_tasks(setting, suite_specs(setting.suite), outcome)
    return outcome.built


def test_the_papers_score_stands_beside_ours_with_its_quirks(tmp_path):
    root = tmp_path / "root"
    write_set(
        root / "voxceleb2", [{"gender": ("male", "female")[i % 2], "age": 20 + i, "speaker": str(i)} for i in range(12)]
    )
    write_set(root / "gtzan", [{"label": x} for x in ("Rock", "Jazz", "Pop") for _ in range(3)])
    setting = Setting(suite="voxceleb2_gender,voxceleb2_age,gtzan_genre", root=root, protocol="paper")
    result = run_suite(setting, Oracle(built_of(setting)), out=tmp_path / "o", model=MODEL)
    gender, age, genre = (result["tasks"][x] for x in ("voxceleb2_gender", "voxceleb2_age", "gtzan_genre"))
    assert gender["paper"]["gender"]["metric"] == "macro_f1"
    assert gender["paper"]["gender"]["value"] == 1.0
    assert gender["paper"]["gender"]["quirks"]
    assert age["value"] == 0.0
    assert age["paper"]["age"]["value"] == 0.0
    assert genre["paper"]["genre"]["value"] == 1.0
    assert genre["paper"]["genre"]["embedder"] == "hash"
    plain = run_suite(Setting(suite="voxceleb2_gender", root=root), Deaf(), out=tmp_path / "p", model=MODEL)
    assert "paper" not in plain["tasks"]["voxceleb2_gender"], "quirks are off by default"


class Ideal(Oracle):
    """Hears everything, and answers in the forms that the papers' models were taught."""

    def _say(self, wave, question):
        known = self.truths.get(wave.samples.tobytes(), {}) if wave is not None else {}
        truth = next(iter(known.values()), "nothing")
        if isinstance(truth, list) and " " in truth[0]:
            return f"Audio caption: {truth[0]}."
        if isinstance(truth, list):
            return f"Labels: {'; '.join(truth)}"
        return truth if "transcript" in question or "spoken" in question else f"Audio caption: {truth}"


PAPER_TASKS = {
    "esc50": ("esc50", "label", ["dog", "rain", "sea_waves"], "accuracy"),
    "audiocaps": ("audiocaps", "captions", [["a dog barks", "a bark is heard"], ["heavy rain falls"]], "cider_d"),
    "clotho": ("clotho", "captions", [["water drips slowly", "a tap drips"], ["a door creaks"]], "cider_d"),
    "gtzan_genre": ("gtzan", "label", ["Rock", "Jazz"], "accuracy"),
    "fma_genre": ("fma_small", "label", ["Folk", "Electronic", "Hip-Hop"], "accuracy"),
    "voxceleb2_age": ("voxceleb2", "age", [34, 60, 21], "mae"),
    "voxceleb2_gender": ("voxceleb2", "gender", ["male", "female"], "macro_f1"),
    "iemocap_emotion": ("iemocap", "emotion", ["neutral", "happy", "sad", "angry"], "accuracy"),
    "librispeech_clean_wer": ("librispeech_test_clean", "transcript", ["hello world", "good bye"], "wer"),
    "vocalsound": ("vocalsound", "label", ["Cough", "Throat clearing", "Sniff"], "accuracy"),
    "tut2017": ("tut2017", "label", ["city_center", "cafe/restaurant", "beach"], "accuracy"),
    "dcase2017": ("dcase2017_task4", "label", ["Air horn, truck horn", "Ambulance (siren)", "Bus"], "micro_f1"),
    "beijing_opera": ("beijing_opera", "label", ["small gong", "Large gong", "Clapper-drum"], "accuracy"),
    "vggsound": ("vggsound", "label", ["hail", "playing violin, fiddle", "dog barking"], "accuracy"),
    "audioset_labels": ("audioset_eval", "labels", [["Speech", "Dog"], ["Rain"], ["Wind"]], "map"),
    "fsd50k": ("fsd50k", "labels", [["Chirp_and_tweet", "Bark"], ["Purr"], ["Hiss"]], "map"),
}
"""Task → folder, column, truths as the sets write them, and the number its script prints."""


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize("task", sorted(PAPER_TASKS))
def test_every_task_of_the_papers_runs_from_its_manifest_to_the_papers_number(task, tmp_path):
    folder, column, truths, metric = PAPER_TASKS[task]
    write_set(tmp_path / folder, [{column: truths[i % len(truths)]} for i in range(3 * len(truths))])
    setting = Setting(suite=task, root=tmp_path, protocol="paper")
    result = run_suite(setting, Ideal(built_of(setting)), out=tmp_path / "o", model=MODEL)["tasks"][task]
    assert "error" not in result
    assert result["gain"] > 0
    (paper,) = result["paper"].values()
    assert (paper["metric"], paper["n"]) == (metric, 3 * len(truths))
    assert paper["quirks"]
    if metric == "cider_d":
        assert paper["value"] > 2.0
    else:
        assert result["value"] == pytest.approx(0.0 if metric in ("mae", "wer") else 1.0)
        # Two cosines added up exceed one of 1: on the two classes of one label the clips with two labels come first,
        # so that their average precision is 3 of 6.
        expected = {"mae": 0.0, "wer": 0.0, "map": (1 + 1 + 0.5 + 0.5) / 4}.get(metric, 1.0)
        assert paper["value"] == pytest.approx(expected)


def test_the_papers_tasks_are_all_run_above():
    scored = {spec.task for spec in shipped_specs().values() for row in spec.rows.values() if row.paper}
    assert scored == set(PAPER_TASKS)


def test_every_shipped_task_says_where_its_clips_come_from():
    for spec in shipped_specs().values():
        assert spec.origin, spec.task
        assert spec.licence, spec.task
        assert spec.suites, spec.task
        assert "unseen" not in spec.about, "a set is taken whole, whoever its model was taught by"


def test_the_embedder_finds_the_nearest_class_and_ties_take_the_first():
    classes = hash_embed(["sound of rain", "sound of a dog", "sound of a dog"])
    scores = cosine(hash_embed(["Sound of a DOG"]), classes)
    assert scores[0, 1] == pytest.approx(1.0)
    assert nearest(scores[0]) == 1
    assert (cosine(np.zeros((1, 4)), np.ones((2, 4))) == 0).all()
    with pytest.raises(ConfigError, match="expected 'hash', a folder"):
        embedder_named("nowhere")


def test_predictions_from_a_file(tiny_root, tmp_path):
    setting = Setting(suite="esc10", root=tiny_root, controls=False)
    built = built_of(setting)
    assert write_questions(tmp_path / "q.jsonl", built.values()) == 30
    truth = {item.key: item.truth for item in built["esc10"].items}
    rows = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    assert all(Path(row["audio"]).is_file() for row in rows)
    answers = [{"id": row["id"], "answer": f"It\u2028is {truth[row['id']]}."} for row in rows]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in answers))
    result = run_suite(setting, path, out=tmp_path / "o", model=MODEL)
    assert result["tasks"]["esc10"]["value"] == 1.0
    wrong = [{"id": "esc10/sound/no.wav", "answer": "x"}, *answers[1:]]
    path.write_text("".join(json.dumps(row) + "\n" for row in wrong))
    with pytest.raises(DataError, match=r"1 missing \(esc10/sound/audio/0.wav\); 1 extra \(esc10/sound/no.wav\)"):
        run_suite(setting, path, out=tmp_path / "p", model=MODEL)
    path.write_text("".join(json.dumps(row) + "\n" for row in [*answers, answers[3] | {"answer": "x"}]))
    with pytest.raises(DataError, match=r"the ids do not fit: 1 twice \(esc10/sound/audio/3.wav\)$"):
        run_suite(setting, path, out=tmp_path / "p", model=MODEL)
    path.write_text("".join(json.dumps(row) + "\n" for row in answers[8:]))
    with pytest.raises(DataError, match=r"8 missing \((esc10/sound/audio/\d+.wav, ){5}…\)$"):
        run_suite(setting, path, out=tmp_path / "p", model=MODEL)
    path.write_text(json.dumps(answers[0]) + '\n{"id": "x"}\n')
    with pytest.raises(DataError, match=r'a.jsonl:2: expected \{"id": …, "answer": …\}'):
        run_suite(setting, path, out=tmp_path / "p", model=MODEL)


def test_questions_written_again_have_sounds_of_their_own(tiny_root, tmp_path):
    for seed in (0, 1):
        built = built_of(Setting(suite="presence", root=tiny_root, limit=3, seed=seed))
        write_questions(tmp_path / "q.jsonl", built.values())
    task = built["presence"]
    for item in task.items:
        samples, _ = soundfile.read(tmp_path / "q" / "presence" / f"{item.audio}.flac", dtype="float32")
        np.testing.assert_allclose(samples, task.sounds[item.audio].load().samples, atol=1e-3)
    assert not [path for path in (tmp_path / "q").rglob("*") if path.is_file() and path.suffix != ".flac"]


class Server(BaseHTTPRequestHandler):
    """Says yes to a judge's question about a right answer, names a dog to anything with audio."""

    asked: ClassVar[list[dict]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append(body)
        content = body["messages"][0]["content"]
        if isinstance(content, str):
            lines = dict(line.split(": ", 1) for line in content.splitlines() if ": " in line)
            told = lines.get("Right answer")
            text = "Yes." if told is None or told.split()[0] in lines["Their answer"] else "No."
            text = "Perhaps." if lines["Their answer"] == "Hmm." else text
        else:
            text = "A dog." if content[0]["type"] == "input_audio" else "I cannot hear anything."
        reply = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Server.asked.clear()
    http = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{http.server_port}/v1"
    http.shutdown()
    http.server_close()


def test_a_model_and_a_judge_behind_an_address(tiny_root, tmp_path, server):
    judge = Remote(url=server, model="judge")
    setting = Setting(suite="esc10", root=tiny_root, limit=10, judge=judge)
    result = run_suite(setting, remote_named(f"{server}#deaf-dog"), out=tmp_path, model=MODEL)
    card = read_card(Path(result["card"]))
    assert card["judge"]["esc10"]["agreement"] == 1.0
    assert card["judge"]["esc10"]["value"] == pytest.approx(result["tasks"]["esc10"]["value"])
    assert card["judge"]["esc10"]["prompt"]
    assert card["judge"]["esc10"]["following_rate"] == 1.0
    assert card["judge"]["esc10"]["following_prompt"]
    before = len(Server.asked)
    run_suite(setting, remote_named(f"{server}#deaf-dog"), out=tmp_path, model=MODEL)
    assert len(Server.asked) == before, "raw replies are kept"
    kept = (tmp_path / "judge.jsonl").read_text()
    old = json.dumps({"prompt": json.loads(kept.splitlines()[0])["prompt"], "reply": "No."}) + "\n"
    (tmp_path / "judge.jsonl").write_text(kept + old + '{"url": "torn')
    again = run_suite(setting, remote_named(f"{server}#deaf-dog"), out=tmp_path, model=MODEL)
    assert len(Server.asked) == before
    assert read_card(Path(again["card"]))["judge"]["esc10"]["agreement"] == 1.0, "nobody's reply is not taken"
    other = replace(setting, judge=Remote(url=server, model="another"))
    run_suite(other, remote_named(f"{server}#deaf-dog"), out=tmp_path, model=MODEL)
    asked = [body["model"] for body in Server.asked[before:]]
    assert asked == ["another"] * kept.count("\n"), "another judge answers for itself"


class Mumbling(Oracle):
    """Right on most sounds, of two minds on two, and wordless on one."""

    def _say(self, wave, question):
        said = super()._say(wave, question)
        if "clock tick" in said or "rain" in said:
            return "A clock or rain."
        return "Hmm." if "dog bark" in said else said


def test_a_judge_that_disagrees_or_does_not_decide_is_counted(tiny_root, tmp_path, server):
    setting = Setting(suite="esc10", root=tiny_root, judge=Remote(url=server, model="judge"), controls=False)
    result = run_suite(setting, Mumbling(built_of(setting)), out=tmp_path, model=MODEL)
    assert result["tasks"]["esc10"]["value"] == pytest.approx(21 / 30)
    judged = read_card(Path(result["card"]))["judge"]["esc10"]
    # of 30 clips, 3 of each sound: dogs are undecided, the parser reads nothing in "a clock or rain", the judge does
    assert (judged["n"], judged["undecided"], judged["following_undecided"]) == (30, 3, 3)
    assert judged["value"] == pytest.approx(27 / 30)
    assert judged["agreement"] == pytest.approx(21 / 27)
    assert judged["following_rate"] == pytest.approx(27 / 30)
    replies = [json.loads(line) for line in (tmp_path / "judge.jsonl").read_text().splitlines()]
    assert {reply["reply"] for reply in replies} == {"Yes.", "Perhaps."}


def test_a_judge_agrees_with_small_errors_not_with_large_ones(tmp_path, server):
    root = tmp_path / "root"
    write_set(root / "librispeech_other100", [{"transcript": "hello small world", "speaker": str(i)} for i in range(6)])
    setting = Setting(suite="librispeech_wer", root=root, judge=Remote(url=server, model="judge"), controls=False)

    class Hearing:
        def answer(self, items, **_):
            return [Said("hello small word") for _ in items]

    card = read_card(Path(run_suite(setting, Hearing(), out=tmp_path / "o", model=MODEL)["card"]))
    assert card["tasks"]["librispeech_wer"]["value"] == pytest.approx(1 / 3)
    assert card["judge"]["librispeech_wer"]["agreement"] == 1.0


def test_a_server_that_is_not_there_is_one_line():
    with pytest.raises(DataError, match="expected an OpenAI-compatible server with 'x'"):
        Remote(url="http://127.0.0.1:9/v1", model="x").answer([(None, "?")], max_new_tokens=4)
    with pytest.raises(ConfigError, match="no model named"):
        remote_named("https://host/v1")


def test_verify_names_what_differs(tiny_root, tmp_path, monkeypatch, capsys):
    from ossicle.cli.app import run

    few = text_only.questions()[:8]
    monkeypatch.setattr(text_only, "questions", lambda: few)
    monkeypatch.chdir(tmp_path)
    shipped = (HERE / "fsdd_digit.yaml").read_text(encoding="utf-8")
    Path("own.yaml").write_text(shipped.replace("suites: [nano]", ""))  # of no suite: no questions to decline
    own = ["eval", "nano", "--task", "own.yaml", "--root", str(tiny_root)]
    assert run([*own, "--limit", "3", "--out", "first"]) == 0
    card = next(Path("first").glob("*.json"))
    verify = [*own, "--verify", str(card)]
    capsys.readouterr()
    assert run(verify) == 0
    assert capsys.readouterr().out.strip() == "reproduces: bit for bit"
    told = json.loads(card.read_text())
    told["marks"]["fsdd_digit"] = []
    told["tasks"]["fsdd_digit"] |= {"value": 0.9, "ci95": [0.8, 1.0]}
    told["dataset"] = "others"
    card.write_text(json.dumps(told))
    assert run(verify) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0] == "reproduces: no (not the card's: dataset)"
    assert said[1].startswith("  fsdd_digit: 0.900 on the card, 0.")
    assert said[1].endswith("now: no")


def test_the_command_line_scores_predictions_and_compares(tiny_root, tmp_path, capsys, monkeypatch):
    from ossicle.cli.app import run

    monkeypatch.chdir(tmp_path)
    assert run(["eval", "--suite", "esc10", "--root", str(tiny_root), "--questions-out", "q.jsonl", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["questions"] == 30
    rows = [json.loads(line) for line in Path("q.jsonl").read_text().splitlines()]
    for name, text in (("rain", "Rain."), ("dog", "A dog.")):
        Path(f"{name}.jsonl").write_text("".join(json.dumps({"id": r["id"], "answer": text}) + "\n" for r in rows))
        command = [
            "eval",
            "--suite",
            "esc10",
            "--root",
            str(tiny_root),
            "--predictions",
            f"{name}.jsonl",
            "--out",
            name,
        ]
        assert run([*command, "--json"]) == 0
        printed = capsys.readouterr().out
        Path(f"{name}.json").write_text(printed)
        result = json.loads(printed)
        assert result["tasks"]["esc10"]["value"] == pytest.approx(0.1)
        assert set(result) == {"tasks", "absent", "card"}
    assert run(["compare", "rain/card.json", "dog/card.json", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["tasks"]["esc10"]
    assert {"delta", "ci95", "p", "smallest_detectable"} <= set(found)
    assert found["delta"] == 0.0
    assert run(["compare", "rain.json", "dog.json", "--json"]) == 0, "what eval printed leads to its card"
    assert json.loads(capsys.readouterr().out)["tasks"]["esc10"] == found
    assert run(["compare", "rain/card.json", "q.jsonl"]) == 2
    assert "cannot read the card" in capsys.readouterr().err
    assert run(["eval", "--suite", "esc11", "--root", str(tiny_root)]) == 2
    assert "did you mean 'esc10'" in capsys.readouterr().err


class Embeddings(BaseHTTPRequestHandler):
    """An `/embeddings` endpoint that hashes words, and answers out of order."""

    asked: ClassVar[list[tuple[str, str, dict]]] = []

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers["Authorization"], body))
        rows = [{"index": i, "embedding": v.tolist()} for i, v in enumerate(hash_embed(body["input"]))]
        reply = json.dumps({"data": rows[::-1]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(reply)))
        self.end_headers()
        self.wfile.write(reply)

    def log_message(self, *_):
        pass


def test_an_embeddings_endpoint_reads_labels_and_is_named_in_the_card(tiny_root, tmp_path):
    http = HTTPServer(("127.0.0.1", 0), Embeddings)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    Embeddings.asked.clear()
    url = f"http://127.0.0.1:{http.server_port}/v1"
    try:
        embed = embedder_named(f"{url}#small", key="secret")
        np.testing.assert_allclose(embed(["rain", ""]), hash_embed(["rain", " "]))
        path, key, body = Embeddings.asked[0]
        assert (path, key, body["model"]) == ("/v1/embeddings", "Bearer secret", "small")

        class Misspelt:
            def answer(self, items, **_):
                return [Said("helicopterr") for _ in items]

        setting = Setting(suite="esc10", root=tiny_root, limit=12, embedder=f"{url}#small")
        result = run_suite(setting, Misspelt(), out=tmp_path, model=MODEL)
        assert read_card(Path(result["card"]))["parser_embedding"]["embedder"] == f"{url}#small"
        assert result["tasks"]["esc10"]["read_by_embedding"] == 12
    finally:
        http.shutdown()
        http.server_close()
    with pytest.raises(DataError, match="expected an OpenAI-compatible /embeddings"):
        embed(["rain"])


def test_any_text_encoder_in_a_folder_embeds_and_padding_changes_nothing(tmp_path):
    folder = text_lm(tmp_path / "text")
    embed = embedder_named(str(folder))
    together = embed(["rain", "a dog barks at the door", ""])
    assert together.shape[0] == 3
    np.testing.assert_allclose(together[0], embed(["rain"])[0], atol=1e-5)
    assert np.linalg.norm(together[0] - together[1]) > 1e-3
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no text encoder there"):
        embedder_named(str(tmp_path / "empty"))


def test_rotations_of_a_question_are_no_questions_of_their_own():
    """Four questions lost whole and one won whole are five, not fifteen: 12 against 3 would give .035."""
    before = {"marks": [1] * 12 + [0] * 3, "value": 0.8, "ci95": [0, 1], "n": 15, "unparsed": 0}
    now = {**before, "marks": [0] * 12 + [1] * 3, "value": 0.2, "questions": 5}
    assert text_only.against(now, before, "base")["p"] == pytest.approx(0.375)
