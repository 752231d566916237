"""Questions about parametric sounds: the same for the same number, fresh for others, balanced, audible."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from ossicle.data.sample import waveform
from ossicle.data.source import SourceContext, source_class
from ossicle.data.world_sounds import WorldSoundsConfig, WorldSoundsSource
from ossicle.errors import ConfigError


def source(seed: int = 0, **settings: object) -> WorldSoundsSource:
    config = WorldSoundsConfig.model_validate({"samples": 200, "clip_s": 0.5, **settings})
    return WorldSoundsSource(config, SourceContext(seed=seed))


def test_a_number_is_one_sample_and_another_seed_or_range_another() -> None:
    a, b = source(), source()
    assert a.sample(7).messages == b.sample(7).messages
    assert np.array_equal(waveform(a.sample(7).audios[0]).samples, waveform(b.sample(7).audios[0]).samples)
    assert a.sample(7).messages != source(seed=1).sample(7).messages
    assert source(first=5).sample(2).messages == a.sample(7).messages
    assert source(first=5).sample(2).id == a.sample(7).id


def test_the_answer_is_one_of_the_options_and_without_audio_a_guess() -> None:
    made = source()
    samples = [made.sample(index) for index in range(200)]
    places: Counter[int] = Counter()
    for sample in samples:
        text, answer = (turn["content"] for turn in sample.messages)
        assert answer in text
        options = text.split(": ")[-1].split(" this ")[-1].rstrip("?").replace(" or ", ", ").split(", ")
        places[options.index(answer)] += 1
        assert len(set(options)) == 4
    assert max(places.values()) < 80
    assert max(Counter(sample.label for sample in samples).values()) < 45


def test_a_clip_is_audible_and_has_its_length() -> None:
    for index in range(12):
        made = source(noise_db=-20).sample(index)
        samples = waveform(made.audios[0]).samples
        assert samples.shape == (8000,)
        assert samples.dtype == np.float32
        assert 1e-3 < np.abs(samples).max() <= 1.5
        assert np.isfinite(samples).all()


def test_it_is_endless_without_a_number_of_samples_and_only_then() -> None:
    endless = source(samples=None)
    assert endless.endless
    assert endless.sample(10**7).messages
    assert not source().endless
    assert len(source()) == 200
    assert len(list(source().texts())) == 400


def test_mistakes_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown sound 'siern'; did you mean 'siren'"):
        source(sounds=["siern", "rain"], options=2)
    with pytest.raises(ConfigError, match="3 options of 2 sounds"):
        source(sounds=["siren", "rain"], options=3)
    with pytest.raises(ConfigError, match="did you mean 'world_sounds'"):
        source_class("world_sound")
