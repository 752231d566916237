"""A clip's hidden marker (LTU-AS) is not run by the server either: its greedy answer is the one of `generate`."""

from __future__ import annotations

import torch

from integration.tiny_models import MARKER, SLOT, clips, stream, tiny_model


def test_a_row_without_its_marker_is_the_masked_row():
    """What `Generation` does with a prompt: rows that no token sees are left out, positions stay."""
    model = tiny_model(streams=[stream(kind="prepend", marker="hidden")])
    audio, lengths = clips(0.4)
    slots = next(iter(model.streams.values())).plan.num_slots(int(lengths[0]))
    ids = torch.tensor([[SLOT] * slots + [MARKER, 5, 6, 7]])
    mask = (ids != MARKER).long()
    with torch.no_grad():
        memory, placement = model.remember(ids, mask, model.connect(model.encode(audio, lengths)))
        whole = model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths).logits[0, -3:]
        seen = mask[0].bool()
        rows = model.embed(ids, memory)[:, seen]
        positions = placement.positions[:, seen]
        short = model(inputs_embeds=rows, position_ids=positions, attention_mask=mask[:, seen]).logits[0, -3:]
    assert positions[0].tolist() == list(range(slots + 3))
    assert (whole - short).abs().max() < 1e-5
