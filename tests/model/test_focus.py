"""`focus`: of a long recording the seconds that stand out are heard, of a short one everything."""

from __future__ import annotations

import pytest
import torch

from integration.tiny_models import clips, stream, text, tiny_model
from ossicle.errors import ConfigError
from ossicle.focus import focused
from ossicle.inference.stretches import in_recording
from ossicle.types import AudioTokens

SHORT = {"over_s": 20.0, "keep_s": 6, "stretch_s": 3}
RATES_HZ = {"ear": 25.0, "other": 6.25}


def heard(*lengths_s, events=(), seed=0):
    """Return tokens of two streams: noise, louder where an event is."""
    found = {}
    for name, rate_hz in RATES_HZ.items():
        generator = torch.Generator().manual_seed(seed)
        counts = torch.tensor([round(length * rate_hz) for length in lengths_s])
        values = torch.randn(len(lengths_s), int(counts.max()), 8, generator=generator)
        valid = torch.arange(values.shape[1]) < counts[:, None]
        tokens = AudioTokens(values=values.masked_fill(~valid[..., None], 0), valid=valid, rate_hz=rate_hz)
        for clip, start, end in events:
            inside = (tokens.times_s() >= start) & (tokens.times_s() < end)
            tokens.values[clip, inside] += 9
        found[name] = tokens
    return found


def test_what_stands_out_is_kept_in_its_order_and_the_rest_is_not():
    whole = heard(100.0, 12.0, events=[(0, 70.0, 72.0), (0, 15.0, 16.0), (1, 3.0, 5.0)])
    kept = focused(whole, SHORT)
    for name, tokens in kept.items():
        before = whole[name]
        assert torch.equal(tokens.values[1, : tokens.counts()[1]], before.values[1, : before.counts()[1]])
        parts = tokens.stretches[0]
        assert tokens.stretches[1] is None
        assert parts == tuple(sorted(parts))
        assert sum(end - start for start, end in parts) == 6.0
        times = before.times_s()
        inside = torch.zeros(len(times), dtype=torch.bool)
        for start, end in parts:
            inside |= (times >= start) & (times < end)
        assert torch.equal(tokens.values[0, : tokens.counts()[0]], before.values[0, inside])
        louder = before.values[0].mean(1) > 5
        assert louder.any()
        assert inside[louder].all()
        real = in_recording(tokens.times_s()[: tokens.counts()[0]], parts)
        torch.testing.assert_close(real, times[inside], atol=0.2, rtol=0)
        assert torch.equal(tokens.take(torch.tensor([1, 0])).values[1], tokens.values[0])
        assert tokens.take(torch.tensor([1, 0])).stretches == (None, parts)


def test_an_encoder_with_a_token_every_other_second_is_heard_too():
    slow = heard(100.0, events=[(0, 70.0, 74.0)])["ear"]
    slow = slow.with_values(slow.values[:, ::50], valid=slow.valid[:, ::50], rate_hz=0.5)
    slow.values[0, 35:37] += 50
    (parts,) = focused({"ear": slow}, SHORT)["ear"].stretches
    assert any(start <= 70 and end >= 73 for start, end in parts)
    assert all(end - start in (3, 6) for start, end in parts)


@pytest.mark.parametrize("settings", [None, SHORT])
def test_short_recordings_are_heard_whole(settings):
    whole = heard(20.0, 3.0)
    kept = focused(whole, settings)
    assert all(kept[name] is whole[name] for name in whole)


def test_neighbours_in_the_batch_and_padding_change_nothing():
    alone = focused(heard(60.0, events=[(0, 40.0, 43.0)]), SHORT)
    wide = heard(60.0, events=[(0, 40.0, 43.0)])
    for name, tokens in wide.items():
        padded = torch.nn.functional.pad(tokens.values, (0, 0, 0, 70)), torch.nn.functional.pad(tokens.valid, (0, 70))
        wide[name] = tokens.with_values(padded[0].repeat(2, 1, 1), valid=padded[1].repeat(2, 1))
    for name, tokens in focused(wide, SHORT).items():
        for clip in (0, 1):
            assert torch.equal(tokens.values[clip, : tokens.counts()[clip]], alone[name].values[0])
            assert tokens.stretches[clip] == alone[name].stretches[0]


@pytest.mark.parametrize("length_s", [20.5, 21.0, 3600.0])
def test_where_nothing_stands_out_as_much_is_heard(length_s):
    tokens = {name: each.with_values(torch.zeros_like(each.values)) for name, each in heard(length_s).items()}
    for each in focused(tokens, SHORT).values():
        assert int(each.counts()[0]) == pytest.approx(6 * each.rate_hz, abs=1)


def test_a_model_hears_a_long_clip_as_the_clip_of_its_stretches():
    model = tiny_model(streams=[stream(kind="attend")])
    audio, lengths = clips(4.0, 1.5)
    ids, mask = text(model, [[3, "a", 9], [2, "a", 4]], lengths)
    given = {"input_ids": ids, "attention_mask": mask, "audio_values": audio, "audio_lengths": lengths}
    whole = model(**given).logits
    model.config.focus = {"over_s": 4.0, "keep_s": 2, "stretch_s": 1}
    assert torch.equal(model(**given).logits, whole), "no clip is longer"
    model.config.focus["over_s"] = 2.0
    kept = model(**given).logits
    assert not torch.allclose(kept[0], whole[0])
    torch.testing.assert_close(kept[1], whole[1])


def test_a_prepended_stream_and_strange_settings_are_refused():
    from ossicle.model import AudioLM

    config = tiny_model(streams=[stream(kind="prepend")]).config
    config.focus = SHORT
    with pytest.raises(ConfigError, match="stream 'ear' is prepended"):
        AudioLM(config)
    config = tiny_model(streams=[stream(kind="attend")]).config
    config.focus = {"over": 3}
    with pytest.raises(ConfigError, match="over"):
        AudioLM(config)


def test_nano_finds_an_event_in_minutes_of_noise():
    from ossicle.evaluation.hour import planted, play
    from ossicle.inference.engine import load

    row = play(load("nano", device="cpu"), planted(3.0, seed=0, index=5))
    assert row["named"], row["hear"]
    assert row["said_yes"]
    assert row["looked_there"]
