"""PLITS equals LAL exactly with block positions and audio rows held at the connector's output."""

from __future__ import annotations

import pytest
import torch

from integration.tiny_models import SLOT, clips, stream, text, tiny_model

ROWS = [[3, "a", 9], [2, "a", 4, "a", 6], [7]]


@pytest.mark.parametrize("decoder", ["llama", "qwen3", "phi3"])
def test_held_rows(decoder):
    prepended = tiny_model(decoder, [stream(kind="prepend")])
    attended = tiny_model(decoder, [stream(positions="block")], seed=5)
    attended.load_state_dict(prepended.state_dict())
    audio, lengths = clips(0.7, 0.4, 1.1)
    ids, mask = text(prepended, ROWS, lengths)
    slots = ids == SLOT
    memory, _ = prepended.remember(ids, mask, prepended.connect(prepended.encode(audio, lengths)))
    held = torch.cat(memory.slots)

    def hold(layer, args):
        return (args[0].masked_scatter(slots[..., None], held), *args[1:])

    for layer in prepended.get_decoder().layers:
        layer.register_forward_pre_hook(hold)
    heard = {"audio_values": audio, "audio_lengths": lengths}
    short, short_mask = text(attended, ROWS, lengths)
    with torch.no_grad():
        plits = prepended(ids, attention_mask=mask, **heard).logits
        lal = attended(short, attention_mask=short_mask, **heard).logits
    for row in range(3):
        words = mask[row].bool() & ~slots[row]
        torch.testing.assert_close(plits[row, words], lal[row, short_mask[row].bool()], atol=1e-5, rtol=1e-4)


def test_without_holding_they_differ():
    prepended = tiny_model(streams=[stream(kind="prepend")])
    attended = tiny_model(streams=[stream(positions="block")], seed=5)
    attended.load_state_dict(prepended.state_dict())
    audio, lengths = clips(0.7)
    heard = {"audio_values": audio, "audio_lengths": lengths}
    with torch.no_grad():
        last = [m(text(m, [[3, "a", 9]], lengths)[0], **heard).logits[0, -1] for m in (prepended, attended)]
    assert not torch.allclose(*last, atol=1e-3)
