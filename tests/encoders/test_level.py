"""`level`: the numbers it gives are the decibels they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ossicle.encoders.base import build_encoder
from ossicle.errors import ConfigError

FULL = 16_000


def _read(tokens: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return levels in dB, of each moment and of the whole sound: the means of the bins they are shared between."""
    centres = torch.arange(-72.0, 1.0, 3.0)
    return (tokens[:, :25] @ centres).numpy(), (tokens[:, 25:] @ centres).numpy()


def _encode(*clips: np.ndarray) -> torch.Tensor:
    rows = [torch.from_numpy(np.asarray(clip, np.float32)) for clip in clips]
    lengths = torch.tensor([len(row) for row in rows])
    return build_encoder({"kind": "level"})(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), lengths).values


def _noise(samples: int, level_db: float, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).standard_normal(samples)
    return drawn * 10 ** (level_db / 20) / np.sqrt(np.mean(drawn**2))


@pytest.mark.parametrize("level_db", [-70.0, -52.3, -36.0, -7.75])
def test_both_levels_are_the_rms_in_decibels(level_db):
    moment, whole = _read(_encode(_noise(2 * FULL, level_db))[0])
    assert whole == pytest.approx(np.full(25, level_db), abs=0.01)
    assert 10 * np.log10(np.mean(10 ** (moment / 10))) == pytest.approx(level_db, abs=0.3)


def test_silence_around_a_sound_does_not_count_and_pauses_inside_it_do():
    silence, sound = np.zeros(6 * 1280), _noise(6 * 1280, -20.0)
    around = _read(_encode(np.concatenate([silence, sound, silence]))[0])[1]
    inside = _read(_encode(np.concatenate([sound, silence, sound]))[0])[1]
    assert around == pytest.approx(np.full_like(around, -20.0), abs=0.01)
    assert inside == pytest.approx(np.full_like(inside, -20.0 + 10 * np.log10(2 / 3)), abs=0.01)


def test_digital_silence_and_full_scale_lie_in_the_outermost_bins():
    silent, full = _encode(np.zeros(FULL), np.ones(FULL))
    assert silent[:, [0, 25]].eq(1).all() and silent.sum() == 2 * len(silent)
    torch.testing.assert_close(full[:, [24, 49]], torch.ones(13, 2))


def test_a_last_token_of_few_samples_has_their_level():
    moment, _ = _read(_encode(np.full(1280 + 10, 0.1))[0])
    assert moment == pytest.approx([-20, -20], abs=0.01)


def test_layers_are_refused():
    with pytest.raises(ConfigError, match="leave it out"):
        build_encoder({"kind": "level", "layers": [0]})
