"""Tiny AudioLMs and batches that the integration tests share."""

from __future__ import annotations

import copy

import torch

from ossicle.model import AudioLM, AudioLMConfig
from ossicle.tiny import tiny_decoder_config

MARKER, SLOT = 298, 299
CNN = {"kind": "cnn", "dim": 16, "channels": [4, 4, 8, 8], "depth": 1, "heads": 2}


def stream(name="ear", kind="attend", encoder=CNN, connector=None, **options):
    return {
        "name": name,
        "encoder": copy.deepcopy(encoder),
        "connector": connector or {"kind": "mlp"},
        "integration": {"kind": kind, **options},
    }


def tiny_model(decoder="llama", streams=None, seed=0, **changes):
    torch.manual_seed(seed)
    config = AudioLMConfig(
        text_config=tiny_decoder_config(decoder, **changes),
        streams=streams or [stream()],
        audio_token_id=MARKER,
        audio_slot_id=SLOT,
    )
    return AudioLM.new(config).eval()


def clips(*seconds, seed=0):
    """Clips whose pitch and level change every tenth of a second, so that where and when one listens matters."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [int(16000 * s) for s in seconds]
    rows = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        steps = length // 1600 + 1
        pitch = torch.rand(steps, generator=generator).mul(5).exp2().mul(150).repeat_interleave(1600)[:length]
        level = torch.rand(steps, generator=generator).repeat_interleave(1600)[:length]
        noise = torch.randn(length, generator=generator) * 0.02
        rows[row, :length] = (pitch / 16000 * 2 * torch.pi).cumsum(0).sin() * level + noise
    return rows, torch.tensor(lengths)


def text(model, rows, lengths, pad_left=True):
    """Rows of pieces (`"a"` = the next clip, an int = that many random words) to a padded batch."""
    generator = torch.Generator().manual_seed(1)
    plans = [s.plan for s in model.streams.values()]
    left = iter(lengths.tolist())
    out = []
    for row in rows:
        ids = []
        for piece in row:
            if piece == "a":
                samples = next(left)
                ids += [SLOT] * sum(plan.num_slots(samples) for plan in plans) + [MARKER]
            else:
                ids += torch.randint(3, 290, (piece,), generator=generator).tolist()
        out.append(ids)
    width = max(map(len, out))
    ids, mask = torch.zeros(len(out), width, dtype=torch.long), torch.zeros(len(out), width, dtype=torch.long)
    for row, tokens in enumerate(out):
        place = slice(width - len(tokens), width) if pad_left else slice(len(tokens))
        ids[row, place], mask[row, place] = torch.tensor(tokens), 1
    return ids, mask


def live_is_whole(model, live, audio, sizes, rows=((2, "a", 4),)):
    """Append pieces of one clip; after each, what live audio says is what the whole file so far says.

    Yields how many audio tokens it heard, and how many samples there were.
    """
    heard = 0
    for number, size in enumerate(sizes):
        live.append(audio[0, heard : heard + size].numpy())
        heard += size
        lengths = torch.tensor([heard])
        ids, mask = text(model, [rows[number % len(rows)]], lengths)
        memory, placement, count, _ = live.hear(ids)
        with torch.no_grad():
            whole = model(ids, attention_mask=mask, audio_values=audio[:, :heard], audio_lengths=lengths).logits
            now = model(ids, attention_mask=mask, audio_memory=memory, position_ids=placement.positions).logits
        torch.testing.assert_close(now, whole, atol=2e-5, rtol=1e-4)
        yield count, heard
