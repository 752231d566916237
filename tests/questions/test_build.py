"""A recipe of several datasets: subsets, shares as a published set has them, going on after a kill at any moment."""

from __future__ import annotations

import json
import multiprocessing
import random
import time

import numpy as np
import pytest
import soundfile
import yaml

from ossicle.data.rows import read_rows
from ossicle.errors import ConfigError
from ossicle.questions.build import FOLDER, Build, BuildRecipe, load


def recipe(**settings) -> BuildRecipe:
    return BuildRecipe.model_validate({"name": "r", **settings})


def build(settings, out) -> dict:
    return Build(settings, out, lambda line: None).run()


@pytest.fixture
def sets(tmp_path):
    """Miniatures of three datasets as their owners publish them, with sound that has pitch."""
    rng, rate = np.random.default_rng(0), 16000
    voice = sum(np.sin(2 * np.pi * 150 * k * np.arange(rate) / rate) / k for k in range(1, 6)) * 0.1
    places = {
        "esc50/meta/esc50.csv": "filename,fold,target,category,esc10,src_file,take\\n"
        + "".join(f"{n}.wav,1,0,{('dog', 'rain')[n % 2]},True,{n},A\\n" for n in range(12)),
        "libritts/speakers.tsv": "READER\\tGENDER\\tSUBSET\\tNAME\\n14\\tF\\tdev\\tK\\n",
    }
    for number in range(30):
        places[f"libritts/dev/14/1/14_1_{number}.normalized.txt"] = f"these are six words number {number}"
    for place, content in places.items():
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text(content.replace("\\n", "\n").replace("\\t", "\t"))
    (tmp_path / "esc50/audio").mkdir()
    for number in range(12):
        soundfile.write(tmp_path / f"esc50/audio/{number}.wav", rng.normal(0, 0.01 * (number + 1), rate), rate)
    for number in range(30):
        pause = rng.normal(0, 0.001, rate * (number % 2))
        soundfile.write(tmp_path / f"libritts/dev/14/1/14_1_{number}.wav", np.concatenate([voice, pause]), rate)
    return tmp_path


def test_shares_are_those_of_the_composition_and_subsets_are_taken(sets, tmp_path):
    asr = {"tasks": ["asr"]}
    parts = {
        "sound": {"root": str(sets / "esc50"), "adapter": "esc50"},
        "words": {"root": str(sets / "libritts"), "adapter": "libritts", "closed": asr},
        "still": {"root": str(sets / "libritts"), "adapter": "libritts", "closed": asr,
                  "subset": {"reading": "above", "per_label": 9}},
        "never": {"root": str(sets / "esc50"), "adapter": "esc50", "subset": {}},
    }  # fmt: skip
    shares = {
        "sound": {"rows": 600, "of": ["sound/*", "never/*"]}, "speech": {"rows": 300, "of": ["words/closed"]},
        "pauses": {"rows": 100, "of": ["still/closed"]}, "music": {"rows": 100, "of": ["fma/*"]},
    }  # fmt: skip
    result = build(recipe(parts=parts, composition=shares), tmp_path / "built")
    assert result["steps"]["still/subset"]["out"] == 15  # half of them have a pause that is half of the clip
    assert result["steps"]["never/subset"]["out"] == 0
    rows = list(read_rows(tmp_path / "built/questions.jsonl"))
    counts = {name: sum(row["source"] == name for row in rows) for name in parts}
    assert result["out"] == len(rows) > 40
    told = result["steps"]["mix"]["composition"]
    assert told["absent"] == ["music"]
    assert {name: share["share"] for name, share in told["shares"].items()} == {
        "sound": 0.6, "speech": 0.3, "pauses": 0.1,
    }  # fmt: skip
    assert counts["sound"] / len(rows) == pytest.approx(0.6, abs=0.02)
    assert counts["words"] / len(rows) == pytest.approx(0.3, abs=0.02)
    for name, kinds in {"words": ["words"], "sound": ["sound"]}.items():  # nothing comes more often than it is there
        ids = [row["id"] for row in rows if row["source"] in kinds]
        assert len(ids) == len(set(ids)), name
    card = (tmp_path / "built/README.md").read_text()
    assert "| speech | 300 | 30 | 30.0 % |" in card
    assert "Shares of which nothing is at hand: music." in card
    with pytest.raises(ConfigError, match="no share takes 'sound/closed'"):
        build(recipe(parts=parts, composition={"speech": shares["speech"]}), tmp_path / "other")


def test_openasqa_is_the_papers_composition(sets, tmp_path, monkeypatch):
    """Its shares sum to the set of the paper and its parts are the thirteen datasets; what is at hand is built."""
    found = load("openasqa", [])
    assert sum(share.rows for share in found.composition.values()) == 9_641_740
    datasets = {part.adapter for part in found.parts.values()}
    assert len(datasets) == 13
    assert (found.parts["clotho"].times, found.parts["soundbible"].times) == (2, 10)
    assert found.parts["joint"].subset.reading == "below"
    kinds = [
        f"{name}/{kind}" for name, part in found.parts.items() for kind in ("closed", "open") if getattr(part, kind)
    ]
    from ossicle.questions.composition import _share

    assert {_share(kind, found.composition) for kind in kinds} == set(found.composition)
    assert yaml.safe_load((FOLDER / "openasqa.yaml").read_text())["paper"] is True
    monkeypatch.setenv("OSSICLE_SETS", str(sets))
    result = build(found, tmp_path / "built")
    assert set(result["steps"]["mix"]["composition"]["shares"]) == {"speech, closed", "speech, words"}
    assert "fma" in result["absent"]


def run(settings, out) -> None:
    build(settings, out)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_killed_at_random_moments_it_ends_with_the_same_set(sets, tmp_path):
    parts = {
        "sound": {"root": str(sets / "esc50"), "adapter": "esc50"},
        "words": {"root": str(sets / "libritts"), "adapter": "libritts"},
    }
    settings = recipe(parts=parts, shards=True)
    build(settings, tmp_path / "steady")
    forks, chance, kills = multiprocessing.get_context("fork"), random.Random(3), 0
    for wait_s in sorted(chance.uniform(0.005, 0.6) for _ in range(8)):
        process = forks.Process(target=run, args=(settings, tmp_path / "killed"))
        process.start()
        time.sleep(wait_s)
        kills += process.is_alive()
        process.kill()
        process.join()
    assert kills >= 2
    result = build(settings, tmp_path / "killed")
    names = ("questions.jsonl", "sound/described.jsonl", "words/closed.rejected.jsonl", "shards/shard-00000.tar")
    for name in names:
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "steady" / name).read_bytes(), name
    assert not list((tmp_path / "killed").rglob("*.writing"))
    assert result["out"] == len(list(read_rows(tmp_path / "steady/questions.jsonl")))
    steps = [json.loads((tmp_path / place / "steps.json").read_text()) for place in ("steady", "killed")]
    counts = [{name: (step["in"], step["out"]) for name, step in found.items()} for found in steps]
    assert counts[0] == counts[1]


def test_what_must_not_be_taught_is_looked_up_again_once_it_changes(sets, tmp_path):
    held = tmp_path / "held.jsonl"
    held.write_text("")
    settings = recipe(parts={"sound": {"root": str(sets / "esc50"), "adapter": "esc50"}}, eval_sets=[str(held)])
    build(settings, tmp_path / "out")
    rows = list(read_rows(tmp_path / "out/questions.jsonl"))
    clip = next(iter(read_rows(tmp_path / "out/sound/clips.jsonl")))
    held.write_text(json.dumps(clip) + "\n")
    build(settings, tmp_path / "out")
    left = list(read_rows(tmp_path / "out/questions.jsonl"))
    assert left and len(left) < len(rows)


def test_what_is_gone_is_made_again_and_what_is_left_out_is_not_counted(sets, tmp_path):
    parts = {name: {"root": str(sets / "esc50"), "adapter": "esc50"} for name in ("a", "b")}
    whole = build(recipe(parts=parts), tmp_path / "out")
    made = [*(tmp_path / "out").glob("*.jsonl"), *(tmp_path / "out").glob("[ab]/*.jsonl")]
    files = {path: path.read_bytes() for path in made if "rejected" not in path.name}
    for path in files:
        path.unlink()
        build(recipe(parts=parts), tmp_path / "out")
        assert path.read_bytes() == files[path], path.name
    alone = build(recipe(parts={"a": parts["a"]}), tmp_path / "out")
    assert 2 * alone["in"] == whole["in"]
    assert all(2 * count == whole["skipped"][reason] for reason, count in alone["skipped"].items())
    assert "b/import" not in (tmp_path / "out/README.md").read_text(encoding="utf-8")
