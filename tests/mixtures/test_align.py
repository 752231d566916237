"""Alignment onto another clock against a loop over exact overlaps."""

from __future__ import annotations

import pytest
import torch

from ossicle.mixtures.align import onto, shares


def naive(values, rate, base_rate, num):
    """One clip (N, D), one base token after another."""
    out = []
    for n in range(num):
        if rate >= base_rate:
            start, end = n / base_rate, (n + 1) / base_rate
            total = torch.zeros(values.shape[-1], dtype=torch.float64)
            for j in range(int(start * rate), int(end * rate) + 1):
                overlap = max(0.0, min(end, (j + 1) / rate) - max(start, j / rate))
                total += overlap / (end - start) * values[min(j, len(values) - 1)].double()
            out.append(total)
        else:
            time = (n + 0.5) / base_rate
            left = int((time * rate + 0.5) // 1) - 1
            share = time * rate - 0.5 - left
            pair = [values[min(max(j, 0), len(values) - 1)].double() for j in (left, left + 1)]
            out.append((1 - share) * pair[0] + share * pair[1])
    return torch.stack(out).float()


@pytest.mark.parametrize(("rate", "base_rate"), [(50, 12.5), (12.5, 50), (101 / 10.24, 25), (49.9, 12.5), (10, 10)])
def test_equals_a_loop_over_exact_times(rate, base_rate):
    torch.manual_seed(0)
    values = torch.randn(2, 60, 3)
    counts = torch.tensor([60, 7])
    got = onto(values, counts, rate_hz=rate, base_rate_hz=base_rate, num=20)
    for row, count in enumerate(counts.tolist()):
        torch.testing.assert_close(got[row], naive(values[row, :count], rate, base_rate, 20), atol=1e-5, rtol=1e-5)


def test_the_same_clock_changes_nothing():
    values = torch.randn(1, 9, 2)
    assert torch.equal(onto(values, torch.tensor([9]), rate_hz=12.5, base_rate_hz=12.5, num=9), values)


def test_a_ramp_in_time_stays_that_ramp():
    """A token's value is its middle's time; on any clock it must still be (away from the edges)."""
    for rate, base_rate in [(40.0, 15.0), (15.0, 40.0)]:
        values = ((torch.arange(80) + 0.5) / rate)[None, :, None]
        got = onto(values, torch.tensor([80]), rate_hz=rate, base_rate_hz=base_rate, num=25)[0, :, 0]
        want = (torch.arange(25) + 0.5) / base_rate
        torch.testing.assert_close(got[2:], want[2:], atol=2e-3, rtol=0)  # a shift by half a token is 12 ms


@pytest.mark.parametrize("ratio", [0.13, 1.0, 1.01, 3.7, 8.0])
def test_shares_of_a_row_sum_to_one(ratio):
    torch.testing.assert_close(shares(ratio, 500)[1].sum(1), torch.ones(500))


def test_padding_is_never_heard():
    values = torch.randn(1, 12, 2)
    spoiled = torch.cat([values[:, :5], torch.full((1, 7, 2), 1e9)], 1)
    for rates in ({"rate_hz": 20.0, "base_rate_hz": 8.0}, {"rate_hz": 8.0, "base_rate_hz": 20.0}):
        short = onto(values[:, :5], torch.tensor([5]), num=15, **rates)
        assert torch.equal(onto(spoiled, torch.tensor([5]), num=15, **rates), short)
