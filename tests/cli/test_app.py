"""The command line's contract: exit codes, one line for errors, one JSON object, nothing heavy for `--help`."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys

import pytest
import typer

from ossicle.cli import VERBS, app, output
from ossicle.errors import UserError


@pytest.fixture
def verb(monkeypatch):
    """Make one verb `probe` out of a function."""

    def make(function):
        inner = typer.Typer()
        inner.command()(function)
        module = type(sys)("ossicle.cli.probe")
        module.app = inner
        monkeypatch.setitem(sys.modules, "ossicle.cli.probe", module)
        monkeypatch.setattr(app, "available", lambda: {"probe": "Test.", "other": "Never imported."})

    return make


def _raise(error):
    def probe() -> None:
        raise error

    return probe


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (UserError("clip 'x.wav' is empty;\n record it again"), 2, "clip 'x.wav' is empty; record it again"),
        (ValueError("odd"), 1, "internal: ValueError: odd"),
        (MemoryError(), 2, "out of memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), 2, "out of memory"),
        (OSError(errno.ENOSPC, "No space left on device", "out/x"), 2, "No space left on device 'out/x'"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_every_failure_is_one_line_and_an_exit_code(verb, capsys, error, code, says):
    verb(_raise(error))
    assert app.run(["probe"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert err.count("\n") == 1
    assert "Traceback" not in err


def test_debug_shows_the_traceback_wherever_it_stands(verb, capsys):
    verb(_raise(ValueError("odd")))
    assert app.run(["probe", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_out_of_memory_names_three_knobs(verb, capsys):
    verb(_raise(MemoryError()))
    app.run(["probe"])
    err = capsys.readouterr().err
    assert all(knob in err for knob in ("fewer clips", "--dtype bf16", "fewer audio tokens"))


@pytest.mark.parametrize(
    "words", [["probe", "--nope"], ["prob"], ["probe", "too", "many"], ["--nope"], ["probe", "-x"]]
)
def test_usage_errors_are_one_line_and_two(verb, capsys, words):
    def probe() -> None:
        """Test."""

    verb(probe)
    assert app.run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("ossicle: error: ")
    assert err.count("\n") == 1
    assert "--help" in err


def test_json_is_one_object_whatever_a_library_prints(verb, capsys):
    def probe(json: bool = typer.Option(False, "--json")) -> None:
        print("a library's chatter")
        output.emit({"value": float("nan"), "many": (1, 2)}, json=json, text="for people")

    verb(probe)
    assert app.run(["probe", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"value": None, "many": [1, 2]}
    assert "chatter" in err
    assert app.run(["probe"]) == 0
    assert "for people" in capsys.readouterr().out


def test_a_verb_may_set_its_exit_code(verb):
    verb(_raise(typer.Exit(2)))
    assert app.run(["probe"]) == 2


def test_setting_is_said_once(verb, capsys):
    def probe() -> None:
        output.note_setting_line("device cpu, float32, attention sdpa")
        output.note_setting_line("device cpu, float32, attention sdpa")

    verb(probe)
    app.run(["probe"])
    assert capsys.readouterr().err == "ossicle: device cpu, float32, attention sdpa\n"


def _process(code, **kwargs):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **kwargs)


def test_help_imports_nothing_heavy_and_names_every_verb():
    done = _process(
        "import sys; from ossicle.cli.app import run; code = run(['--help']);"
        "heavy = {'torch', 'transformers', 'numpy', 'pydantic', 'yaml', 'rich', 'soundfile'} & set(sys.modules);"
        "print(sorted(heavy), file=sys.stderr); sys.exit(code)"
    )
    assert done.returncode == 0
    assert done.stderr.strip() == "[]"
    assert all(f"  {name} " in done.stdout for name in app.available())
    assert set(app.available()) <= set(VERBS)


def test_a_closed_pipe_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "ossicle", "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60
    )
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode == 0


def test_completion_offers_verbs():
    words = {**os.environ, "COMP_WORDS": "ossicle ", "COMP_CWORD": "1", "_OSSICLE_COMPLETE": "complete_bash"}
    done = subprocess.run([sys.executable, "-m", "ossicle"], env=words, capture_output=True, text=True, timeout=60)
    assert set(app.available()) <= set(done.stdout.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["chat", "-"], "reads its questions from stdin"),
        (["eval", "nano", "--suite", "hour", "--out", "o"], "--suite hour: --out would change nothing"),
        (
            ["eval", "nano", "--suite", "pointing", "--questions-out", "q"],
            "--suite pointing: --questions-out would change nothing",
        ),
        (["eval", "--suite", "hour", "--no-controls"], "--suite hour: --no-controls would change nothing"),
        (["inspect", ".", "seed=1"], ".: a model folder takes no settings; take seed=1 out"),
        (
            ["eval", "--rescore", "--out", "o", "--limit", "3", "--no-controls", "--seed", "1"],
            "--rescore: --limit, --seed, --no-controls would change nothing",
        ),
        (["eval", "--rescore", "--out", "o", "--predictions", "a"], "--rescore: --predictions would change nothing"),
        (["eval", "--verify", "card.json", "--limit", "3"], "--verify: --limit would change nothing"),
        (
            ["eval", "--predictions", "a", "--decoding", "beam", "--transcribe", "ctc", "--before", "nano"],
            "--predictions: --decoding, --transcribe, --before would change nothing",
        ),
        (["eval", "--predictions", "a", "--dtype", "float32"], "--predictions: --dtype would change nothing"),
    ],
)
def test_options_that_would_change_nothing_are_refused(words, message, capsys):
    assert app.run(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bench", "integrations", "--device", "tpu"], "--device tpu: not usable here"),
        (["bench", "integrations", "--dtype", "fp16"], "'fp16' is not one of"),
        (["bench", "integrations", "--clock", "moon"], "'moon' is not one of"),
        (["bench", "integrations", "--batch", "0"], "greater than or equal to 1"),
        (["bench", "length", "--seconds", "-5"], "greater than or equal to 1"),
        (["bench", "length", "--device", "tpu"], "--device tpu: not usable here"),
        (["demo", "--out", "p.xyz"], "--out p.xyz: expected a file's name that ends in .png"),
        (["data", "stats", "none.jsonl", "--picture", "p.xyz"], "--picture p.xyz: expected a file's name"),
    ],
)
def test_what_cannot_be_done_is_said_before_any_work(words, message, capsys):
    assert app.run(words) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


@pytest.mark.parametrize("how", [["--rescore", "--out", "o"], ["--predictions", "a"], ["--verify", "card.json"]])
def test_options_that_say_what_is_usual_anyway_are_not_refused(how, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    usual = ["--decoding", "greedy", "--seed", "0", "--controls", "--batch-size", "64", "--dtype", "auto"]
    assert app.run(["eval", "--root", "nowhere", *how, *usual]) == 2
    assert "would change nothing" not in capsys.readouterr().err
