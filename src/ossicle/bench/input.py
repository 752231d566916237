"""How fast audio comes in on this machine, per core, and how much of a batch is padding.

    rate     = seconds of audio / seconds of processor time      bytes ──decode──► 16 kHz mono ──► log-mel of 64 bands
    padding  = 1 − real / (rows · longest)                       batches as a stage draws them

Recordings of ten seconds are made here: a voice over noise, in the containers that data come in. Lengths for padding
are log-normal (median 5 s, σ 0.7, 0.5 to 30 s), texts 20 to 200 characters, independent of each other.
Source: our choice.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from ossicle.audio.features import log_mel
from ossicle.audio.io import load_audio
from ossicle.data.mix import TOKENS_PER_CHARACTER, TOKENS_PER_S, Mix, MixEntry
from ossicle.data.sample import MadeAudio, Sample, question
from ossicle.data.source import Source, SourceConfig, SourceContext
from ossicle.types import SAMPLE_RATE_HZ, Waveform

CLIP_S = 10
CONTAINERS = {
    "wav 16 kHz": ("WAV", "PCM_16", 16000, 1),
    "flac 16 kHz": ("FLAC", "PCM_16", 16000, 1),
    "wav 44.1 kHz stereo": ("WAV", "PCM_16", 44100, 2),
    "flac 44.1 kHz stereo": ("FLAC", "PCM_16", 44100, 2),
    "mp3 44.1 kHz": ("MP3", "MPEG_LAYER_III", 44100, 1),
    "ogg vorbis 44.1 kHz": ("OGG", "VORBIS", 44100, 1),
}
"""Name → format, subtype, rate and channels, as libsndfile names them."""
MELS = 64
GOALS = {"times_real_time": 300, "padding": 0.05}


def run(*, rounds: int = 3, batch: int = 32, batches: int = 1024, seed: int = 0) -> dict[str, Any]:
    """Return decoding and features by container, and the padding of batches.

    Args:
        rounds: Of each measurement; the fastest counts, for other work can only slow one down.
        batch: Samples of a batch.
        batches: How many batches padding is measured on.
        seed: Of sounds and lengths.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {
            "input": {name: _rates(spec, rounds, seed) for name, spec in CONTAINERS.items()},
            "padding": padding(batch=batch, batches=batches, seed=seed),
            "goals": GOALS,
        }
    finally:
        torch.set_num_threads(before)


def _rates(spec: tuple[str, str, int, int], rounds: int, seed: int) -> dict[str, float]:
    data = [_recording(spec, np.random.default_rng([seed, number])) for number in range(4)]
    waves = [load_audio(one) for one in data]
    decode = _fastest(rounds, lambda: [load_audio(one) for one in data])
    features = _fastest(rounds, lambda: _mels(waves))
    seconds = CLIP_S * len(data)
    both = decode + features
    return {"decode": seconds / decode, "features": seconds / features, "times_real_time": seconds / both}


def _mels(waves: list[Waveform]) -> torch.Tensor:
    rows = torch.stack([torch.from_numpy(wave.samples[: CLIP_S * SAMPLE_RATE_HZ - 1600]) for wave in waves])
    return log_mel(rows, torch.full((len(rows),), rows.shape[1]), num_mels=MELS)


def _fastest(rounds: int, work: Callable[[], Any]) -> float:
    spent = []
    for _ in range(rounds):
        started = time.process_time()
        work()
        spent.append(time.process_time() - started)
    return max(min(spent), 1e-9)


def _recording(spec: tuple[str, str, int, int], rng: np.random.Generator) -> bytes:
    """Return a file's bytes: ten seconds of a gliding voice over noise."""
    import soundfile

    container, subtype, rate_hz, channels = spec
    time_s = np.arange(CLIP_S * rate_hz) / rate_hz
    phase = 2 * np.pi * np.cumsum(130 + 30 * np.sin(2 * np.pi * 0.4 * time_s)) / rate_hz
    voice = sum(np.sin(k * phase) / k for k in range(1, 9)) * (np.sin(2 * np.pi * 1.7 * time_s) > -0.5)
    samples = 0.1 * voice[:, None] + rng.normal(0, 0.003, (len(time_s), channels))
    file = io.BytesIO()
    soundfile.write(file, samples, rate_hz, format=container, subtype=subtype)
    return file.getvalue()


class _Lengths(Source):
    """Samples that have a length and a text, and whose audio nobody loads."""

    def __init__(self, count: int, seed: int) -> None:
        super().__init__(SourceConfig(kind="lengths"), SourceContext(seed=seed))
        rng = np.random.default_rng([seed, 5])
        self.seconds = np.clip(np.exp(rng.normal(np.log(5.0), 0.7, count)), 0.5, 30.0)
        self.texts = rng.integers(20, 200, count)

    def __len__(self) -> int:
        return len(self.seconds)

    def duration_s(self, index: int) -> float:
        """Return the clip's length."""
        return float(self.seconds[index])

    def sample(self, index: int) -> Sample:
        """Return a question about a clip that is never made."""
        clip = MadeAudio(make=_never, name=f"length|{index}")
        return question("?", "x" * int(self.texts[index]), [clip], id=str(index))


def _never() -> Waveform:
    raise AssertionError("nobody hears this")


def padding(*, batch: int, batches: int, seed: int = 0) -> dict[str, float]:
    """Return the share of padding, batches as a stage draws them and random ones: tokens, and audio and text apart.

    Args:
        batch: Samples of a batch.
        batches: How many.
        seed: Of lengths and order.
    """
    source = _Lengths(batch * batches, seed)
    mix = Mix({"lengths": source}, [MixEntry(source="lengths")], seed=seed)
    drawn = [[mix.place(p)[1] for p in mix.batch_positions(number, batch)] for number in range(batches)]
    order = np.random.default_rng([seed, 6]).permutation(len(source))
    chance = [order[i : i + batch].tolist() for i in range(0, len(order), batch)]
    return {
        "tokens": _padded(drawn, source.seconds, source.texts),
        "tokens_random": _padded(chance, source.seconds, source.texts),
        "audio": _padded(drawn, source.seconds),
        "text": _padded(drawn, source.texts),
        "audio_random": _padded(chance, source.seconds),
        "text_random": _padded(chance, source.texts),
        "batch": batch,
    }


def _padded(drawn: list[list[int]], seconds: np.ndarray, characters: np.ndarray | None = None) -> float:
    """Return the share of padding in one size, or in tokens of audio and text together."""
    sizes = [seconds] if characters is None else [TOKENS_PER_S * seconds, TOKENS_PER_CHARACTER * characters]
    held = sum(len(indices) * float(size[indices].max()) for indices in drawn for size in sizes)
    return 1 - sum(float(size[indices].sum()) for indices in drawn for size in sizes) / held
