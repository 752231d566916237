"""On a GPU: the same numbers as on the CPU, from a fused kernel. `make gpu` runs these."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from integration.test_invariance import ROWS, SETUPS
from integration.tiny_models import MARKER, SLOT, clips, text, tiny_model
from ossicle.integration import joined
from ossicle.integration.joined import View, attend, full_mask

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]
FUSED = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]


@pytest.fixture(autouse=True)
def whole_float32():
    """TF32 would round the products of float32 to ten bits."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False  # of products it is off already
    yield
    torch.backends.cudnn.allow_tf32 = before


def parts(dtype, heads=8, shared=2, length=70, audio=250, width=64):
    generator = torch.Generator().manual_seed(0)
    shapes = [(2, heads, length, width), *[(2, shared, audio, width)] * 2, *[(2, shared, length, width)] * 2]
    made = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    return [one.requires_grad_() for one in made], [one.detach().cuda().requires_grad_() for one in made]


def heard(given, view):
    query, audio_key, audio_value, key, value = given
    out = attend(query, (audio_key, audio_value), (key, value), view)
    return out, torch.autograd.grad(out.square().sum(), given, materialize_grads=True, allow_unused=True)


def error(found, true):
    return float((found.detach().cpu().double() - true.detach().double()).norm() / true.detach().double().norm())


@pytest.mark.parametrize("deaf", [0, 1, 20])
@pytest.mark.parametrize("shared", [2, 8])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 4e-5), (torch.bfloat16, 1e-2)], ids=["fp32", "bf16"])
def test_attention_and_gradients_equal_float64(deaf, shared, dtype, within):
    here, there = parts(dtype, shared=shared)
    exact = [one.detach().double().requires_grad_() for one in here]
    positions, visible_from = torch.arange(70).expand(2, -1), torch.full((2, 250), deaf)
    masked = View(mask=full_mask(exact[0], exact[3], None, positions, visible_from))
    true, true_slopes = heard(exact, masked)
    mask_there = View(mask=masked.mask.cuda())
    for view in (View(deaf=deaf), mask_there):
        found, slopes = heard(there, view)
        assert error(found, true) < within
        for a, b in zip(slopes, true_slopes, strict=True):
            assert error(a, b) < 3 * within


@pytest.mark.parametrize("deaf", [0, 20])
def test_bf16_keeps_a_fused_kernel(deaf):
    _, there = parts(torch.bfloat16)
    with sdpa_kernel(FUSED):  # the kernel that is left out holds every score, and would be the only one left
        heard(there, View(deaf=deaf))


@pytest.mark.filterwarnings("ignore:The CUDA Graph is empty")  # a static cache's, for so small a decoder
@pytest.mark.parametrize("setup", SETUPS)
@pytest.mark.parametrize("alike", [True, False], ids=["alike", "unlike"])
def test_logits_gradients_and_tokens_equal_the_cpu(setup, alike, monkeypatch):
    rows, seconds = ([[3, "a", 9]] * 2, (0.7, 0.7)) if alike else (ROWS, (0.7, 0.4, 1.1))
    here = tiny_model(streams=copy.deepcopy(SETUPS[setup]))
    there = copy.deepcopy(here).cuda()
    audio, lengths = clips(*seconds)
    ids, mask = text(here, rows, lengths)
    given = {"attention_mask": mask, "audio_values": audio, "audio_lengths": lengths}
    moved = {name: value.cuda() for name, value in given.items()}
    made = []
    monkeypatch.setattr(joined, "full_mask", lambda *args: made.append(1) or full_mask(*args))
    a, b = here(ids, **given).logits, None
    made.clear()
    b = there(ids.cuda(), **moved).logits
    if alike and setup in ("attend", "attend-own"):
        assert not made, "rows that are alike need no mask"
    torch.testing.assert_close(b.cpu()[mask.bool()], a[mask.bool()], atol=2e-4, rtol=2e-4)
    for logits in (a, b):
        logits[mask.bool().to(logits.device)].square().mean().backward()
    for (name, one), other in zip(here.named_parameters(), there.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad.cpu(), one.grad, atol=1e-4, rtol=1e-2, msg=name)
    wanted = {"max_new_tokens": 6, "suppress_tokens": [MARKER, SLOT], "eos_token_id": None, "pad_token_id": 0}
    said = here.generate(ids, do_sample=False, **given, **wanted)
    assert torch.equal(there.generate(ids.cuda(), do_sample=False, **moved, **wanted).cpu(), said)
    still = there.generate(ids.cuda(), do_sample=False, cache_implementation="static", **moved, **wanted)
    assert torch.equal(still.cpu(), said)


def test_bf16_logits_stay_near_float32():
    model = tiny_model()
    audio, lengths = clips(0.7, 0.4, 1.1)
    ids, mask = text(model, ROWS, lengths)
    with torch.no_grad():
        true = model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths).logits[mask.bool()]
        model.to("cuda", torch.bfloat16)
        there = [one.cuda() for one in (ids, mask, audio, lengths)]
        found = model(there[0], attention_mask=there[1], audio_values=there[2], audio_lengths=there[3]).logits
    assert error(found.cpu()[mask.bool()], true) < 0.03
