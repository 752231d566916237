"""Scenes: the truth agrees with what we measure, ends always fit, and the same seed is the same scene."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ossicle.audio.acoustics import measure
from ossicle.errors import AudioError, DataError
from ossicle.types import Waveform
from ossicle.world import speech as espeak
from ossicle.world.items import Item, clip, sound, speech
from ossicle.world.scenes import Room, compose, random_scene
from ossicle.world.sounds import SOURCES
from world.world_measures import envelope, f0_hz, first_loud_s, pulses, rms_db

RATE_HZ = 16_000
LOW_PITCHED = [name for name, s in SOURCES.items() if s.pitch and name != "beeps" and s.ranges["pitch_hz"].low <= 500]
"""Continuous sources whose F0 lies where the library looks for voices."""


def span(scene, event) -> np.ndarray:
    """Return the samples of an event."""
    return scene.waveform.samples[round(event.start_s * RATE_HZ) : round(event.end_s * RATE_HZ)]


def three(seed: int) -> list[Item]:
    rng = np.random.default_rng(seed)
    return [sound("beeps", rng, count=3), sound("siren", rng), sound("knocking", rng, count=4)]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("duration_s", [None, 9.0])
def test_truth_is_what_we_measure(seed: int, duration_s: float | None) -> None:
    scene = compose(np.random.default_rng(seed), three(seed), duration_s)
    assert scene.labels() == ["beeps", "siren", "knocking"]
    assert [event.count for event in scene.events] == [3, None, 4]
    assert duration_s is None or scene.duration_s == duration_s
    assert rms_db(span(scene, scene.events[0])) == pytest.approx(scene.events[0].level_db, abs=0.1)
    silent_until_s = 0.0
    for event in scene.events:
        gap = scene.waveform.samples[round(silent_until_s * RATE_HZ) : round(event.start_s * RATE_HZ)]
        assert np.abs(gap).max(initial=0.0) < 1e-6, "nothing is heard between events"
        assert first_loud_s(span(scene, event)) < 0.03
        assert rms_db(span(scene, event)) == pytest.approx(event.level_db, abs=0.1)
        assert np.abs(span(scene, event)[-200:]).max() > 1e-3, "an event ends when its sound ends"
        silent_until_s = event.end_s
    assert [pulses(span(scene, scene.events[index])) for index in (0, 2)] == [3, 4]
    assert f0_hz(span(scene, scene.events[0])[:1000]) == pytest.approx(scene.events[0].f0_hz, rel=0.03)


def test_random_scenes_measure_true() -> None:
    for seed in range(25):
        scene = random_scene(np.random.default_rng(seed), duration_s=6.0 if seed % 2 else None)
        assert np.abs(scene.waveform.samples).max() < 1.0 and np.isfinite(scene.waveform.samples).all()
        assert len(set(scene.labels())) == len(scene.events)
        for event in scene.events:
            assert 0.0 <= event.start_s < event.end_s <= scene.duration_s
            if scene.background is None and scene.room is None:
                assert rms_db(span(scene, event)) == pytest.approx(event.level_db, abs=0.1)
                if event.f0_hz and event.label != "beeps":
                    assert f0_hz(span(scene, event)) == pytest.approx(event.f0_hz, rel=0.03)


@pytest.mark.parametrize("name", LOW_PITCHED)
def test_truth_agrees_with_the_library_s_own_measures(name: str) -> None:
    ranges = SOURCES[name].ranges["pitch_hz"]
    for seed, share in enumerate((0.2, 0.5, 0.8)):
        pitch_hz = min(550.0, max(75.0, ranges.low * (ranges.high / ranges.low) ** share))
        if not ranges.low <= pitch_hz <= ranges.high:
            continue
        rng = np.random.default_rng(seed)
        scene = compose(rng, [sound(name, rng, 1.2, params={"pitch_hz": pitch_hz})])
        (event,) = scene.events
        measured = measure(Waveform(samples=span(scene, event)))
        assert measured.f0_median_hz == pytest.approx(event.f0_hz, rel=0.03)
        assert measured.rms_db == pytest.approx(event.level_db, abs=1.0)


def test_same_seed_same_scene() -> None:
    first, again, other = (random_scene(np.random.default_rng(seed)) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first.waveform.samples, again.waveform.samples)
    assert first.truth() == again.truth() != other.truth()
    assert json.loads(json.dumps(first.truth())) == first.truth()


def test_background_lies_under_the_events_by_the_snr() -> None:
    for snr_db in (0.0, 10.0, 20.0):
        quiet = compose(np.random.default_rng(1), three(1), 9.0, gain_db=(-40, -36))
        noisy = compose(np.random.default_rng(1), three(1), 9.0, gain_db=(-40, -36), background="rain", snr_db=snr_db)
        background = noisy.waveform.samples - quiet.waveform.samples
        events = np.concatenate([span(quiet, event) for event in quiet.events])
        assert rms_db(events) - rms_db(background) == pytest.approx(snr_db, abs=0.2)
        assert noisy.background is not None
        assert rms_db(background) == pytest.approx(noisy.background.level_db, abs=0.2)
        assert noisy.contains("rain") and noisy.count("rain") == 0 and noisy.snr_db == snr_db


def test_a_short_background_is_repeated() -> None:
    behind = Item(
        samples=np.tile([0.5, -0.5], 800).astype(np.float32), kind="clip", label="hum", spoken="a hum", source="x"
    )
    scene = compose(np.random.default_rng(0), [], 2.0, background=behind)
    assert envelope(scene.waveform.samples).min() == pytest.approx(envelope(scene.waveform.samples).max())
    assert scene.events == () and scene.snr_db is None


@pytest.mark.parametrize(("sixty_s", "direct_db"), [(0.3, 0.0), (0.8, 6.0), (1.5, 12.0)])
def test_a_room_decays_as_it_says(sixty_s: float, direct_db: float) -> None:
    response = Room(sixty_s=sixty_s, direct_db=direct_db, seed=2).response()
    assert response[0] == 1.0
    assert -10 * np.log10(np.sum(response[1:] ** 2)) == pytest.approx(direct_db, abs=0.01)
    tail = response[100:]
    left_db = 10 * np.log10(np.cumsum(tail[::-1] ** 2)[::-1] / np.sum(tail**2))
    at = [int(np.argmax(left_db < level)) / RATE_HZ for level in (-5.0, -25.0)]
    assert 3 * (at[1] - at[0]) == pytest.approx(sixty_s, rel=0.1)


def test_a_room_keeps_onset_and_level_and_adds_a_tail() -> None:
    dry = compose(np.random.default_rng(3), three(3), 9.0)
    wet = compose(np.random.default_rng(3), three(3), 9.0, room=Room(sixty_s=1.0, direct_db=3.0))
    assert [event.start_s for event in wet.events] == [event.start_s for event in dry.events]
    first = wet.events[0]
    assert first_loud_s(wet.waveform.samples) == pytest.approx(first.start_s, abs=0.01)
    assert rms_db(span(wet, first)) == pytest.approx(first.level_db, abs=0.1)
    after = slice(round(first.end_s * RATE_HZ), round(first.end_s * RATE_HZ) + 1600)
    assert np.abs(dry.waveform.samples[after]).max() < 1e-6 < 1e-3 < np.abs(wet.waveform.samples[after]).max()
    with pytest.raises(DataError, match="sixty_s"):
        Room(sixty_s=0.0).response()


def test_loud_scenes_are_turned_down_with_their_truth() -> None:
    scene = compose(np.random.default_rng(0), three(0), 9.0, gain_db=(3.0, 3.0))
    assert np.abs(scene.waveform.samples).max() == pytest.approx(0.99, abs=1e-3)
    for event in scene.events:
        assert event.level_db < 3.0
        assert rms_db(span(scene, event)) == pytest.approx(event.level_db, abs=0.1)


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 4000), max_size=6),
    extra=st.integers(-400, 8000),
    gap_ms=st.integers(-100, 200),
    seed=st.integers(0, 2**31),
    fixed=st.booleans(),
)
def test_ends_always_fit(lengths: list[int], extra: int, gap_ms: int, seed: int, fixed: bool) -> None:
    items = [Item(samples=np.ones(n, np.float32), kind="clip", label="x", spoken="x", source="x") for n in lengths]
    duration_s = (sum(lengths) + extra) / RATE_HZ if fixed else None
    try:
        scene = compose(np.random.default_rng(seed), items, duration_s, gap_s=(gap_ms / 1000, 0.3))
    except DataError as error:
        assert (fixed and "need" in str(error)) or (not fixed and not lengths)
        return
    assert len(scene.events) == len(items)
    ends = [event.end_s for event in scene.events]
    starts = [event.start_s for event in scene.events]
    assert starts == sorted(starts) and ends == sorted(ends)
    assert not items or (starts[0] >= 0 and ends[-1] <= scene.duration_s + 1e-9)
    assert fixed is False or len(scene.waveform.samples) == sum(lengths) + extra
    if gap_ms >= 0:
        assert all(b - a >= gap_ms / 1000 - 1e-4 for a, b in zip(ends, starts[1:], strict=False))


def test_no_events() -> None:
    scene = compose(np.random.default_rng(0), [], 1.5)
    assert scene.duration_s == 1.5 and scene.events == () and not scene.waveform.samples.any()
    assert random_scene(np.random.default_rng(0), num_events=0, duration_s=1.0).events == ()
    with pytest.raises(DataError, match="neither items nor a duration"):
        compose(np.random.default_rng(0), [])


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(DataError, match=r"3 events need .* s with gaps, but duration_s is 2.0"):
        compose(np.random.default_rng(0), three(0), 2.0)
    with pytest.raises(DataError, match="shortest gap first"):
        compose(np.random.default_rng(0), three(0), gap_s=(0.5, 0.1))
    with pytest.raises(DataError, match="5 distinct events from 2 sources"):
        random_scene(np.random.default_rng(0), num_events=5, labels=["tone", "siren"])
    with pytest.raises(DataError, match="did you mean 'siren'"):
        sound("sirene", np.random.default_rng(0))
    with pytest.raises(DataError, match="countable"):
        sound("siren", np.random.default_rng(0), count=3)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_sound_is_heard_as_often_as_asked(count: int) -> None:
    for name in ("beeps", "footsteps", "water drops", "telephone keys"):
        item = sound(name, np.random.default_rng(count), count=count)
        assert item.count == count == pulses(item.samples)


def test_real_clips_are_resampled_and_cut_to_their_sound() -> None:
    tone = 0.5 * np.sin(2 * np.pi * 300 * np.arange(22_050) / 44_100)
    samples = np.concatenate([np.zeros(8000), tone, np.zeros(9000)]).astype(np.float32)
    item = clip(Waveform(samples=samples, sample_rate_hz=44_100, name="dog.wav"), "dog", "a dog")
    assert item.duration_s == pytest.approx(0.5, abs=0.005)
    assert f0_hz(item.samples) == pytest.approx(300, rel=0.01)
    scene = compose(np.random.default_rng(0), [item], 2.0)
    assert scene.events[0].source == "dog.wav" and scene.labels() == ["dog"]
    for bad in (np.zeros(100, np.float32), np.zeros(0, np.float32), np.ones((2, 50), np.float32)):
        with pytest.raises(AudioError, match=r"dog\.wav"):
            clip(Waveform(samples=bad, name="dog.wav"), "dog")


@pytest.mark.skipif(not espeak.available(), reason="espeak-ng is not installed")
def test_who_says_what() -> None:
    rng = np.random.default_rng(0)
    items = [speech("four", espeak.draw_voice(rng, "woman")), sound("bell", rng), speech("seven", "en-us")]
    scene = compose(rng, items, 6.0)
    assert scene.text() == "four seven" and [event.gender for event in scene.events] == ["woman", None, None]
    assert scene.events[0].spoken == "a woman speaking" and scene.count("speech") == 2
    assert rms_db(span(scene, scene.events[2])) == pytest.approx(scene.events[2].level_db, abs=0.1)
