"""Damaged recordings: a Waveform that says so, or an AudioError; never anything else, and never long."""

from __future__ import annotations

import logging
import struct
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from audio import audio_recordings as recordings
from ossicle.audio.io import audio_info, iterate_windows, load_audio
from ossicle.errors import AudioError
from ossicle.types import Waveform

DAMAGE = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
MAX_SECONDS = 5.0
STREAMED = sorted(set(recordings.KINDS) - recordings.CANNOT_LOSE_ITS_END)
SAY_THEIR_LENGTH = [
    kind for kind in STREAMED if not kind.startswith("ogg") and kind not in ("aac", "m4a fragments", "wav adpcm")
]


def outcome(data: bytes) -> Waveform | None:
    """Read the bytes; an AudioError is None."""
    started = time.monotonic()
    try:
        waveform = load_audio(data)
    except AudioError as error:
        assert "\n" not in str(error)
        return None
    finally:
        assert time.monotonic() - started < MAX_SECONDS
    assert len(waveform.samples) > 0
    assert np.isfinite(waveform.samples).all()
    assert waveform.lost_s >= 0
    assert waveform.truncated or waveform.lost_s == 0
    return waveform


@pytest.mark.parametrize("kind", STREAMED)
def test_what_is_cut_off_is_read_to_the_cut_with_one_warning(
    kind: str, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    data = recordings.sweep_file(kind)
    waveform = load_audio(data[: int(len(data) * 0.8)])
    whole = load_audio(data)
    assert waveform.truncated
    assert 1.5 < waveform.duration_s < 3.8
    shared = slice(0, len(waveform.samples) - 1600)
    np.testing.assert_allclose(waveform.samples[shared], whole.samples[shared], atol=2e-3)
    assert len(caplog.records) == 1
    assert caplog.records[0].levelno == logging.WARNING
    assert "damaged" in caplog.text
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", SAY_THEIR_LENGTH)
def test_seconds_lost_are_counted(kind: str) -> None:
    data = recordings.sweep_file(kind)
    for share in (0.9, 0.5, 0.2):
        waveform = load_audio(data[: int(len(data) * share)])
        assert waveform.duration_s + waveform.lost_s == pytest.approx(4.0, abs=0.06)
        assert waveform.lost_s > 0.05


@pytest.mark.parametrize("kind", sorted(recordings.CANNOT_LOSE_ITS_END))
def test_without_its_index_nothing_decodes(kind: str) -> None:
    data = recordings.sweep_file(kind)
    with pytest.raises(AudioError, match="is cut off"):
        load_audio(data[: int(len(data) * 0.9)])


@pytest.mark.parametrize("kind", ["wav 16", "flac 16", "mp3", "webm"])
def test_only_spans_that_reach_the_damage_are_marked(kind: str) -> None:
    data = recordings.sweep_file(kind)
    cut = data[: int(len(data) * 0.7)]
    assert not load_audio(cut, start_s=0.5, duration_s=1.0).truncated
    beyond = load_audio(cut, start_s=1.0, duration_s=2.8)
    assert beyond.truncated
    assert beyond.duration_s + beyond.lost_s == pytest.approx(2.8, abs=0.01)
    windows = list(iterate_windows(cut, 0.5))
    assert [window.truncated for window in windows] == [False] * (len(windows) - 1) + [True]


def test_sizes_written_by_streaming_programs_promise_nothing() -> None:
    data = bytearray(recordings.tone_file("wav 16"))
    place = data.index(b"data") + 4
    for size in (0xFFFF_FFFF, 0x7FFF_F000):
        data[place : place + 4] = struct.pack("<I", size)
        waveform = load_audio(bytes(data))
        assert waveform.duration_s == 2.0
        assert not waveform.truncated


def test_header_without_samples_is_an_error() -> None:
    data = recordings.tone_file("wav 16")
    for cut in (data[: data.index(b"data") + 8], recordings.by_soundfile(np.zeros(0), 16_000, "WAV", "PCM_16")):
        with pytest.raises(AudioError, match="no samples"):
            load_audio(cut)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_files_with_nan_or_infinity_are_refused(bad: float, subtype: str) -> None:
    samples = recordings.tone(0.5, 44_100)
    samples[10_000] = bad
    with pytest.raises(AudioError, match="NaN or infinite"):
        load_audio(recordings.by_soundfile(samples, 44_100, "WAV", subtype))


def test_absurd_rates_are_refused() -> None:
    data = bytearray(recordings.tone_file("wav 16"))
    for rate_hz in (1, 500, 4_000_000_000):
        data[24:28] = struct.pack("<I", rate_hz)
        with pytest.raises(AudioError):
            load_audio(bytes(data))


@DAMAGE
@given(kind=st.sampled_from(recordings.KINDS), share=st.floats(0, 1))
@example(kind="wav 16", share=1.0)
def test_cut_anywhere(kind: str, share: float) -> None:
    data = recordings.tone_file(kind)
    kept = round(len(data) * share)
    waveform = outcome(data[:kept])
    if kept == len(data):
        assert waveform is not None
        assert not waveform.truncated


@DAMAGE
@given(
    kind=st.sampled_from(recordings.KINDS),
    places=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(1, 255)), min_size=1, max_size=20),
    near_the_start=st.booleans(),
)
def test_changed_bytes(
    capfd: pytest.CaptureFixture[str], kind: str, places: list[tuple[float, int]], near_the_start: bool
) -> None:
    data = bytearray(recordings.tone_file(kind))
    reach = min(len(data), 200) if near_the_start else len(data)
    for share, change in places:
        data[int(share * reach)] ^= change
    outcome(bytes(data))
    assert capfd.readouterr() == ("", "")


@DAMAGE
@given(
    garbage=st.binary(max_size=4096),
    prefix=st.sampled_from([b"", b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"FORM"]),
)
def test_garbage(garbage: bytes, prefix: bytes) -> None:
    outcome(prefix + garbage)


@DAMAGE
@given(
    kind=st.sampled_from(recordings.KINDS), first=st.floats(0, 1), length=st.integers(1, 3000), fill=st.integers(0, 255)
)
def test_holes(kind: str, first: float, length: int, fill: int) -> None:
    data = bytearray(recordings.tone_file(kind))
    start = int(first * len(data))
    end = min(start + length, len(data))
    data[start:end] = bytes([fill]) * (end - start)
    outcome(bytes(data))


@DAMAGE
@given(
    kind=st.sampled_from(recordings.KINDS),
    share=st.floats(0, 1),
    start_s=st.floats(0, 3),
    duration_s=st.floats(0.001, 3),
)
def test_spans_info_and_windows_of_cut_files(kind: str, share: float, start_s: float, duration_s: float) -> None:
    data = recordings.tone_file(kind)
    cut = data[: int(len(data) * share)]
    try:
        assert audio_info(cut).duration_s > 0
        assert load_audio(cut, start_s=start_s, duration_s=duration_s).duration_s <= duration_s + 1e-3
        assert sum(len(window.samples) for window in iterate_windows(cut, 0.3)) > 0
    except AudioError:
        assert share < 1 or start_s > 1.9
