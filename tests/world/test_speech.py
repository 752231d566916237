"""Speech by espeak-ng: what it returns, who speaks, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from ossicle.errors import DataError, UnsupportedError
from ossicle.world import speech
from world.world_measures import f0_hz, rms_db

needs_espeak = pytest.mark.skipif(not speech.available(), reason="espeak-ng is not installed")


def voice_hz(samples: np.ndarray) -> float:
    """Return the median F0 of the loud 50 ms frames."""
    frames = samples[: len(samples) // 800 * 800].reshape(-1, 800)
    return float(np.nanmedian([f0_hz(frame, low_hz=60, high_hz=400) for frame in frames if frame.std() > 0.08]))


@needs_espeak
def test_speech_is_trimmed_seeded_and_bounded() -> None:
    spoken = speech.say("four seven")
    assert spoken.sample_rate_hz == 16_000 and spoken.samples.dtype == np.float32
    assert 0.5 < spoken.duration_s < 1.5
    assert np.abs(spoken.samples).max() == pytest.approx(0.8, rel=1e-3)
    assert np.abs(spoken.samples[:160]).max() > 0.005 and np.abs(spoken.samples[-160:]).max() > 0.005
    np.testing.assert_array_equal(spoken.samples, speech.say("four seven").samples)


@needs_espeak
def test_speed_and_rate_and_pitch_are_heard() -> None:
    assert speech.say("four seven", speed_wpm=250).duration_s < 0.8 * speech.say("four seven", speed_wpm=120).duration_s
    slow = speech.say("four seven", rate_hz=8000)
    assert slow.sample_rate_hz == 8000
    assert slow.duration_s == pytest.approx(speech.say("four seven").duration_s, abs=0.01)
    low, high = (voice_hz(speech.say("four seven", pitch=pitch).samples) for pitch in (10, 90))
    assert high > 1.2 * low


@needs_espeak
def test_women_speak_higher_than_men_in_every_accent() -> None:
    assert len(speech.voices()) > 50
    for accent in {voice.accent for voice in speech.voices()}:
        found = {"woman": [], "man": []}
        for voice in speech.voices():
            if voice.accent == accent and voice.gender and voice.name.endswith(("1", "3", "linda", "Andy")):
                found[voice.gender].append(voice_hz(speech.say("four seven nine", voice.name).samples))
        assert min(found["woman"]) > 145 > 125 > max(found["man"])


@needs_espeak
def test_telephone_band() -> None:
    full, narrow = speech.say("six six"), speech.say("six six", telephone=True)
    share = []
    for spoken in (full, narrow):
        power = np.abs(np.fft.rfft(spoken.samples, 1 << 15)) ** 2
        share.append(power[9000:].sum() / power.sum())
    assert share[1] < 1e-3 < share[0]
    assert rms_db(narrow.samples) > -30


@needs_espeak
def test_text_is_never_read_as_options() -> None:
    assert speech.say("-q --version seven").duration_s > 1.0


@needs_espeak
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text": "  "}, "nothing to say"),
        ({"text": "one", "voice": "en-us+nobody"}, "no English voice"),
        ({"text": "one", "voice": "-w/tmp/x"}, "not a voice name"),
        ({"text": "one", "voice": "en us"}, "not a voice name"),
        ({"text": "one", "speed_wpm": 10}, "words per minute"),
        ({"text": "one", "pitch": 200}, "pitch"),
    ],
)
def test_wrong_settings_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        speech.say(**arguments)


@needs_espeak
def test_a_voice_is_drawn_by_gender() -> None:
    rng = np.random.default_rng(0)
    assert {speech.draw_voice(rng, "woman").gender for _ in range(5)} == {"woman"}
    with pytest.raises(DataError, match="gender"):
        speech.draw_voice(rng, "robot")


def test_without_espeak_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech.shutil, "which", lambda name: None)
    assert not speech.available()
    speech._files.cache_clear()
    with pytest.raises(UnsupportedError, match="apt-get install espeak-ng"):
        speech.say("one")


@needs_espeak
def test_an_endless_text_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speech, "TIMEOUT_S", 0.0005)
    with pytest.raises(DataError, match="shorter text"):
        speech.say("seven " * 2000)
