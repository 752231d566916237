"""The report: one page with players, and tables and curves that hold the numbers that they should."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evaluation.conftest import write_set
from evaluation.doubles import Deaf, Oracle, Said
from ossicle.evaluation.parse import vocabularies
from ossicle.evaluation.report import LEAST_IN_BIN, bins
from ossicle.evaluation.run import Outcome, Setting, build_tasks, run_suite
from ossicle.evaluation.task import suite_specs

MODEL = {"name": "oracle", "hash": ""}


def table(page: str, summary: str) -> list[list[str]]:
    """Return the cells of the table under a summary."""
    inside = page.split(f"<summary>{summary}</summary>")[1].split("</details>")[0]
    return [re.findall(r"<t[dh]>(.*?)</t[dh]>", line) for line in inside.split("<tr>")[1:]]


def test_the_report_is_one_page_with_sounds(tiny_root, tmp_path):
    setting = Setting(suite="esc10,presence", root=tiny_root, limit=8)
    result = run_suite(setting, Deaf(), out=tmp_path, model=MODEL, report=True)
    page = Path(result["report"]).read_text()
    assert "confusions" in page
    files = {part.split("'")[0] for part in page.split("src='")[1:]}
    assert files
    assert all((tmp_path / file).is_file() for file in files)
    assert "by class" in page
    assert "by length, s" in page
    assert page.count("<svg") == page.count("</svg>") >= 2
    assert "cascade" in page


def test_curves_have_bins_of_enough_clips_and_manifests_may_say_the_snr(tmp_path):
    sounds = list(vocabularies()["esc10"])
    rows = [{"label": sounds[i % 10], "snr_db": float(i % 20)} for i in range(40)]
    write_set(tmp_path / "esc10", rows)
    setting = Setting(suite="esc10", root=tmp_path)
    page = Path(run_suite(setting, Deaf(), out=tmp_path / "o", model=MODEL, report=True)["report"]).read_text()
    inside = page.split("<summary>by SNR, dB")[1].split("</details>")[0]
    counts = [int(cells.split("<td>")[-1].split("<")[0]) for cells in inside.split("<tr>")[2:]]
    assert sum(counts) == 40
    assert min(counts) >= LEAST_IN_BIN
    assert bins([1.0] * 50) == []
    assert bins([1.0, 2.0]) == []


def test_confusions_and_classes_hold_the_numbers_of_the_answers(tmp_path):
    """Six clips of rain and four of dogs; a model that always says rain, but nothing readable to every fifth clip."""
    write_set(tmp_path / "esc10", [{"label": label} for label in ["rain"] * 6 + ["dog bark"] * 4])
    setting = Setting(suite="esc10", root=tmp_path, controls=False)
    outcome = Outcome()
    build_tasks(setting, suite_specs("esc10"), outcome)
    task = outcome.built["esc10"]
    mute = {task.sounds[item.audio].load().samples.tobytes() for item in task.items if item.audio[6] in "05"}
    assert len(mute) == 2

    class Rainy:
        def answer(self, items, **_):
            return [
                Said("Hm." if wave is not None and wave.samples.tobytes() in mute else "Rain.") for wave, _ in items
            ]

    page = Path(run_suite(setting, Rainy(), out=tmp_path / "o", model=MODEL, report=True)["report"]).read_text()
    assert table(page, "confusions") == [["truth \\ said", "rain", "–"], ["dog bark", "4", ""], ["rain", "4", "2"]]
    classes = {row[0]: (row[1], row[3]) for row in table(page, "by class")[1:]}
    assert classes == {"dog bark": ("0.000", "4"), "rain": ("0.667", "6")}
    assert page.count("<audio controls") == 6, "every wrong answer has a player"


def test_the_curve_over_snr_shows_where_a_model_stops_hearing(tmp_path):
    """Right where the sound lies 10 dB or more above its background, else silent."""
    sounds = list(vocabularies()["esc10"])
    write_set(tmp_path / "esc10", [{"label": sounds[i % 10], "snr_db": float(i % 20)} for i in range(60)])
    setting = Setting(suite="esc10", root=tmp_path, controls=False)
    outcome = Outcome()
    build_tasks(setting, suite_specs("esc10"), outcome)
    loud = {s.load().samples.tobytes() for s in outcome.built["esc10"].sounds.values() if s.snr_db >= 10}

    class Halfdeaf(Oracle):
        def _say(self, wave, question):
            heard = wave is not None and wave.samples.tobytes() in loud
            return super()._say(wave, question) if heard else "Hm."

    model = Halfdeaf(outcome.built)
    page = Path(run_suite(setting, model, out=tmp_path / "o", model=MODEL, report=True)["report"]).read_text()
    rows = [(*map(float, span.split("–")), float(value), int(n)) for span, value, n in table(page, "by SNR, dB")[1:]]
    assert sum(n for *_, n in rows) == 60
    assert len(rows) >= 3
    for index, (low, high, value, n) in enumerate(rows):
        last = index == len(rows) - 1
        inside = [snr for snr in [float(i % 20) for i in range(60)] if low <= snr < high or (last and snr == high)]
        assert len(inside) == n
        assert value == pytest.approx(sum(snr >= 10 for snr in inside) / n, abs=5e-4)
    assert rows[0][2] == 0.0
    assert rows[-1][2] == 1.0
