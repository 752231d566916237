"""What a watch sees: the weights of the naive reference, of transformers' eager attention, and of a gated block."""

from __future__ import annotations

import copy

import pytest
import torch

from integration.naive_lal import AUDIO
from integration.test_attend_parity import naive_of
from integration.tiny_models import SLOT, clips, stream, text, tiny_model
from ossicle.errors import UnsupportedError
from ossicle.integration.watch import watching

WATCHED = [-3, -2]


def watched(model, seconds=(0.7, 1.1)):
    audio, lengths = clips(*seconds)
    ids, mask = text(model, [[3, "a", 2, "a", 6]], lengths)
    rows = torch.zeros_like(ids, dtype=torch.bool)
    rows[:, WATCHED] = True
    with torch.no_grad():
        memory, placement = model.remember(ids, mask, model.connect(model.encode(audio, lengths)))
        plain = model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths).logits
        before = model.language_model.config._attn_implementation
        with watching(model.language_model, memory, rows) as watch:
            out = model(ids, attention_mask=mask, audio_memory=memory, position_ids=placement.positions).logits
    torch.testing.assert_close(out, plain)
    assert memory.watch is None and model.language_model.config._attn_implementation == before
    return watch, ids, mask, memory, placement


@pytest.mark.parametrize("decoder", ["llama", "qwen3", "gemma3", "phi3", "olmo2"])
def test_attended_audio_weighs_as_in_the_naive_reference(decoder):
    model = tiny_model(decoder)
    watch, ids, mask, memory, placement = watched(model)
    AUDIO["weights"] = {}
    try:
        with torch.no_grad():
            naive_of(model, ids, mask, memory, placement, 0)
        naive = AUDIO.pop("weights")
    finally:
        AUDIO.pop("weights", None)
    num_audio = memory.segments[0].states.shape[1]
    for layer, seen in watch.seen.items():
        for head in range(seen.shape[1]):
            slow = torch.stack([naive[layer, head, ids.shape[1] + row] for row in WATCHED]).mean(0)
            torch.testing.assert_close(seen[0, head, :num_audio], slow, atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(seen.sum(-1), torch.ones(1, seen.shape[1]))


def test_prepended_audio_weighs_as_in_eager_attention():
    model = tiny_model(streams=[stream(kind="prepend")])
    watch, ids, mask, memory, placement = watched(model)
    eager = copy.deepcopy(model.language_model)
    eager.set_attn_implementation("eager")
    with torch.no_grad():
        out = eager(
            inputs_embeds=model.embed(ids, memory),
            attention_mask=mask,
            position_ids=placement.positions,
            output_attentions=True,
        )
    for layer, weights in enumerate(out.attentions):
        slow = weights[0][:, WATCHED].mean(1)
        torch.testing.assert_close(watch.seen[layer][0], slow, atol=1e-6, rtol=1e-4)
        assert slow[:, ids[0] == SLOT].sum() > 0


def test_a_gated_block_weighs_audio_alone():
    model = tiny_model(streams=[stream(kind="cross", layers=[1])])
    watch, ids, _, memory, _ = watched(model)
    assert list(watch.read) == [(0, 1)]
    seen = watch.read[0, 1]
    assert seen.shape[-1] == memory.crosses[0].states.shape[1]
    torch.testing.assert_close(seen.sum(-1), torch.ones(1, seen.shape[1]))
    block = model.streams["ear"].integration.blocks["1"]
    caught = {}
    hook = model.get_decoder().layers[0].register_forward_hook(lambda m, i, out: caught.update(hidden=out))
    rows = torch.zeros_like(ids, dtype=torch.bool)
    rows[:, WATCHED] = True
    watched(model)
    hook.remove()
    hidden = caught["hidden"][0] if isinstance(caught["hidden"], tuple) else caught["hidden"]
    with torch.no_grad():
        query = block.q_proj(block.norm(hidden))[0].unflatten(-1, (block.heads, -1))
        key = block.k_proj(memory.crosses[0].states)[0].unflatten(-1, (block.heads, -1))
    for head in range(block.heads):
        slow = torch.stack(
            [(key[:, head] @ query[row, head] / key.shape[-1] ** 0.5).softmax(0) for row in WATCHED]
        ).mean(0)
        torch.testing.assert_close(seen[0, head], slow, atol=1e-6, rtol=1e-4)


def test_a_decoder_that_caps_its_scores_is_refused():
    model = tiny_model(streams=[stream(kind="prepend")])
    model.language_model.config.attn_logit_softcapping = 50.0
    audio, lengths = clips(0.7)
    ids, mask = text(model, [["a", 3]], lengths)
    memory, _ = model.remember(ids, mask, model.connect(model.encode(audio, lengths)))
    with pytest.raises(UnsupportedError, match="caps"), watching(model.language_model, memory, ids > 0):
        pass
