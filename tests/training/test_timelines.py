"""Timelines: true placements, repeatable batches, heads on their own frames, the kept average, validation kept out."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
import torch

from ossicle.data import timeline
from ossicle.data.material import WORDS, Sound, is_held_out, kept, pools, to_int16, trim
from ossicle.data.timeline import Placement, TimelineComposer
from ossicle.encoders.cnn import CnnConfig, CnnEncoder
from ossicle.training.objectives.base import StageContext
from ossicle.training.objectives.frame_heads import FrameHeads, classes_of, greedy_words, pooled
from ossicle.training.objectives.timelines import Timelines, TimelinesConfig

RATE = 16000


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tiny sets: three sounds in two folds, and spoken words of two speakers."""
    root = tmp_path_factory.mktemp("sets")
    rng = np.random.default_rng(0)
    rows = {"esc10": [], "fsdd": []}
    for fold in (1, 2):
        for i, label in enumerate(("low", "middle", "high")):
            wave = 0.3 * np.sin(2 * np.pi * 300 * 3**i * np.arange(RATE) / RATE)
            rows["esc10"].append((f"{label}{fold}.wav", wave, {"label": label, "fold": fold}))
    for speaker in ("ann", "bob"):
        for word in ("one", "two"):
            wave = rng.normal(0, 0.1, RATE // 3)
            facts = {"label": WORDS.index(word), "transcript": word, "speaker": speaker, "gender": "male"}
            rows["fsdd"].append((f"{word}{speaker}.wav", wave, facts))
    for name, clips in rows.items():
        (root / name).mkdir()
        for file, wave, _ in clips:
            soundfile.write(root / name / file, wave, RATE)
        lines = [json.dumps({"path": file, **facts}) for file, _, facts in clips]
        (root / name / "manifest.jsonl").write_text("\n".join(lines))
    return root


def objective(root: Path, cache: Path | None = None, **settings: object) -> Timelines:
    torch.manual_seed(0)
    encoder = CnnEncoder(CnnConfig(channels=(4, 4, 8, 8), dim=16, depth=1, heads=2, num_mels=32, dropout=0.0))
    model = torch.nn.Module()
    model.ear = encoder
    config = TimelinesConfig(
        part="ear",
        root=str(root),
        mix={"esc10": 1.0, "fsdd": 1.0},
        heads=["label", "tags", "word", "ctc", "level"],
        held_out={"esc10": ["2"], "fsdd": ["bob"]},
        row_s=2.0,
        **settings,
    )
    stage = SimpleNamespace(micro=4)
    recipe = SimpleNamespace(seed=3)
    return Timelines(config, StageContext(model=model, processor=None, recipe=recipe, stage=stage, cache_dir=cache))


def test_batches_are_a_function_of_their_number(root: Path, tmp_path: Path) -> None:
    one, two = objective(root), objective(root, tmp_path)
    for step in (0, 7):
        first, second = one.batch(step), two.batch(step)
        assert torch.equal(first.mel, second.mel)
        assert [p.start for p in first.placements] == [p.start for p in second.placements]
    assert not torch.equal(one.batch(0).mel, one.batch(1).mel)
    assert [path.suffix for path in sorted((tmp_path / "sounds").glob("esc10-*"))] == [".json", ".npy"]


def test_held_out_groups_are_never_drawn(root: Path) -> None:
    task = objective(root)
    drawn = {(p.sound.pool, p.sound.group) for step in range(12) for p in task.batch(step).placements}
    assert drawn == {("esc10", "1"), ("fsdd", "ann")}
    assert {(s.pool, s.group) for s in task.held_out} == {("esc10", "2"), ("fsdd", "bob")}


def test_it_learns_and_keeps_the_average(root: Path) -> None:
    task = objective(root, ema=0.9)
    before = {name: value.clone() for name, value in task.encoder.state_dict().items()}
    optimizer = torch.optim.AdamW([*task.encoder.parameters(), *task.heads.parameters()], lr=3e-3)
    losses = []
    for step in range(40):
        out = task.loss(task.batch(step))
        losses.append(float(out.total.detach()) / out.count)
        optimizer.zero_grad()
        out.total.div(out.count).backward()
        optimizer.step()
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in task.heads.parameters())
    last = task.encoder.stem[0].conv1.weight.detach().clone()
    measured = task.finish()
    assert set(measured) == {"label esc10 (n=3)", "word (n=2)"}
    assert all(0 <= share <= 1 for share in measured.values())
    averaged = task.encoder.stem[0].conv1.weight
    assert not torch.equal(averaged, last) and not torch.equal(averaged, before["stem.0.conv1.weight"])


def test_pooling_looks_only_at_its_own_frames() -> None:
    frames = torch.zeros(2, 10, 3)
    frames[1, 4:6] = torch.tensor([1.0, 2.0, 3.0])
    sound = Sound(samples=np.zeros(1, np.int16), pool="x", label="a")
    places = [
        Placement(sound=sound, row=1, start=4 * 1280, length=2 * 1280, level_db=0),
        Placement(sound=sound, row=1, start=6 * 1280, length=1280, level_db=0),
        Placement(sound=sound, row=0, start=0, length=12800, level_db=0),
    ]
    got = pooled(frames, places)
    assert got[0].tolist() == [1, 2, 3, 1, 2, 3]
    assert got[1:].abs().sum() == 0


def test_ctc_learns_the_words_of_a_row() -> None:
    torch.manual_seed(0)
    said = [Sound(samples=np.zeros(1, np.int16), pool="fsdd", words=(word,)) for word in ("two", "nine")]
    heads = FrameHeads(8, classes_of(said, ["word"]), ["speech"], ["ctc", "word"])
    frames = torch.randn(1, 12, 8)
    places = [Placement(sound=s, row=0, start=(1 + 6 * i) * 1280, length=5120, level_db=0) for i, s in enumerate(said)]
    optimizer = torch.optim.Adam(heads.parameters(), lr=0.05)
    for _ in range(150):
        loss = heads.losses(frames, places, {})["ctc"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert heads.ctc is not None
    assert greedy_words(heads.ctc(frames[0])) == ["two", "nine"]


def test_warp_moves_bands_and_one_is_none() -> None:
    assert torch.allclose(timeline.warp_matrix(64, 100), torch.eye(64), atol=1e-5)
    mel = torch.zeros(1, 64)
    mel[0, 30] = 1
    assert (mel @ timeline.warp_matrix(64, 110)).argmax() > 30 > (mel @ timeline.warp_matrix(64, 90)).argmax()


def test_rows_hold_what_the_placements_say(root: Path) -> None:
    sound = Sound(samples=to_int16(0.5 * np.ones(8000)), pool="esc10", label="a")
    composer = TimelineComposer({"esc10": [sound]}, {"esc10": 1.0}, 4.0, 0.0)
    audio, placements, under = composer.rows(1, np.random.default_rng(8))
    inside = np.zeros(audio.shape[1], bool)
    for p in placements:
        inside[p.start : p.start + p.length] = True
        level = timeline.level_db(audio[0, p.start : p.start + p.length])  # the row may hold quiet noise besides
        assert p.level_db - 0.2 < level < p.level_db + (1.0 if p.level_db > -30 else 12.0)
    assert under == {} and np.abs(audio[0, ~inside]).max() < 0.06


def test_sounds_are_kept_and_read_back(tmp_path: Path) -> None:
    made = [Sound(samples=np.arange(5, dtype=np.int16), pool="x", words=("one",), pitch_hz=3.0)]
    first = kept(tmp_path / "x", lambda: made)
    second = kept(tmp_path / "x", list)
    for sound in (*first, *second):
        assert sound.words == ("one",) and sound.pitch_hz == 3.0 and sound.samples.tolist() == [0, 1, 2, 3, 4]


def test_decoded_sets_are_kept_by_place_and_manifest(tmp_path: Path) -> None:
    def lengths(root: Path) -> list[int]:
        found = pools(root, ["tones"], seed=0, counts={}, cache_dir=tmp_path / "cache")
        return [len(sound.samples) for sound in found["tones"]]

    for name, length in (("here", 800), ("there", 1600)):
        folder = tmp_path / name / "tones"
        folder.mkdir(parents=True)
        for clip in range(2):
            soundfile.write(folder / f"{clip}.wav", np.full(length, 0.5), RATE)
        (folder / "manifest.jsonl").write_text('{"path": "0.wav", "label": "tone"}')
    assert lengths(tmp_path / "here") == [800]
    assert lengths(tmp_path / "there") == [1600]
    with (tmp_path / "here" / "tones" / "manifest.jsonl").open("a") as file:
        file.write('\n{"path": "1.wav", "label": "tone"}')
    assert lengths(tmp_path / "here") == [800, 800]
    assert lengths(tmp_path / "here" / ".." / "there") == [1600]
    assert len(list((tmp_path / "cache").glob("*.json"))) == 3


def test_trim_and_split() -> None:
    wave = np.concatenate([np.zeros(8000), np.ones(1000), np.zeros(8000)])
    assert len(trim(wave)) == 1000 + 2 * 320
    assert len(trim(np.zeros(10))) == 10
    sounds = [Sound(samples=wave, pool="p", group=str(i)) for i in range(300)]
    assert 30 < sum(is_held_out(s, {"p": 0.2}) for s in sounds) < 90
    assert is_held_out(sounds[3], {"p": ["3"]}) and not is_held_out(sounds[4], {"p": ["3"]})
