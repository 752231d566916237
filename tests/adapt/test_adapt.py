"""`adapt`: reading, splitting, the probe, bad input, and the whole way with a tiny model."""

from __future__ import annotations

import csv
import errno
import json

import numpy as np
import pytest
import soundfile
import torch

from ossicle.adapt import samples
from ossicle.adapt.folder import Recording, read_recordings
from ossicle.adapt.probe import probe_answers
from ossicle.adapt.run import Plan, adapt, recipe_of, report_text
from ossicle.adapt.scenes import scene_samples
from ossicle.adapt.split import split_by_group
from ossicle.adapt.views import changed
from ossicle.audio.io import load_audio
from ossicle.errors import DataError
from ossicle.streams import side_by_side


def tone(path, hertz, seed=0, seconds=0.5):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    time_s = np.arange(int(16000 * seconds)) / 16000
    sound = 0.3 * np.sin(2 * np.pi * hertz * (1 + 0.02 * rng.random()) * time_s) + 0.003 * rng.standard_normal(
        len(time_s)
    )
    soundfile.write(path, sound, 16000)


@pytest.fixture
def folder(tmp_path):
    for index in range(6):
        tone(tmp_path / "mine" / "low_tone" / f"a{index}.wav", 200, index)
        tone(tmp_path / "mine" / "high_tone" / f"b{index}.wav", 2000, index)
    return tmp_path / "mine"


def test_a_folder_per_label(folder):
    tone(folder / "rare" / "only.wav", 500)
    (folder / "low_tone" / "broken.wav").write_bytes(b"not audio at all")
    (folder / "notes.txt").write_text("ignored")
    found = read_recordings(folder)
    assert {recording.label for recording in found.found} == {"low tone", "high tone"}
    assert len(found.found) == 12
    assert dict(found.skipped) == {"unreadable": 1, "label 'rare' has one recording only": 1}
    assert "1 × unreadable (first: low_tone/broken.wav)" in found.told()


def test_tables_in_csv_and_jsonl(folder):
    rows = [{"path": f"low_tone/a{i}.wav", "label": "low", "group": f"g{i // 2}"} for i in range(6)]
    rows += [{"path": f"high_tone/b{i}.wav", "label": "high", "group": f"h{i // 2}"} for i in range(6)]
    with (folder / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "group"])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    from_csv, from_jsonl = read_recordings(folder / "table.csv"), read_recordings(folder / "table.jsonl")
    assert from_csv.found == from_jsonl.found
    assert {recording.group for recording in from_csv.found} == {"g0", "g1", "g2", "h0", "h1", "h2"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("t.csv", "file,label\na.wav,x\n", "has the columns file, label; expected 'path' and at least one of label"),
        ("t.csv", "path,speaker\na.wav,x\n", "expected 'path' and at least one of label, caption, transcript, answer"),
        ("t.csv", "path,answer\na.wav,x\n", "column 'answer' without 'question'"),
        ("t.jsonl", '{"path": "a.wav", "label": "x"}\n{oops\n', r"t.jsonl:2: not JSON"),
        ("t.jsonl", "[1]\n", "expected an object with 'path'"),
        ("t.csv", "path,label\nmissing.wav,x\n", r"none of 1 recordings can be used: 1 × unreadable"),
    ],
)
def test_tables_that_do_not_fit_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as caught:
        read_recordings(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_one_class_empty_and_missing_folders_are_one_line(tmp_path, folder):
    with pytest.raises(DataError, match="no such folder or table"):
        read_recordings(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no recordings in folders and no manifest"):
        read_recordings(tmp_path / "empty")
    for path in (folder / "high_tone").iterdir():
        path.unlink()
    with pytest.raises(DataError, match=r"one class only with two or more recordings \(low tone\)"):
        read_recordings(folder)


def made(labels, groups):
    from pathlib import Path

    return [
        Recording(path=Path(f"{i}.wav"), label=label, group=group)
        for i, (label, group) in enumerate(zip(labels, groups, strict=True))
    ]


@pytest.mark.parametrize("seed", range(5))
def test_no_group_lies_on_both_sides_and_every_label_is_on_both(seed):
    rng = np.random.default_rng(seed)
    groups = [f"g{i}" for i in rng.integers(0, 30, 120)]
    labels = [f"label {int(group[1:]) % 4}" for group in groups]
    train, test = split_by_group(made(labels, groups), seed=seed)
    assert len(train) + len(test) == 120
    assert not {r.group for r in train} & {r.group for r in test}
    assert {r.label for r in train} == {r.label for r in test} == set(labels)
    assert 12 <= len(test) <= 40


def test_one_group_cannot_be_split():
    with pytest.raises(DataError, match="all 3 recordings belong to one group"):
        split_by_group(made(["a", "b", "b"], ["g", "g", "g"]))


def test_the_probe_finds_a_linear_rule_and_no_other():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 8, generator=generator)
    labels = ["high" if value > 0 else "low" for value in features[:, 3]]
    groups = [str(i) for i in range(150)]
    said = probe_answers(features[:150], labels[:150], groups, features[150:])
    assert sum(a == b for a, b in zip(said, labels[150:], strict=True)) >= 45
    nonsense = ["high" if value > 0 else "low" for value in torch.randn(200, generator=generator)]
    said = probe_answers(features[:150], nonsense[:150], groups, features[150:])
    assert sum(a == b for a, b in zip(said, nonsense[150:], strict=True)) <= 38


def test_the_probe_is_the_minimum_of_its_loss():
    from ossicle.adapt.probe import fit

    generator = torch.Generator().manual_seed(1)
    features, classes = torch.randn(60, 5, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    layer = fit(features, classes, 3, 0.1)
    loss = torch.nn.functional.cross_entropy(layer(features), classes) + 0.05 * layer.weight.square().sum()
    gradients = torch.autograd.grad(loss, list(layer.parameters()))
    assert max(float(g.abs().max()) for g in gradients) < 1e-3


def test_copies_keep_the_sound_and_stay_in_range():
    wave = np.sin(np.arange(8000) / 5).astype(np.float32)
    for seed in range(10):
        copy = changed(wave, np.random.default_rng(seed))
        assert np.isfinite(copy).all()
        assert np.abs(copy).max() <= 1.0
        assert 0.9 * 8000 < len(copy) < 1.1 * 8000 + 2 * 0.3 * 16000


def test_scenes_are_told_as_they_were_composed(folder, tmp_path):
    (tmp_path / "audio").mkdir()
    found = read_recordings(folder).found
    rows = scene_samples(found, tmp_path / "audio", count=12, seed=3)
    assert len(rows) == 12 * 3
    assert rows == scene_samples(found, tmp_path / "audio", count=12, seed=3)
    heard = [row for row in rows if row["messages"][1]["content"] in told(row, tmp_path / "audio")]
    assert len(heard) >= 6, "some are asked what is heard, and say both tones in the order they lie in the file"
    assert not [row for row in rows if row["messages"][1]["content"].endswith((": yes.", ": no."))], "none is absent"
    assert scene_samples([r for r in found if r.label == "low tone"], tmp_path / "audio", count=4, seed=0) == []


def test_what_a_scene_lacks_is_asked_about_too(folder, tmp_path):
    tone(folder / "middle_tone" / "c0.wav", 700)
    tone(folder / "middle_tone" / "c1.wav", 700)
    (tmp_path / "audio").mkdir()
    rows = scene_samples(read_recordings(folder).found, tmp_path / "audio", count=30, seed=0)
    names = ("low tone", "middle tone", "high tone")
    verdicts = set()
    for row in rows:
        question, answer = (turn["content"].lower() for turn in row["messages"])
        listed, _, verdict = answer.partition(": ")
        if verdict in ("yes.", "no."):
            (asked,) = [name for name in names if name in question]
            assert (asked in listed) == (verdict == "yes.")
            verdicts.add(verdict)
    assert verdicts == {"yes.", "no."}


def told(row, audio):
    """What a sound file holds, by its own zero crossings: 200 Hz is the low tone."""
    wave, rate = soundfile.read(audio / row["audios"][0])
    first, last = wave[: rate // 2], wave[-rate:]
    crossings = [int(np.sum(np.diff(np.sign(part)) != 0)) / len(part) * rate for part in (first, last)]
    names = ["low tone", "high tone"] if crossings[0] < crossings[1] else ["high tone", "low tone"]
    return [f"{names[0].capitalize()}, then {names[1]}."]


def test_the_recipe_parses(tmp_path):
    from ossicle import config
    from ossicle.training.recipe import Recipe

    recipe = config.validate(Recipe, recipe_of(Plan(folder=tmp_path, out=tmp_path / "o"), tmp_path), where="adapt")
    assert recipe.model.start == "nano"
    assert [entry.source for entry in recipe.stages[0].mix] == ["own"], "nothing to replay, nothing in the mix"


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    from ossicle.training.recipe import load
    from ossicle.training.run import Run
    from ossicle.training.shrink import shrink

    out = tmp_path_factory.mktemp("tiny") / "run"
    loaded = shrink(load("nano-smoke", ["stages.0.steps=1", "data.sounds.samples=8", "stages.0.batch_size=4"]))
    return Run(loaded, out, shrink=True).train().checkpoint


def small(folder, tiny_model, out, **changes):
    settings = {"steps": 2, "batch_size": 4, "scenes": 4, "replay_sounds": 8, "forgetting_items": 1} | changes
    return Plan(folder=folder, out=out, start=str(tiny_model), **settings)


def test_the_whole_way(folder, tiny_model, tmp_path):
    from ossicle.inference.engine import load

    result = adapt(small(folder, tiny_model, tmp_path / "model"))
    wanted = {"splits", "score", "majority", "probe", "blind", "forgetting", "checkpoint"}
    assert wanted <= set(result)
    assert all(isinstance(result[key], float) for key in ("score", "majority", "probe", "blind", "forgetting"))
    assert result["probe"] == 1.0, "two tones are told apart by any features"
    assert result["splits"]["train"] + result["splits"]["test"] == 12
    assert set(result["per_label"]) == {"high tone", "low tone"}
    assert any("probe" in note for note in result["notes"]), "a model of two steps loses to the probe, and that is said"
    assert "linear probe 1.000" in report_text(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"], "nothing half-written stays"
    assert (tmp_path / "model" / "card.json").is_file()
    answer = load(tmp_path / "model").answer([(folder / "low_tone" / "a0.wav", "What is it?")], max_new_tokens=4)
    assert isinstance(answer[0].text, str)
    assert "tags" in load(tmp_path / "model").model.streams


def test_the_tagger_is_the_probe_and_knows_what_is_not_the_users(folder, tiny_model, tmp_path):
    from ossicle.adapt.tags import with_tags
    from ossicle.inference.engine import load

    engine, found = load(tiny_model, device="cpu"), read_recordings(folder).found
    others = [wave for kind, wave in samples.old_sounds(found, [], count=24, seed=0) if kind != "own"]
    assert with_tags(engine, found, others, tmp_path / "start", seed=0) == "tags"
    grown = load(tmp_path / "start", device="cpu")
    for name, weight in engine.model.state_dict().items():
        assert torch.equal(grown.model.state_dict()[name], weight), "what was there stays as it was"
    connector = grown.model.streams["tags"].connector
    assert connector.config.tags == ["high tone", "low tone"]
    heads = {}
    for name, waves in {"mine": [load_audio(r.path) for r in found], "theirs": others}.items():
        tokens = side_by_side([*grown.encode(waves).values()])
        heads[name] = connector.which(connector.pooled(tokens)), connector.any(connector.pooled(tokens))
    truth = torch.tensor([connector.config.tags.index(r.label) for r in found])
    assert (heads["mine"][0][:, 0].argmax(-1) == truth).all()
    assert (heads["mine"][1][:, 0] > 0).float().mean() >= 0.75
    assert (heads["theirs"][1][:, 0] > 0).float().mean() <= 0.5
    again = with_tags(grown, found, others, tmp_path / "again", seed=0)
    assert again == "tags_2", "a model adapted twice keeps what it was taught first"
    assert with_tags(engine, found[:3], [], tmp_path / "none", seed=0) is None


def test_a_full_disk_leaves_nothing_behind(folder, tiny_model, tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "x.flac")

    monkeypatch.setattr(samples, "write", full)
    with pytest.raises(OSError, match="No space left"):
        adapt(small(folder, tiny_model, tmp_path / "model"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine"]


def test_a_taken_folder_is_refused(folder, tiny_model, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "precious.txt").write_text("mine")
    with pytest.raises(DataError, match="is not empty"):
        adapt(small(folder, tiny_model, tmp_path / "model"))
    assert (tmp_path / "model" / "precious.txt").read_text() == "mine"
