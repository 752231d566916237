"""What must not matter does not: caching, batching, padding, beams; and what must matter does."""

from __future__ import annotations

import pytest
import torch

from integration.tiny_models import MARKER, SLOT, clips, stream, text, tiny_model

SETUPS = {
    "prepend": [stream(kind="prepend")],
    "attend": [stream()],
    "attend-block": [stream(positions="block")],
    "attend-own": [stream(own_projections=True)],
    "cross": [stream(kind="cross")],
    "pal": [stream("a", "prepend"), stream("b", "attend", encoder="a")],
    "all": [stream("a", "prepend"), stream("b", "attend", positions="block"), stream("c", "cross", encoder="a")],
}
ROWS = [[3, "a", 9], [2, "a", 4, "a", 6], [7]]


@pytest.fixture(scope="module", params=SETUPS)
def model(request):
    return tiny_model(streams=SETUPS[request.param])


def logits(model, rows, audio, lengths, **options):
    ids, mask = text(model, rows, lengths, **options)
    with torch.no_grad():
        out = model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths).logits
    return [row[real.bool()] for row, real in zip(out, mask, strict=True)]


def test_padding_side_and_batching_change_nothing(model):
    audio, lengths = clips(0.7, 0.4, 1.1)
    left, right = (logits(model, ROWS, audio, lengths, pad_left=side) for side in (True, False))
    for a, b in zip(left, right, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)
    ids, mask = text(model, ROWS, lengths)
    real = mask[0].bool()
    with torch.no_grad():
        alone = model(ids[:1, real], audio_values=audio[:1, : lengths[0]], audio_lengths=lengths[:1]).logits[0]
    torch.testing.assert_close(alone, left[0], atol=1e-5, rtol=1e-4)


def test_generation_with_and_without_cache_and_beams(model):
    audio, lengths = clips(0.7, 0.4, 1.1)
    ids, mask = text(model, ROWS, lengths)
    given = {"attention_mask": mask, "audio_values": audio, "audio_lengths": lengths, "max_new_tokens": 6}
    given |= {"suppress_tokens": [MARKER, SLOT], "eos_token_id": None, "pad_token_id": 0}
    cached = model.generate(ids, do_sample=False, **given)
    assert torch.equal(cached, model.generate(ids, do_sample=False, use_cache=False, **given))
    assert torch.equal(cached, model.generate(ids, do_sample=False, cache_implementation="static", **given))
    stepped, step_mask = ids, mask
    for _ in range(6):
        with torch.no_grad():
            heard = {"audio_values": audio, "audio_lengths": lengths}
            step = model(stepped, attention_mask=step_mask, **heard).logits[:, -1]
        step[:, [MARKER, SLOT]] = -torch.inf
        stepped = torch.cat([stepped, step.argmax(-1, keepdim=True)], 1)
        step_mask = torch.cat([step_mask, torch.ones_like(step_mask[:, :1])], 1)
    assert torch.equal(cached, stepped)
    beams = model.generate(ids, num_beams=3, do_sample=False, **given)
    assert torch.equal(beams, model.generate(ids, num_beams=3, do_sample=False, use_cache=False, **given))


def test_without_audio_the_bare_decoder_bit_for_bit(model):
    ids = torch.randint(3, 290, (2, 11), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    with torch.no_grad():
        ours = model(ids, attention_mask=mask).logits
        model.language_model.set_attn_implementation("sdpa")
        bare = model.language_model(input_ids=ids, attention_mask=mask).logits
        for part in model.streams.values():
            part.integration.install(model.language_model) if part.integration.config.kind == "attend" else None
    assert torch.equal(ours, bare)


def test_audio_matters_and_so_does_its_order(model):
    audio, lengths = clips(0.7, 0.4, 1.1)
    base = logits(model, ROWS, audio, lengths)
    changed = logits(model, ROWS, audio * 0.1, lengths)
    assert all((a[-1] - b[-1]).abs().max() > 1e-6 for a, b in zip(base[:2], changed[:2], strict=True))
    assert torch.allclose(base[2], changed[2], atol=1e-6), "a row without audio must not hear its neighbours"
    same = torch.tensor([8000, 8000])
    two = clips(0.5, 0.5, seed=3)[0]
    row = [[2, "a", 4, "a", 6]]
    a, b = logits(model, row, two, same)[0], logits(model, row, two.flip(0), same)[0]
    assert (a[-1] - b[-1]).abs().max() > 1e-6, "swapping two clips must change the answer"


def test_rows_before_the_marker_do_not_hear(model):
    audio, lengths = clips(0.7)
    a, b = (logits(model, [[5, "a", 3]], wave, lengths)[0] for wave in (audio, audio * 0.1))
    torch.testing.assert_close(a[:5], b[:5], atol=1e-6, rtol=0)


def test_gradients_reach_every_part_that_hears(model):
    audio, lengths = clips(0.7, 0.4, 1.1)
    ids, mask = text(model, ROWS, lengths)
    labels = ids.masked_fill((mask == 0) | (ids == MARKER) | (ids == SLOT), -100)
    model.train()
    model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths, labels=labels).loss.backward()
    model.eval()
    silent = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    model.zero_grad()
    assert not [name for name in silent if "key_bias" not in name and not name.endswith("k_proj.bias")], silent


def test_checkpointing_gives_the_same_gradients(model):
    audio, lengths = clips(0.7, 0.4, 1.1)
    ids, mask = text(model, ROWS, lengths)
    frozen_norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    grads = []
    for checkpointing in (False, True):
        model.train()
        [norm.eval() for norm in frozen_norms]
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            model.gradient_checkpointing_enable()
        torch.manual_seed(0)
        encoded = {k: v.with_values(v.values.detach()) for k, v in model.eval().encode(audio, lengths).items()}
        model.train()
        model(ids, attention_mask=mask, audio_tokens=encoded, labels=ids.masked_fill(mask == 0, -100)).loss.backward()
        grads.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        model.zero_grad()
    model.gradient_checkpointing_disable()
    model.eval()
    assert grads[0].keys() == grads[1].keys()
    for name in grads[0]:
        torch.testing.assert_close(grads[0][name], grads[1][name], atol=1e-6, rtol=1e-5)


def test_saved_and_reloaded_bit_for_bit(model, tmp_path):
    audio, lengths = clips(0.7, 0.4, 1.1)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path).eval()
    for a, b in zip(logits(model, ROWS, audio, lengths), logits(again, ROWS, audio, lengths), strict=True):
        assert torch.equal(a, b)


def test_no_audio_row_is_a_query_or_enters_feed_forward():
    model = tiny_model(streams=SETUPS["attend"])
    seen = []
    for name, module in model.language_model.named_modules():
        if name.rsplit(".", 1)[-1] in ("q_proj", "o_proj", "mlp"):
            module.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[1]))
    audio, lengths = clips(2.0)
    ids, mask = text(model, [[3, "a", 9]], lengths)
    model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths)
    assert len(seen) == 6 and set(seen) == {13}
