"""Mixtures as encoders: parity with a loop over clips, counts, padding, what is run, what is kept, bad input."""

from __future__ import annotations

import pytest
import torch

from mixtures.stubs import stub
from ossicle import registry
from ossicle.encoders.base import build_encoder
from ossicle.errors import ConfigError
from ossicle.mixtures.base import too_strong
from ossicle.tiny import TINY_ENCODERS

POOL = [TINY_ENCODERS["cnn"], {**TINY_ENCODERS["ast"], "frequency_mean": True}, stub(1, hop=1000, window_s=0.5)]
SPECS = {
    "mowe": {"kind": "mowe"},
    "mowe-time": {"kind": "mowe", "concat": "time"},
    "mowe-independent": {"kind": "mowe", "routers": ["independent"], "width": 8, "norm": False},
    "mowe-straight": {"kind": "mowe", "straight_through": True, "top_k": 2, "router_hidden": 8},
    "pam": {"kind": "pam", "prompt_dim": 6},
    "concat": {"kind": "concat", "width": 5},
    "average": {"kind": "average"},
    "base-only": {"kind": "base-only"},
}


def build(name, progress=1.0, **changes):
    torch.manual_seed(0)
    spec = {"base": TINY_ENCODERS["whisper"], "pool": POOL, **SPECS[name], **changes}
    encoder = build_encoder(spec).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
        for parameter_name, parameter in encoder.named_parameters():
            if "dependent" in parameter_name:  # distinct choices, also between clips
                parameter.add_(torch.randn(parameter.shape))
    if hasattr(encoder, "set_progress"):
        encoder.set_progress(progress)
    return encoder


def clips(*samples):
    generator = torch.Generator().manual_seed(3)
    rows = [0.2 * torch.randn(count, generator=generator) * (1 + place) for place, count in enumerate(samples)]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), torch.tensor(samples)


def prompts(count):
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(4))


def run(encoder, audio, lengths, prompt=None):
    with torch.no_grad():
        return encoder.finish(encoder.features(audio, lengths), prompt)


def naive_mowe(encoder, clip):
    """One clip, one window, one encoder, one token after another, from the definition."""
    config, window = encoder.config, encoder.config.window_samples
    pieces = [clip[start : start + window] for start in range(0, len(clip), window)]
    base = torch.cat([encoder.base(p[None], torch.tensor([len(p)])).values[0] for p in pieces])
    weak = []
    for member in encoder.pool:
        rows = []
        for piece in pieces:
            own = member(piece[None], torch.tensor([len(piece)]))
            count = encoder.config.base_config.window_tokens(len(piece))
            rows += [_at(own.values[0], member.facts.rate_hz, encoder.base.facts.rate_hz, n) for n in range(count)]
        weak.append(torch.stack(rows))
    sums = []
    for name in config.routers:
        router = getattr(encoder.router, name)
        mean = sum(base) / len(base)
        p = (router(mean[None])[0] / config.temperature).softmax(-1)
        best = sorted(range(len(p)), key=lambda k: -float(p[k]))[: config.top_k]
        kept = [(1 / config.top_k if config.straight_through else p[k]) if k in best else 0.0 for k in range(len(p))]
        sums.append(sum(kept[k] * encoder.router(weak[k], k) for k in range(len(p))))
    if config.concat == "feature":
        return torch.cat([base, *sums], -1)
    return torch.stack([base, *sums], 1).flatten(0, 1)


def _at(values, rate, base_rate, n):
    if rate < base_rate:
        place = (n + 0.5) / base_rate * rate - 0.5
        left = int(place // 1)
        pair = [values[min(max(j, 0), len(values) - 1)] for j in (left, left + 1)]
        return (1 - (place - left)) * pair[0] + (place - left) * pair[1]
    start, end = n / base_rate, (n + 1) / base_rate
    total = 0
    for j in range(int(start * rate), int(end * rate) + 2):
        overlap = max(0.0, min(end, (j + 1) / rate) - max(start, j / rate))
        total = total + overlap / (end - start) * values[min(j, len(values) - 1)]
    return total


@pytest.mark.parametrize("name", ["mowe", "mowe-time", "mowe-independent", "mowe-straight"])
def test_mowe_equals_a_loop_over_clips(name):
    encoder = build(name)
    audio, lengths = clips(48_000, 20_000, 9_001)
    tokens = run(encoder, audio, lengths)
    for row, length in enumerate(lengths.tolist()):
        with torch.no_grad():
            want = naive_mowe(encoder, audio[row, :length])
        torch.testing.assert_close(tokens.values[row, : len(want)], want, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list(SPECS))
def test_counts_facts_and_batch(name):
    encoder = build(name)
    audio, lengths = clips(48_000, 15_999, 1)
    prompt = prompts(3) if encoder.facts.prompt_dependent else None
    tokens = run(encoder, audio, lengths, prompt)
    assert tokens.counts().tolist() == [encoder.config.num_tokens(length) for length in lengths.tolist()]
    assert tokens.values.shape[-1] == encoder.facts.dim
    assert tokens.rate_hz == encoder.facts.rate_hz
    base = encoder.config.base_config
    factor = 3 if encoder.config.tokens_per_base_token() > 1 else 1
    assert tokens.counts().tolist() == [factor * base.num_tokens(length) for length in lengths.tolist()]
    for row, length in enumerate(lengths.tolist()):
        alone = run(encoder, audio[row : row + 1, :length], lengths[row : row + 1], _row(prompt, row))
        count = int(tokens.counts()[row])
        torch.testing.assert_close(tokens.values[row, :count], alone.values[0], atol=1e-5, rtol=1e-4)
        assert tokens.values[row, count:].eq(0).all()
    longer = run(encoder, torch.nn.functional.pad(audio, (0, 5000), value=7.0), lengths, prompt)
    torch.testing.assert_close(longer.values, tokens.values, atol=1e-5, rtol=1e-4)


def _row(prompt, row):
    return None if prompt is None else prompt[row : row + 1]


@pytest.mark.parametrize("name", list(SPECS))
def test_windows_are_independent_where_declared(name):
    encoder = build(name)
    assert encoder.facts.windowed == (not hasattr(encoder, "trace") or "dependent" not in encoder.config.routers)
    if not encoder.facts.windowed:
        return
    audio, lengths = clips(64_000)
    prompt = prompts(1) if encoder.facts.prompt_dependent else None
    whole = run(encoder, audio, lengths, prompt).values[0]
    halves = [run(encoder, audio[:, place : place + 32_000], torch.tensor([32_000]), prompt) for place in (0, 32_000)]
    torch.testing.assert_close(whole, torch.cat([half.values[0] for half in halves]), atol=1e-5, rtol=1e-4)


def test_hard_routing_runs_only_what_is_selected():
    encoder = build("mowe", pool=[stub(k) for k in range(4)], base=stub(5))
    audio, lengths = clips(16_000, 8_000, 30_000)
    with encoder.forced(independent=2, dependent="stub-4"):
        run(encoder, audio, lengths)
    assert [member.calls for member in encoder.pool] == [0, 0, 4, 4]
    run(encoder, audio, lengths)
    chosen = torch.stack([route.weights > 0 for route in encoder.trace]).any(0)  # (C, M)
    windows = torch.tensor([1, 1, 2])
    assert [m.calls for m in encoder.pool] == [
        int((chosen[:, k] * windows).sum()) + (4 if k >= 2 else 0) for k in range(4)
    ]
    assert 1 <= int(chosen.sum(1).max()) <= 2
    for member in encoder.pool:
        member.calls = 0
    encoder.features(audio, lengths, every=True)
    assert [member.calls for member in encoder.pool] == [4, 4, 4, 4]
    encoder.train()
    encoder.features(audio, lengths)
    assert [member.calls for member in encoder.pool] == [8, 8, 8, 8]


@pytest.mark.parametrize("name", ["mowe", "mowe-time", "pam", "concat", "average"])
def test_kept_features_give_the_same_tokens(name):
    encoder = build(name)
    audio, lengths = clips(40_000, 17_000)
    prompt = prompts(2) if encoder.facts.prompt_dependent else None
    with torch.no_grad():
        kept = encoder.features(audio, lengths, every=True)
        assert kept.values.shape[-1] == sum(part.facts.dim for part in encoder.feature_parts())
        torch.testing.assert_close(encoder.finish(kept, prompt).values, run(encoder, audio, lengths, prompt).values)
    if prompt is not None:
        assert not torch.equal(encoder.finish(kept, -prompt).values, encoder.finish(kept, prompt).values)
        with pytest.raises(ConfigError, match="question"):
            encoder.finish(kept)


def test_evaluation_is_deterministic():
    encoder = build("mowe", progress=0.5)
    audio, lengths = clips(33_000, 5_000)
    first = run(encoder, audio, lengths)
    torch.manual_seed(99)
    assert torch.equal(run(encoder, audio, lengths).values, first.values)


def test_the_base_passes_untouched_and_zeroed_routers_leave_it_alone():
    encoder = build("mowe")
    audio, lengths = clips(33_000, 5_000)
    width = encoder.base.facts.dim
    with torch.no_grad():
        base = encoder.base(audio, lengths)
    assert torch.equal(run(encoder, audio, lengths).values[..., :width], base.values)
    with encoder.forced(independent=[0.0, 0.0, 0.0], dependent=[0.0, 0.0, 0.0]):
        silent = run(encoder, audio, lengths)
    assert torch.equal(silent.values[..., :width], base.values)
    assert silent.values[..., width:].eq(0).all()


def test_independent_weights_are_one_row_and_dependent_ones_are_not():
    encoder = build("mowe", progress=0.0)
    run(encoder, *clips(33_000, 5_000, 12_000))
    independent, dependent = encoder.trace
    assert (independent.router, dependent.router) == ("independent", "dependent")
    assert independent.weights.unique(dim=0).shape[0] == 1
    assert dependent.weights.unique(dim=0).shape[0] == 3
    rows = dependent.rows()
    assert list(rows[0]) == ["cnn", "ast", "stub"]
    assert sum(rows[0].values()) == pytest.approx(1.0, abs=1e-5)


def test_average_is_the_plain_mean_and_concat_has_all():
    audio, lengths = clips(20_000)
    average, concat = build("average"), build("concat", width=16)
    concat.load_state_dict(average.state_dict())
    mean, every = run(average, audio, lengths).values[..., 16:], run(concat, audio, lengths).values[..., 16:]
    torch.testing.assert_close(mean, every.unflatten(-1, (3, 16)).mean(-2))


def test_members_resolve_and_names_are_in_both_tables():
    encoder = build("mowe", base=TINY_ENCODERS["whisper"])
    again = registry.parse("encoders", encoder.config.resolved().model_dump())
    assert again.facts() == encoder.facts
    mixtures = {name for name, target in registry.names("encoders").items() if ".mixtures." in target}
    assert mixtures == set(registry.names("mixtures"))


def test_a_strong_member_is_reported(caplog):
    build_encoder({"kind": "mowe", "base": stub(weights=100), "pool": [stub(weights=10)]}).load_pretrained()
    assert caplog.text == ""
    build_encoder({"kind": "mowe", "base": stub(weights=100), "pool": [stub(weights=11)]}).load_pretrained()
    assert "more than a tenth" in caplog.text
    assert too_strong(["a", "b"], 1000, [100, 101])[0].startswith("weak encoder 'b'")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool": []}, "pool"),
        ({"top_k": 4}, "the pool has 3"),
        ({"routers": ["prompt"]}, "independent, dependent"),
        ({"routers": ["dependent", "dependent"]}, "each once"),
        ({"concat": "time", "width": 8}, "along time"),
        ({"hold": 0.9}, "later than"),
        ({"window_s": 5.0}, "belongs to a member"),
        ({"pretrained": "x/y"}, "belongs to a member"),
        ({"pool": [{"kind": "average", "base": stub(), "pool": [stub()]}]}, "cannot be a member"),
        ({"pool": [{"kind": "cnm"}]}, "did you mean 'cnn'"),
        ({"pool": [{"kind": "cnn", "dimm": 3}]}, "dimm"),
        ({"tok_k": 3}, "tok_k"),
    ],
)
def test_bad_settings_are_one_line(changes, said):
    with pytest.raises(ConfigError, match=said) as caught:
        registry.parse("encoders", {"kind": "mowe", "base": TINY_ENCODERS["whisper"], "pool": POOL, **changes})
    assert "\n" not in str(caught.value)


def test_a_forced_route_that_does_not_exist():
    encoder = build("mowe")
    with pytest.raises(ConfigError, match="no router 'depedent'"), encoder.forced(depedent=0):
        pass
    with pytest.raises(ConfigError, match="did you mean 'cnn'"), encoder.forced(dependent="cnm"):
        pass
