"""Decoding together is decoding alone: for every integration and decoder family, whoever joins and leaves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from integration.tiny_models import MARKER, SLOT, clips, stream, text, tiny_model
from ossicle.serve import batch as batches
from ossicle.serve.batch import Batch

SETUPS = {
    "prepend": [stream(kind="prepend")],
    "attend": [stream()],
    "attend-block": [stream(positions="block")],
    "attend-own": [stream(own_projections=True, layers=[1])],
    "cross": [stream(kind="cross")],
    "all": [stream("a", "prepend"), stream("b", "attend", encoder="a"), stream("c", "cross", encoder="a")],
    "two-kinds": [stream("a", layers=[0]), stream("b", encoder="a", layers=[1])],
}
FAMILIES = ["llama", "mistral", "mistral-window", "qwen2", "qwen3", "gemma3", "phi3", "olmo2", "smollm3"]


class Row(SimpleNamespace):
    """An answer under way; equal to itself alone."""

    __eq__, __hash__ = object.__eq__, object.__hash__


@torch.no_grad()
def begin(model, pieces, lengths, audio):
    """Lay one row out; return it, and its greedy tokens when it is alone."""
    ids, mask = text(model, [pieces], lengths)
    memory, positions = None, torch.arange(ids.shape[1])[None]
    heard = {}
    if len(lengths):
        heard = {"audio_values": audio, "audio_lengths": lengths}
        memory, placement = model.remember(ids, mask, model.connect(model.encode(audio, lengths)))
        positions = placement.positions
    settings = {"max_new_tokens": 14, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    settings["suppress_tokens"] = [MARKER, SLOT]
    alone = model.generate(ids, attention_mask=mask, **settings, **heard)
    row = Row(
        embeddings=model.embed(ids, memory)[0],
        positions=positions[0],
        position=int(positions[0, -1]),
        read=0,
        memory=memory,
        said=[],
        enough=12,
    )
    return row, alone[0, ids.shape[1] :].tolist()


def say(row, logits):
    row.token = int(logits[:MARKER].argmax())
    row.said.append(row.token)
    row.position += 1


def together(model, rows, batch=None):
    """Let a new row join every third step, each leave after enough tokens; return what they said."""
    batch, waiting = Batch(model) if batch is None else batch, list(rows)
    steps = 0
    while waiting or len(batch):
        if waiting and steps % 3 == 0:
            batch.join(waiting.pop(0))
            if len(waiting) % 2:
                batch.join(waiting.pop(0))
        for go_on in (batch.read_short, batch.advance):
            for row, logits in go_on():
                say(row, logits)
        batch.leave([row for row in batch.every if len(row.said) >= row.enough])
        steps += 1
    return [row.said for row in rows]


def asked(model):
    audio, lengths = clips(0.8, 1.5, 0.4)
    return [
        begin(model, [3, "a", 9], lengths[:1], audio[:1, :12800]),
        begin(model, [4], lengths[:0], audio[:0]),
        begin(model, [2, "a", 4, "a", 30], lengths[1:], audio[1:]),
        begin(model, [70], lengths[:0], audio[:0]),
        begin(model, [17], lengths[:0], audio[:0]),
        begin(model, [1, "a", 40], lengths[:1], audio[:1, :12800]),
    ]


def check(model):
    pairs = asked(model)
    pairs[1][0].enough = 5  # one leaves early, so that others move into its slot
    assert together(model, [row for row, _ in pairs]) == [alone[: row.enough] for row, alone in pairs]


@pytest.mark.parametrize("setup", SETUPS)
def test_every_integration(setup, monkeypatch):
    monkeypatch.setattr(batches, "CHUNK", 16)  # long prompts take several pieces, short ones share one
    monkeypatch.setattr(batches, "LANE", 12)  # and answers outgrow their lanes
    check(tiny_model(streams=SETUPS[setup]))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family, monkeypatch):
    monkeypatch.setattr(batches, "CHUNK", 16)
    check(tiny_model(family, streams=[stream("a", "prepend"), stream("b", "attend")]))


def test_a_prompt_that_leaves_half_read_harms_nobody(monkeypatch):
    monkeypatch.setattr(batches, "CHUNK", 16)
    model = tiny_model(streams=SETUPS["all"])
    pairs = asked(model)
    gone = begin(model, [90], torch.zeros(0, dtype=torch.long), torch.zeros(0, 1))[0]
    batch, rows = Batch(model), [row for row, _ in pairs]
    for row in (*rows[:2], gone, *rows[2:]):
        batch.join(row)
    for _ in range(90):
        for go_on in (batch.read_short, batch.advance):
            for row, logits in go_on():
                say(row, logits)
        if gone in batch.every and gone.read:
            batch.leave([gone])
        batch.leave([row for row in batch.rows if len(row.said) >= 12])
    assert [row.said[:12] for row in rows] == [alone[:12] for _, alone in pairs] and gone.read < 90
    assert len(batch) == 0
    wide = [lane for columns, lane in batch.lanes.items() if columns > batches.LANE]
    assert all(layer is None for lane in wide for layer in lane.slots.layers)


def test_answers_of_an_hour_later_stand_in_the_room_of_the_first():
    model = tiny_model(streams=SETUPS["two-kinds"])
    batch, room = Batch(model), []
    for _ in range(2):
        pairs = asked(model)
        assert together(model, [row for row, _ in pairs], batch) == [alone[:12] for _, alone in pairs]
        room.append([part.data_ptr() for layer in batch.lanes[batches.LANE].slots.layers for part in layer])
    assert room[0] == room[1] and not len(batch)


def test_short_prompts_pass_long_ones_which_are_not_starved(monkeypatch):
    monkeypatch.setattr(batches, "CHUNK", 16)
    model = tiny_model()
    width = model.config.text_config.hidden_size

    def prompt(length):
        embeddings = torch.randn(length, width)
        return Row(embeddings=embeddings, positions=torch.arange(length), position=length - 1, read=0, memory=None)

    batch, long, other = Batch(model), prompt(160), prompt(150)
    batch.join(long)
    batch.join(other)
    finished, pieces = [], 0
    while long not in finished:
        batch.join(prompt(12))
        over = [row for row, _ in batch.read_short()]
        assert len(over) == 1 and over[0] not in (long, other), "a short prompt waited, or did not end"
        finished += [row for row, _ in batch.read_piece()]
        pieces += 1
        batch.leave(over)
        if other in finished:
            batch.leave([other])
    assert other in finished and pieces == 160 // 16 + 150 // 16 + 1


def test_a_text_keeps_its_audio_when_another_takes_its_place():
    """A short text leaves from before a long one, which then moves; what it heard moves along."""
    model = tiny_model(streams=SETUPS["two-kinds"])
    pairs = asked(model)
    pairs[0][0].enough = 2
    assert together(model, [row for row, _ in pairs[:3]]) == [alone[: row.enough] for row, alone in pairs[:3]]
