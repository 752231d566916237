"""Reading whole recordings: formats, depths, rates, channels, sources, spans, windows."""

from __future__ import annotations

import io
import logging
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
import soxr
import torch

from audio import audio_recordings as recordings
from ossicle.audio.io import SUFFIXES, audio_info, is_audio_path, iterate_windows, load_audio
from ossicle.errors import AudioError
from ossicle.types import Waveform

PADDING_S = 0.06


def frequency_and_peak(samples: np.ndarray, rate_hz: int = 16_000) -> tuple[float, float]:
    """Return the strongest frequency in Hz and the amplitude of a sine of that power."""
    middle = samples[len(samples) // 4 : -len(samples) // 4].astype(np.float64)
    spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 1 << 19))
    return float(np.argmax(spectrum)) * rate_hz / (1 << 19), float(np.sqrt(2 * np.mean(middle**2)))


@pytest.mark.parametrize("kind", recordings.KINDS)
def test_every_format_keeps_frequency_level_and_length(kind: str) -> None:
    waveform = load_audio(recordings.tone_file(kind))
    hz, peak = frequency_and_peak(waveform.samples)
    assert waveform.samples.dtype == np.float32
    assert waveform.samples.ndim == 1
    assert waveform.sample_rate_hz == 16_000
    assert abs(waveform.duration_s - 2.0) < PADDING_S
    assert not waveform.truncated
    assert hz == pytest.approx(440.0, abs=0.3)
    assert peak == pytest.approx(recordings.TONE_PEAK, rel=0.06)


@pytest.mark.parametrize("kind", recordings.KINDS)
def test_span_equals_that_slice_of_the_whole(kind: str) -> None:
    data = recordings.sweep_file(kind)
    whole = load_audio(data).samples
    for start_s, duration_s in ((0.0, 0.5), (1.7003, 0.61), (2.9, 0.3)):
        first = round(start_s * 16_000)
        span = load_audio(data, start_s=start_s, duration_s=duration_s).samples
        assert len(span) == round((start_s + duration_s) * 16_000) - first
        np.testing.assert_allclose(span, whole[first : first + len(span)], atol=2e-4)


@pytest.mark.parametrize("kind", recordings.KINDS)
def test_info_agrees_with_what_is_decoded(kind: str) -> None:
    data = recordings.sweep_file(kind)
    info = audio_info(data)
    assert info.channels == 1
    assert info.sample_rate_hz == recordings.AV_KINDS.get(kind, (44_100,))[0]
    assert info.duration_s == pytest.approx(load_audio(data).duration_s, abs=PADDING_S)


@pytest.mark.parametrize(
    "rate_hz", [4_000, 8_000, 11_025, 16_000, 22_050, 32_000, 44_100, 44_101, 48_000, 96_000, 192_000]
)
def test_every_rate_equals_one_pass_of_the_resampler(rate_hz: int) -> None:
    samples = recordings.tone(1.0, rate_hz)
    waveform = load_audio(recordings.by_soundfile(samples, rate_hz, "WAV", "FLOAT"))
    expected = soxr.resample(samples, rate_hz, 16_000)
    assert len(waveform.samples) == 16_000
    np.testing.assert_allclose(waveform.samples, expected, atol=1e-6)


@pytest.mark.parametrize("channels", range(1, 9))
@pytest.mark.parametrize(("container", "subtype"), [("WAV", "PCM_16"), ("FLAC", "PCM_24"), ("AIFF", "PCM_16")])
def test_channels_are_averaged(channels: int, container: str, subtype: str) -> None:
    columns = np.stack([recordings.tone(0.3, 16_000, hz=200.0 * (1 + c)) for c in range(channels)], axis=1)
    data = recordings.by_soundfile(columns, 16_000, container, subtype)
    assert audio_info(data).channels == channels
    np.testing.assert_allclose(load_audio(data).samples, columns.mean(1), atol=1e-4)


@pytest.mark.parametrize("layout", ["stereo", "5.1", "7.1", "hexadecagonal"])
@pytest.mark.parametrize(("container", "codec"), [("ipod", "aac"), ("mov", "pcm_s16le"), ("matroska", "pcm_f32le")])
def test_many_channels_through_ffmpeg(layout: str, container: str, codec: str) -> None:
    channels = av.AudioLayout(layout).nb_channels
    if codec == "aac" and channels > 8:
        pytest.skip("the encoder writes no more than 8 channels")
    columns = [recordings.tone(0.5, 44_100, hz=300.0 if c == 0 else 3000.0) for c in range(channels)]
    data = recordings.by_av(np.stack(columns), 44_100, container, codec, layout=layout)
    assert audio_info(data).channels == channels
    samples = load_audio(data).samples[2000:6000]
    low, high = (abs(np.exp(-2j * np.pi * hz * np.arange(4000) / 16_000) @ samples) / 2000 for hz in (300, 3000))
    assert low == pytest.approx(recordings.TONE_PEAK / channels, rel=0.2)
    assert codec == "aac" or high == pytest.approx(recordings.TONE_PEAK * (channels - 1) / channels, rel=0.05)


def test_vorbis_stereo() -> None:
    columns = np.repeat(recordings.tone(1.0, 44_100)[:, None], 2, axis=1)
    hz, peak = frequency_and_peak(load_audio(recordings.by_soundfile(columns, 44_100, "OGG", "VORBIS")).samples)
    assert hz == pytest.approx(440.0, abs=0.3)
    assert peak == pytest.approx(recordings.TONE_PEAK, rel=0.05)


def test_every_source_gives_the_same_samples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = recordings.tone_file("wav 16")
    path = tmp_path / "a clip é.WAV"
    path.write_bytes(data)
    expected = load_audio(path)
    assert expected.name == str(path)
    monkeypatch.setenv("HOME", str(tmp_path))
    samples, rate_hz = soundfile.read(io.BytesIO(data), dtype="int16")
    with path.open("rb") as file:
        sources = [
            str(path),
            f"~/{path.name}",
            data,
            bytearray(data),
            memoryview(data),
            file,
            io.BytesIO(data),
            (samples, rate_hz),
        ]
        sources += [(rate_hz, samples), (torch.from_numpy(samples), rate_hz), expected]
        for source in sources:
            np.testing.assert_array_equal(load_audio(source).samples, expected.samples)


def test_suffix_does_not_decide(tmp_path: Path) -> None:
    for suffix in (".raw", ".txt", ".mp3", ""):
        path = tmp_path / f"clip{suffix}"
        path.write_bytes(recordings.tone_file("wav 16"))
        assert load_audio(path).duration_s == 2.0


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "int32", "float16", "float32", "float64"])
def test_array_types_are_scaled_by_their_width(dtype: str) -> None:
    kind = np.dtype(dtype)
    if kind.kind == "f":
        samples = np.array([0.5, -0.5], kind)
    else:
        half = 1 << (8 * kind.itemsize - 2)
        samples = np.array([half, -half]) + (2 * half if kind.kind == "u" else 0)
    np.testing.assert_allclose(load_audio(samples.astype(kind)).samples, [0.5, -0.5], atol=1e-3)


def test_array_channels_lie_on_the_shorter_axis_and_the_caller_keeps_his_array() -> None:
    stereo = np.stack([recordings.tone(0.1, 16_000), np.zeros(1600, np.float32)])
    np.testing.assert_allclose(load_audio(stereo).samples, stereo.mean(0))
    np.testing.assert_allclose(load_audio(stereo.T).samples, stereo.mean(0))
    own = recordings.tone(0.1, 16_000)
    load_audio(own).samples[:] = 9.0
    assert np.abs(own).max() < 1.0
    np.testing.assert_allclose(load_audio(torch.ones(50, dtype=torch.bfloat16)).samples, 1.0)


def test_another_rate_can_be_asked_for() -> None:
    waveform = load_audio(recordings.tone_file("flac 16"), sample_rate_hz=32_000)
    assert waveform.sample_rate_hz == 32_000
    assert waveform.duration_s == 2.0
    assert frequency_and_peak(waveform.samples, 32_000)[0] == pytest.approx(440.0, abs=0.3)


def test_span_beyond_the_end_is_left_out_quietly(caplog: pytest.LogCaptureFixture) -> None:
    waveform = load_audio(recordings.tone_file("flac 16"), start_s=1.5, duration_s=10.0)
    assert waveform.duration_s == 0.5
    assert not waveform.truncated
    assert not caplog.records
    with pytest.raises(AudioError, match=r"starts at 2\.5 s, the recording ends at 2\.00 s"):
        load_audio(recordings.tone_file("flac 16"), start_s=2.5)


@pytest.mark.parametrize("kind", ["wav 16", "flac 16", "ogg vorbis", "mp3", "m4a", "webm"])
def test_windows_end_to_end_are_the_whole(kind: str) -> None:
    data = recordings.sweep_file(kind)
    whole = load_audio(data)
    windows = list(iterate_windows(data, 0.75))
    assert [len(window.samples) for window in windows[:-1]] == [12_000] * (len(windows) - 1)
    assert 0 < len(windows[-1].samples) <= 12_000
    np.testing.assert_allclose(np.concatenate([window.samples for window in windows]), whole.samples, atol=1e-6)


def test_one_sample_and_silence_are_recordings() -> None:
    one = load_audio(recordings.by_soundfile(np.array([0.5]), 16_000, "WAV", "PCM_16"))
    np.testing.assert_allclose(one.samples, [0.5])
    silent = load_audio(recordings.by_soundfile(np.zeros(16_000), 16_000, "FLAC", "PCM_16"))
    assert len(silent.samples) == 16_000
    assert not silent.samples.any()


@pytest.fixture(scope="module")
def silent_hour(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("long") / "hour.flac"
    with soundfile.SoundFile(path, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as file:
        for _ in range(60):
            file.write(np.zeros(60 * 16_000, np.int16))
    return path


def test_silent_hour(silent_hour: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert audio_info(silent_hour).duration_s == 3600.0
    assert load_audio(silent_hour).duration_s == 3600.0
    assert load_audio(silent_hour, start_s=3599.0).duration_s == 1.0
    assert sum(window.duration_s for window in iterate_windows(silent_hour, 600.0)) == 3600.0
    assert not caplog.records


def test_hour_of_wav_is_sought_not_read(tmp_path: Path) -> None:
    path = tmp_path / "hour.wav"
    with soundfile.SoundFile(path, "w", 8_000, 1, subtype="PCM_16") as file:
        for second in range(3600):
            file.write(np.full(8_000, second, np.int16))
    assert load_audio(path).duration_s == 3600.0
    span = load_audio(path, start_s=3000.25, duration_s=0.5)
    np.testing.assert_allclose(span.samples * 32_768, 3000.0, atol=0.05)


def test_bad_arguments_are_named() -> None:
    clip = recordings.tone_file("wav 16")
    for arguments in ({"start_s": -1.0}, {"start_s": float("nan")}, {"duration_s": 0.0}, {"sample_rate_hz": 0}):
        with pytest.raises(AudioError, match=next(iter(arguments)) if "duration_s" not in arguments else "span"):
            load_audio(clip, **arguments)


NO_RECORDINGS = (
    *(None, 3, [0.1, 0.2], {"array": 1}, np.array(["a"]), np.zeros(3, complex), np.zeros(3, np.int64)),
    *(np.zeros((2, 2, 2)), np.zeros(0), np.zeros((2, 0)), np.zeros(3, bool), np.array([0.0, np.nan])),
    *((np.zeros(5), 0), (np.zeros(5), 16e3), (np.zeros(5), True), np.array([0.0, np.inf]), np.array([1e300, 0.0])),
    *(torch.tensor([float("nan")]), b"", bytearray(), b"RIFF", "", "/no/such/file.wav", "http://localhost/a.wav"),
    *("a\0b", "x" * 5000, io.StringIO("hi")),
)


@pytest.mark.parametrize("source", NO_RECORDINGS, ids=range(len(NO_RECORDINGS)))
def test_what_is_no_recording_is_one_line(source: object) -> None:
    with pytest.raises(AudioError) as caught:
        load_audio(source)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) > 15


def test_folders_devices_and_closed_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="is a folder"):
        load_audio(tmp_path)
    if Path("/dev/zero").exists():
        with pytest.raises(AudioError, match="not an ordinary file"):
            load_audio("/dev/zero")
    closed = io.BytesIO(recordings.tone_file("wav 16"))
    closed.close()
    with pytest.raises(AudioError, match="closed"):
        load_audio(closed)


def test_a_playlist_opens_nothing(tmp_path: Path) -> None:
    clip = tmp_path / "clip.wav"
    clip.write_bytes(recordings.tone_file("wav 16"))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{clip}\n#EXT-X-ENDLIST\n"
    with pytest.raises(AudioError, match="not a recording"):
        load_audio(playlist.encode())
    with pytest.raises(AudioError, match="not a recording"):
        load_audio(f"ffconcat version 1.0\nfile {clip}\n".encode())


def test_audio_suffixes() -> None:
    assert all(is_audio_path(Path("folder") / f"clip{suffix.upper()}") for suffix in SUFFIXES)
    assert not any(is_audio_path(name) for name in ("What do you hear?", "notes.txt", "wav", ".wav", "a.json"))


def test_waveform_passes_through_and_is_cut() -> None:
    waveform = Waveform(samples=recordings.sweep(1.0, 8_000), sample_rate_hz=8_000, name="mine")
    result = load_audio(waveform, start_s=0.5)
    assert (result.name, result.sample_rate_hz, result.duration_s) == ("mine", 16_000, 0.5)


def test_sound_files_log_nothing(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    with caplog.at_level(logging.DEBUG):
        for kind in recordings.KINDS:
            load_audio(recordings.tone_file(kind))
    assert not [record for record in caplog.records if record.name.startswith("ossicle")]
    assert capfd.readouterr() == ("", "")
