"""`adapt`: reading, splitting, the probe, bad input, and the whole way with a tiny model."""

from __future__ import annotations

import csv
import errno
import json
import re

import numpy as np
import pytest
import soundfile
import torch

from ossicle.adapt import samples
from ossicle.adapt.folder import Recording, read_recordings
from ossicle.adapt.probe import probe_answers
from ossicle.adapt.run import Plan, adapt, report_text
from ossicle.adapt.split import split_by_group
from ossicle.adapt.teach import recipe_of
from ossicle.adapt.views import changed
from ossicle.audio.io import load_audio
from ossicle.connectors.tags import pooled
from ossicle.errors import DataError, UserError
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


def test_labels_and_groups_may_be_numbers_from_0(folder):
    rows = [{"path": f"low_tone/a{i}.wav", "label": i % 2, "group": i // 2} for i in range(6)]
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_recordings(folder / "table.jsonl").found
    assert [(recording.label, recording.group) for recording in found] == [(str(i % 2), str(i // 2)) for i in range(6)]


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


def test_labels_are_asked_for_and_about(folder, tmp_path):
    tone(folder / "middle_tone" / "c0.wav", 700)
    tone(folder / "middle_tone" / "c1.wav", 700)
    (tmp_path / "audio").mkdir()
    found = read_recordings(folder).found
    rows = samples.own_samples(found, tmp_path / "audio", seed=0)
    assert rows == samples.own_samples(found, tmp_path / "audio", seed=0)
    names, verdicts = ("low tone", "middle tone", "high tone"), []
    for row in rows:
        question, answer = (turn["content"].lower() for turn in row["messages"])
        named, _, verdict = answer.rstrip(".").partition(": ")
        assert named == "".join(name for name in names if name in named), "what is heard is named first"
        if verdict:
            (asked,) = [name for name in names if name in question]
            assert (asked == named) == (verdict == "yes")
            verdicts.append(verdict)
    assert set(verdicts) == {"yes", "no"}
    assert len(verdicts) == len(rows) / 4
    alone = samples.own_samples([r for r in found if r.label == "low tone"], tmp_path / "audio", seed=0)
    assert {row["messages"][1]["content"] for row in alone} == {"Low tone."}, "nothing is absent"


def test_the_recipe_parses(tmp_path):
    from ossicle import config
    from ossicle.training.recipe import Recipe

    recipe = config.validate(Recipe, recipe_of(Plan(folder=tmp_path, out=tmp_path / "o"), tmp_path), where="adapt")
    assert recipe.model.start == "nano"
    assert [entry.source for entry in recipe.stages[0].mix] == ["own"], "nothing to replay, nothing in the mix"


@pytest.mark.parametrize("frozen", [True, False])
def test_a_taggers_stream_learns_with_or_without_the_decoder(frozen, tmp_path):
    plan = Plan(folder=tmp_path, out=tmp_path / "o")
    taught = recipe_of(plan, tmp_path, tags="tags", frozen=frozen)["stages"][0]["train"]
    assert any(re.match(name, "streams.tags.integration.own.0.k_proj.weight") for name in taught)
    assert ("language_model" in taught) != frozen


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    from ossicle.training.recipe import load
    from ossicle.training.run import Run
    from ossicle.training.shrink import shrink

    out = tmp_path_factory.mktemp("tiny") / "run"
    loaded = shrink(load("nano-smoke", ["stages.0.steps=1", "data.sounds.samples=8", "stages.0.batch_size=4"]))
    return Run(loaded, out, shrink=True).train().checkpoint


def small(folder, tiny_model, out, **changes):
    settings = {"steps": 2, "batch_size": 4, "replay_sounds": 8, "forgetting_items": 1} | changes
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
    assert f"{result['tagger']['found']:.0%} of yours" in report_text(result)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "model"], "nothing half-written stays"
    assert (tmp_path / "model" / "card.json").is_file()
    answer = load(tmp_path / "model").answer([(folder / "low_tone" / "a0.wav", "What is it?")], max_new_tokens=4)
    assert isinstance(answer[0].text, str)
    assert "tags" in load(tmp_path / "model").model.streams


def logits(engine, waves):
    asked = "<audio>What do you hear?"
    with torch.inference_mode():
        return engine.model(
            **engine.processor(text=[asked] * len(waves), audio=[wave.samples for wave in waves])
        ).logits


def test_what_is_not_the_users_is_answered_as_before(folder, tiny_model, tmp_path):
    """To the bit: a clip without a verdict has no tokens in the new stream, and nothing else has changed."""
    from ossicle.adapt.tags import with_tags
    from ossicle.inference.engine import load

    engine, found = load(tiny_model, device="cpu"), read_recordings(folder).found
    others = [wave for kind, wave in samples.old_sounds(found, [], count=24, seed=0) if kind != "own"]
    name, tagger = with_tags(engine, found, others, tmp_path / "start", seed=0)
    assert name == "tags"
    assert tagger.found >= 0.75
    grown = load(tmp_path / "start", device="cpu")
    for name, weight in engine.model.state_dict().items():
        assert torch.equal(grown.model.state_dict()[name], weight)
    connector = grown.model.streams["tags"].connector
    assert connector.config.tags == ["high tone", "low tone"]
    scores = {}
    for name, waves in {"mine": [load_audio(r.path) for r in found], "theirs": others}.items():
        tokens = side_by_side([*grown.encode(waves).values()])
        scores[name] = connector.scores(pooled(tokens, connector.config.factor))[:, 0]
    truth = torch.tensor([connector.config.tags.index(r.label) for r in found])
    assert (scores["mine"][:, :-1].argmax(-1) == truth).all()
    assert (scores["mine"][:, -1] > connector.bound).float().mean() >= 0.75
    silent = [wave for wave, score in zip(others, scores["theirs"][:, -1], strict=True) if score <= connector.bound]
    assert len(silent) > 0.8 * len(others)
    assert torch.equal(logits(engine, silent), logits(grown, silent))
    mine = [load_audio(found[0].path)]
    assert not torch.allclose(logits(engine, mine), logits(grown, mine)), "the user's own are heard once more"
    again, _ = with_tags(grown, found, others, tmp_path / "again", seed=0)
    assert again == "tags_2", "a model adapted twice keeps what it was taught first"
    assert with_tags(engine, found[:3], [], tmp_path / "none", seed=0) is None


def test_verdicts_begin_where_few_old_sounds_pass_or_where_both_sides_lose_alike():
    from ossicle.adapt.tags import _bound

    apart = _bound(torch.tensor([0.9, 0.8, 0.7, -0.5]), torch.tensor([*[-0.9] * 93, *[-0.4] * 6, 0.75]))
    assert (round(apart[0], 3), *apart[1:]) == (0.7, 0.75, 0.01), "the last one would cost six alarms"
    mixed = _bound(torch.tensor([0.6, 0.5, 0.4, 0.3]), torch.tensor([0.9, -0.5, -0.6, 0.2]))
    assert (round(mixed[0], 3), *mixed[1:]) == (0.3, 1.0, 0.25)


def refit(scaled, kept, truth):
    """Return what a ridge regression of the kept ones tells the others."""
    from ossicle.adapt import tags

    near = tags.kernel(scaled[kept], scaled[kept], tags.GAMMA)
    says = torch.linalg.solve(near + tags.RIDGE * torch.eye(len(near), dtype=near.dtype), truth[kept].double())
    return tags.kernel(scaled[~kept], scaled[kept], tags.GAMMA) @ says


def test_leaving_out_a_group_is_what_fitting_without_it_gives():
    from ossicle.adapt import tags

    generator = torch.Generator().manual_seed(0)
    classes = torch.randint(0, 2, (20,), generator=generator)
    seen = torch.randn(32, 6, generator=generator)
    seen[:20, 0] += 2 * classes - 1
    seen[20:, 1] += 5
    groups = [f"g{i // 3}" for i in range(20)] + [f"o{i}" for i in range(12)]
    tagger = tags.fit_tagger(seen, classes, groups, 2)
    scaled = ((seen - seen.mean(0)) / seen.std(0)).double()
    right, found, alarms = 0, 0.0, 0.0
    for group in set(groups):
        out = torch.tensor([other == group for other in groups])
        own = ~out[:20]
        if not own.all():
            right += int(
                (refit(scaled[:20], own, torch.nn.functional.one_hot(classes, 2)).argmax(1) == classes[~own]).sum()
            )
        passes = refit(scaled, ~out, torch.tensor([[1.0]] * 20 + [[-1.0]] * 12))[:, 0] > tagger.bound
        found, alarms = found + float((passes & out[:20].any()).sum()), alarms + float((passes & out[20:].any()).sum())
    assert tagger.accuracy == pytest.approx(right / 20)
    assert (tagger.found, tagger.false_alarms) == pytest.approx((found / 20, alarms / 12))
    assert 0.5 < tagger.accuracy < 1
    assert tagger.false_alarms <= tags.FALSE_ALARMS
    assert tagger.found > 0


@pytest.mark.parametrize("told", ["label", "caption"])
def test_labels_alone_leave_the_model_as_it_was_and_sentences_teach_it(told, folder, tiny_model, tmp_path):
    from ossicle.inference.engine import load

    mine = folder
    if told == "caption":
        rows = [
            json.dumps({"path": str(r.path), "label": r.label, "caption": "A tone."})
            for r in read_recordings(folder).found
        ]
        mine = folder / "table.jsonl"
        mine.write_text("\n".join(rows))
    adapt(small(mine, tiny_model, tmp_path / "model", steps=3))
    before, after = (load(each, device="cpu").model.state_dict() for each in (tiny_model, tmp_path / "model"))
    changed_ones = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    assert bool(changed_ones) == (told == "caption")
    assert {name for name in after if name not in before} >= {"streams.tags.connector.names"}


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


def test_the_folder_one_stands_in_is_not_replaced(folder, tiny_model, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with pytest.raises(DataError, match="is the folder you are in"):
        adapt(small(folder, tiny_model, tmp_path / "here"))


def test_groups_without_a_column(tmp_path):
    """Numbered files of two labels are apart, one tape under two labels stays together, and so do copies."""
    for place, pitch in (
        ("saw/1", 1),
        ("saw/2", 2),
        ("saw/tape", 3),
        ("drill/1", 4),
        ("drill/tape", 5),
        ("drill/b", 2),
        ("saw/loop", 6),
        ("drill/loop", 7),
        ("drill/copy", 6),
    ):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        soundfile.write(tmp_path / f"{place}.wav", np.sin(np.arange(4000) * 0.1 * pitch) * 0.1, 16000)
    for part in ("x", "y"):  # a label that has a stem twice
        (tmp_path / "drill" / part).mkdir()
        soundfile.write(tmp_path / f"drill/{part}/rec.wav", np.full(4000, 0.1 if part == "x" else 0.2), 16000)
    groups = {str(r.path.relative_to(tmp_path)): r.group for r in read_recordings(tmp_path).found}
    assert groups["saw/1.wav"] != groups["drill/1.wav"]
    assert groups["saw/tape.wav"] == groups["drill/tape.wav"] == "tape"
    assert groups["saw/2.wav"] == groups["drill/b.wav"]
    assert groups["saw/loop.wav"] == groups["drill/loop.wav"] == groups["drill/copy.wav"], "a copy joins both"
    assert groups["drill/x/rec.wav"] != groups["drill/y/rec.wav"]


def test_labels_that_are_said_alike_are_refused(folder):
    table = folder / "manifest.csv"
    paths = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.wav"))
    names = ("dog bark", "Dog-bark", "rain")
    table.write_text("path,label\n" + "".join(f"{p},{names[i % 3]}\n" for i, p in enumerate(paths)))
    with pytest.raises(DataError, match="labels 'Dog-bark' and 'dog bark' are said alike"):
        read_recordings(folder)


def test_a_replay_folder_that_is_not_there_is_refused_before_any_work(folder, tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        adapt(Plan(folder=folder, out=tmp_path / "out", replay=tmp_path / "sonds"))
    assert not (tmp_path / "sonds").exists() and not (tmp_path / "out").exists()


def test_what_was_taught_is_kept_when_it_cannot_be_scored(folder, tiny_model, tmp_path, monkeypatch):
    import ossicle.adapt.run as module

    def fail(*_: object) -> None:
        raise DataError("no scores today")

    monkeypatch.setattr(module, "_score", fail)
    with pytest.raises(UserError, match="no scores today; what was taught is in"):
        adapt(small(folder, tiny_model, tmp_path / "out"))
    assert (tmp_path / "out/model.safetensors").is_file() and not list(tmp_path.glob(".*.part"))


def test_a_table_may_tell_more_of_some_recordings(folder, tiny_model, tmp_path):
    rows = [{"path": str(r.path), "label": r.label} for r in read_recordings(folder).found]
    for row in rows[::2]:
        row["transcript"] = "hum"
    (folder / "manifest.jsonl").write_text("\n".join(map(json.dumps, rows)))
    result = adapt(small(folder, tiny_model, tmp_path / "out"))
    assert {label: told["test"] for label, told in result["per_label"].items()} == {"high tone": 1, "low tone": 1}
    assert all(0 <= told["score"] <= 1 for told in result["per_label"].values())
