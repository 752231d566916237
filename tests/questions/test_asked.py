"""Questions of composed audios: facts are true of the samples, answers of the facts, wordings of their task."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from ossicle.data.material import DIGITS, Sound, to_int16
from ossicle.data.source import SourceContext
from ossicle.errors import ConfigError
from ossicle.questions import closed, levels, outside, wording
from ossicle.questions.asked import BASE_POOLS, Asked, AskedConfig
from ossicle.questions.compose import Composer, Piece
from ossicle.questions.heard import Event, Heard

RATE = 16000


def tone(label: str | None, hertz: float, seconds: float = 1.0, **facts: object) -> Sound:
    samples = 0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * RATE)) / RATE)
    return Sound(samples=to_int16(samples), pool=str(facts.pop("pool", "esc10")), label=label, **facts)


def digit(word: str, voice: str) -> Sound:
    return tone(None, 200 + 50 * DIGITS.index(word), 0.3, pool="fsdd", words=(word,), gender="male", group=voice)


@pytest.fixture(scope="module")
def composer() -> Composer:
    sounds = [tone(label, 300 + 90 * i, 2.0) for i, label in enumerate(("rain", "rooster", "dog bark", "sea waves"))]
    world = [tone(label, 440, 1.0, pool="world", pitch_hz=440.0) for label in ("siren", "bell", "drill")]
    voices = ("emodb_2s", "librispeech_gender251", "librispeech_other100", "kathleen_arctic300", "phrases")
    pools = {
        "esc10": sounds,
        "world": world,
        "berklee_sounds": [tone("glass", 900, pool="berklee_sounds")],
        "fsdd": [digit(word, voice) for word in DIGITS for voice in ("a", "b")],
        "words": [tone(None, 250, 0.4, pool="words", words=("stop",))],
    }
    pools |= {v: [tone(None, 150, 1.5, pool=v, words=None, gender="female", emotion="anger")] for v in voices}
    return Composer(pools)


@pytest.mark.parametrize("kind", ["esc10", "world", "emodb_2s", "scene", "digits", "mixture", "long", "silence"])
def test_facts_are_true_of_the_samples(composer: Composer, kind: str) -> None:
    for seed in range(6):
        piece = composer.draw(kind, np.random.default_rng(seed))
        audio = piece.render()
        assert len(audio) == piece.length and audio.dtype == np.float32 and np.abs(audio).max(initial=0) <= 1
        dry = Piece(parts=piece.parts, length=piece.length).render()
        previous = 0
        for part, event in zip(piece.parts, piece.heard.events, strict=True):
            assert part.start >= previous and part.start + part.heard_samples <= piece.length
            heard = dry[part.start : part.start + part.heard_samples]
            assert 10 * np.log10(np.mean(heard**2)) == pytest.approx(event.level_db, abs=0.7)
            previous = part.start + part.heard_samples


def test_pitch_moves_with_speed(composer: Composer) -> None:
    sound = tone("whistle", 500, pool="esc10", pitch_hz=500.0)
    part = composer.part(sound, 1.0, -20, np.random.default_rng(3))
    spectrum = np.abs(np.fft.rfft(part.samples(), 1 << 17))
    assert part.speed != 1
    assert part.event().pitch_hz == pytest.approx(np.argmax(spectrum) * RATE / (1 << 17), rel=0.01)


def test_runs_with_other_seeds_may_hear_the_same_audios_and_leave_kinds_out(tmp_path: Path) -> None:
    """`audio_seed` fixes the audios, `repeats` which of them are asked about: their features are kept once."""
    for pool in BASE_POOLS:
        (tmp_path / pool).mkdir()
        (tmp_path / pool / "manifest.jsonl").touch()

    def source(seed: int, **settings: object) -> Asked:
        items = {"world": 3, "silence": 2}
        config = AskedConfig(root=str(tmp_path), items=items, synthesised={"world": 12}, **settings)
        return Asked(config, SourceContext(seed=seed))

    first, second = source(0, audio_seed=1), source(5, audio_seed=1, repeats={"silence": 0, "world": 2})
    names = [first.audio(item).name for item in range(5)]
    assert names == [second.audio(item).name for item in range(5)] == [source(1).audio(i).name for i in range(5)]
    assert names[0] != source(0).audio(0).name
    assert np.array_equal(first.audio(0).load().samples, second.audio(0).load().samples)
    assert [second.order.count(item) for item in range(5)] == [2, 2, 2, 0, 0]
    assert first.sample(0).messages != second.sample(0).messages
    with pytest.raises(ConfigError, match="leave nothing to ask about"):
        source(0, repeats={"world": 0, "silence": 0})


def test_audios_of_other_sets_have_other_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their features are kept under these names: one variable may stand for a folder now and for another one later."""
    for pool in BASE_POOLS:
        for root in ("here", "there"):
            (tmp_path / root / pool).mkdir(parents=True)
            (tmp_path / root / pool / "manifest.jsonl").touch()

    def name(root: str) -> str:
        monkeypatch.setenv("SETS", str(tmp_path / root))
        config = AskedConfig(root="${SETS}", items={"silence": 1}, synthesised={"world": 2})
        return Asked(config, SourceContext()).audio(0).name

    first = name("here")
    assert first == name("here") == name("there/../here")
    assert first != name("there")
    (tmp_path / "here" / BASE_POOLS[0] / "manifest.jsonl").write_text("\n")
    assert first != name("here")


def events(*sounds: Sound) -> Heard:
    return Heard(
        events=tuple(Event(sound=s, start_s=i, level_db=-30.0, pitch_hz=s.pitch_hz) for i, s in enumerate(sounds)),
        duration_s=5,
    )


def ask(heard: Heard, task: str, seed: int = 0) -> str:
    return closed.question(heard, np.random.default_rng(seed), lambda: events(tone("bell", 400)), task)[2]


def test_answers() -> None:
    scene = events(tone("rain", 300), tone("rooster", 500))
    assert ask(scene, "hear") == "Rain, then a rooster."
    assert ask(scene, "count") == "Rain, then a rooster: two sounds."
    assert (ask(scene, "first"), ask(scene, "last")) == ("Rain.", "A rooster.")
    assert {ask(scene, "after", seed) for seed in range(9)} == {"A rooster.", "Nothing."}
    said = events(digit("four", "a"), digit("zero", "a"))
    assert ask(said, "say") == "Four zero." and ask(said, "count_words") == "Four zero: two digits."
    assert ask(said, "hear") == "A voice saying four zero."
    assert ask(said, "gender") == "A man."
    assert ask(events(), "hear") == "Silence." and ask(events(), "anything") == "No, there is silence."
    assert ask(events(tone("siren", 440, pitch_hz=500.0)), "pitch") == "High."
    assert ask(events(tone("piano", 440)), "family") == "A keyboard instrument."
    assert ask(scene, "outside").startswith("I cannot")


def test_tasks_fit_only_what_can_be_answered() -> None:
    scene = events(tone("rain", 300), tone("rooster", 500))
    assert not {"say", "gender", "emotion", "rate", "pitch", "loudness", "family"} & set(closed.fitting(scene))
    assert {"count", "after", "first"} <= set(closed.fitting(scene))
    assert {"say", "gender"} <= set(closed.fitting(events(digit("one", "a"))))


def test_presence_ends_where_nothing_is_absent(composer: Composer) -> None:
    rng = np.random.default_rng(0)
    facts = composer.draw("esc10", np.random.default_rng(1)).heard
    for _ in range(20):
        _, _, answer = closed.question(facts, rng, lambda: facts, "presence")
        assert answer.endswith(": yes.")


def test_presence_is_balanced_for_each_name(composer: Composer) -> None:
    facts = [composer.draw("scene", np.random.default_rng(seed)).heard for seed in range(60)]
    rng = np.random.default_rng(0)
    yes: dict[str, Counter[bool]] = defaultdict(Counter)
    for i in range(3000):
        _, asked, answer = closed.question(facts[i % 60], rng, lambda: facts[rng.integers(60)], "presence")
        heard, _, judged = answer.rstrip(".").rpartition(": ")
        assert heard and judged in ("yes", "no")
        names = [said for name in facts[i % 60].present() for said in (name, *closed.ALIASES.get(name, ()))]
        assert judged == "no" or any(said.split()[-1] in asked.lower() for said in names), (asked, answer)
        yes[heard][judged == "yes"] += 1
    present = sum(counts[True] for counts in yes.values())
    assert 0.45 < present / 3000 < 0.55


def words_of(text: str) -> set[str]:
    return set(re.findall(r"[a-z']+", text.lower()))


def test_no_two_tasks_are_one_word_apart() -> None:
    book = wording.grammar()
    texts = {
        task: {re.sub(r"[^a-z' ]", "", w.lower().replace("{x}", "it")) for w in wordings}
        for task, wordings in book["tasks"].items()
    }
    for one, other in combinations(texts, 2):
        assert not texts[one] & texts[other], (one, other)
    assert all(len(texts[task]) >= 20 for task in ("hear", "first", "last", "count", "say", "gender", "emotion"))
    assert len(texts) >= 15


def test_wordings_vary_and_are_filled() -> None:
    rng = np.random.default_rng(1)
    asked = {wording.ask("hear", rng) for _ in range(400)} | {outside.ask(rng) for _ in range(400)}
    assert len(asked) > 450
    assert not any(re.search(r"[{}]", text) for text in asked)
    assert any(text == text.lower() for text in asked)


def test_training_code_reads_no_evaluation_wordings() -> None:
    for room in ("questions", "data", "training"):
        for path in (Path(wording.__file__).parent.parent / room).rglob("*.py"):
            assert "phrasings" not in path.read_text(encoding="utf-8"), path


def test_levels_are_those_of_the_evaluation() -> None:
    from ossicle.evaluation import levels as asked

    assert (levels.LOUDNESS, levels.LOUDNESS_DB) == (asked.LOUDNESS, asked.LOUDNESS_DB)
    assert (levels.PITCH, levels.PITCH_HZ) == (asked.PITCH, asked.PITCH_HZ)
    assert levels.level_of(-60, levels.LOUDNESS_DB, levels.LOUDNESS) == "very quiet"
    assert levels.level_of(-20, levels.LOUDNESS_DB, levels.LOUDNESS) == "very loud"
