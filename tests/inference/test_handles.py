"""Handles: what is remembered answers as what is heard anew, and nothing that others made is ever met."""

from __future__ import annotations

import threading

import pytest
import torch

from integration.tiny_models import clips, stream, text, tiny_model
from ossicle.errors import DataError
from ossicle.inference.handles import Listener
from ossicle.inference.store import HandleStore, Key, Recording, recording
from ossicle.types import Waveform

SETUPS = {
    "prepend": [stream(kind="prepend")],
    "attend": [stream()],
    "attend-block": [stream(positions="block")],
    "attend-zero": [stream(positions="zero")],
    "attend-all-rows": [stream(visibility="all", norm=False, layers=[1])],
    "attend-own": [stream(own_projections=True)],
    "cross": [stream(kind="cross")],
    "pal": [stream("a", "prepend"), stream("b", "attend", encoder="a"), stream("c", "attend", positions="block")],
}
ROWS = [[3, "a", 9], [2, "a", 4, "a", 6]]


def recordings(audio, lengths):
    rows = zip(audio, lengths.tolist(), strict=True)
    return [recording(Waveform(samples=row[:length].numpy())) for row, length in rows]


def fresh(model, ids, mask, audio, lengths):
    with torch.no_grad():
        return model(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths).logits


def remembered(model, listener, ids, mask, heard_clips, **options):
    heard = listener.hear(ids, mask, heard_clips, **options)
    with torch.no_grad():
        out = model(ids, attention_mask=mask, audio_memory=heard.memory, position_ids=heard.placement.positions)
    return out.logits, heard


@pytest.mark.parametrize("setup", SETUPS)
def test_a_handle_answers_as_a_fresh_hearing_under_any_prompt(setup):
    model = tiny_model(streams=SETUPS[setup])
    listener = Listener(model)
    audio, lengths = clips(1.3, 0.7, 2.1)
    known = recordings(audio, lengths)
    for rows, expect_hits in ((ROWS, False), ([[5, "a", 2], [11, "a", 1, "a", 3]], True)):
        ids, mask = text(model, rows, lengths)
        out, heard = remembered(model, listener, ids, mask, known)
        torch.testing.assert_close(
            out[mask.bool()], fresh(model, ids, mask, audio, lengths)[mask.bool()], rtol=1e-4, atol=1e-4
        )
        assert bool(heard.hits) == expect_hits and bool(heard.misses) != expect_hits
        assert heard.cached_tokens == (heard.audio_tokens if expect_hits else 0)
    assert listener.store.saved_s > 0
    # one of the known clips alone, and beside a new one
    ids, mask = text(model, [["a", 4]], lengths[2:])
    again = fresh(model, ids, mask, audio[2:, : lengths[2]], lengths[2:])
    torch.testing.assert_close(remembered(model, listener, ids, mask, known[2:])[0], again, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("decoder", ["qwen3", "gemma3", "olmo2", "phi3"])
def test_keys_are_kept_as_every_family_makes_them(decoder):
    model = tiny_model(decoder, streams=[stream()])
    listener = Listener(model)
    audio, lengths = clips(1.0)
    ids, mask = text(model, [[2, "a", 5]], lengths)
    remembered(model, listener, ids, mask, recordings(audio, lengths))
    out, heard = remembered(model, listener, ids, mask, recordings(audio, lengths))
    assert heard.misses == 0
    torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)


def test_greedy_answers_are_the_same_tokens():
    model = tiny_model(streams=SETUPS["pal"])
    listener = Listener(model)
    audio, lengths = clips(1.0)
    ids, mask = text(model, [[2, "a", 5]], lengths)
    settings = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    alone = model.generate(ids, attention_mask=mask, audio_values=audio, audio_lengths=lengths, **settings)
    for _ in range(2):
        heard = listener.hear(ids, mask, recordings(audio, lengths))
        places = {"audio_memory": heard.memory, "position_ids": heard.placement.positions}
        assert torch.equal(model.generate(ids, attention_mask=mask, **places, **settings), alone)


@pytest.mark.parametrize(
    "part, again",
    [
        ("language_model.model.layers.0.mlp.up_proj.weight", set()),
        ("language_model.model.layers.1.self_attn.k_proj.weight", {"keys"}),
        ("language_model.model.layers.0.input_layernorm.weight", {"keys"}),
        ("streams.ear.connector.norm_scale", {"tokens", "keys"}),
    ],
)
def test_other_weights_never_meet_old_handles(part, again):
    model = tiny_model(streams=[stream()])
    listener = Listener(model)
    audio, lengths = clips(1.0)
    ids, mask = text(model, [["a", 5]], lengths)
    remembered(model, listener, ids, mask, recordings(audio, lengths))
    with torch.no_grad():
        model.get_parameter(part).mul_(1.5)
    before = {key for key in listener.store._entries}
    out, _ = remembered(model, listener, ids, mask, recordings(audio, lengths))
    assert {key.tier for key in listener.store._entries if key not in before} == again
    torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)


def test_switching_an_adapter_makes_its_own_keys_and_switching_back_finds_the_old_ones():
    peft = pytest.importorskip("peft")
    model = tiny_model(streams=[stream()])
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["v_proj"], init_lora_weights=False)
    tuner = peft.tuners.lora.LoraModel(model.language_model, {"one": config, "two": config}, "one")
    tuner.set_adapter("one")
    listener = Listener(model)
    audio, lengths = clips(1.0)
    ids, mask = text(model, [["a", 5]], lengths)
    misses = []
    for adapter in ("one", "two", "one"):
        tuner.set_adapter(adapter)
        out, heard = remembered(model, listener, ids, mask, recordings(audio, lengths))
        misses.append(heard.misses)
        torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)
    assert misses == [2, 1, 0]
    for _, layer in model.named_modules():
        if hasattr(layer, "lora_A"):
            layer.scaling["one"] *= 2
    assert remembered(model, listener, ids, mask, recordings(audio, lengths))[1].misses == 1


def test_unloading_an_adapter_ends_its_own_keys_and_no_others():
    peft = pytest.importorskip("peft")
    model = tiny_model(streams=[stream()])
    config = peft.LoraConfig(r=2, lora_alpha=8, target_modules=["v_proj"], init_lora_weights=False)
    tuner = peft.tuners.lora.LoraModel(model.language_model, {"one": config, "two": config}, "one")
    listener = Listener(model)
    audio, lengths = clips(1.0)
    ids, mask = text(model, [["a", 5]], lengths)

    def misses():
        out, heard = remembered(model, listener, ids, mask, recordings(audio, lengths))
        torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)
        return heard.misses

    told = []
    for adapter in ("one", "two"):
        tuner.set_adapter(adapter)
        told.append(misses())
    tuner.set_adapter("one")  # peft warns of deleting the one in use
    tuner.delete_adapter("two")
    told.append(misses())
    model.language_model = tuner.unload()
    told += [misses(), misses()]
    assert told == [2, 1, 0, 1, 0]  # tokens and keys, other keys, found again, keys without adapter, found again


def test_scopes_never_share():
    model = tiny_model(streams=[stream()])
    listener = Listener(model)
    audio, lengths = clips(1.0)
    ids, mask = text(model, [["a", 5]], lengths)
    for scope, hits in (("alice", 0), ("bob", 0), ("alice", 2)):
        assert listener.hear(ids, mask, recordings(audio, lengths), scope=scope).hits == hits


def test_a_name_stands_for_a_clip_as_long_as_it_is_remembered():
    model = tiny_model(streams=[stream()])
    listener = Listener(model)
    audio, lengths = clips(1.0)
    ids, mask = text(model, [["a", 5]], lengths)
    clip = recordings(audio, lengths)[0]
    listener.store.name("alice", "u", clip)
    assert listener.store.named("bob", "u") is None
    known = listener.store.named("alice", "u")
    assert known == Recording(audio=clip.audio, num_samples=16000)
    with pytest.raises(DataError, match="send its audio again"):
        listener.hear(ids, mask, [known], scope="alice")
    listener.hear(ids, mask, [clip], scope="alice")
    out, _ = remembered(model, listener, ids, mask, [known], scope="alice")
    torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)


def test_an_encoder_that_listens_to_the_question_is_reused_but_not_what_follows():
    cnn = {"kind": "cnn", "dim": 16, "channels": [4, 4, 8, 8], "depth": 1, "heads": 2}
    pam = {"kind": "pam", "base": cnn, "pool": [cnn, cnn], "prompt_dim": 64}
    model = tiny_model(streams=[stream(encoder=pam)])
    listener = Listener(model)
    audio, lengths = clips(1.0)
    for rows, hits in (([["a", 5]], 0), ([["a", 9]], 1)):
        ids, mask = text(model, rows, lengths)
        out, heard = remembered(model, listener, ids, mask, recordings(audio, lengths))
        assert heard.hits == hits
        torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)
    assert {key.tier for key in listener.store._entries} == {"features"}


def test_the_store_is_bounded_by_bytes_and_drops_the_least_recently_used():
    store = HandleStore(max_bytes=100)
    for name in "abc":
        store.put(Key("tokens", "", name, "w"), name, num_bytes=40, cost_s=0.5)
        store.get(Key("tokens", "", "a", "w"))
    assert store.num_bytes == 80 and store.evicted == 1
    assert store.get(Key("tokens", "", "b", "w")) is None and store.get(Key("tokens", "", "c", "w")) == ("c", 0.5)
    assert (store.hits, store.misses, store.saved_s) == (4, 1, 2.0)
    store.put(Key("tokens", "", "d", "w"), "d", num_bytes=101, cost_s=0.0)
    assert len(store) == 2
    assert store.forget(lambda key: key.audio == "a") == 1 and store.num_bytes == 40


def test_the_store_counts_right_under_threads():
    store = HandleStore(max_bytes=1000)

    def use(seed):
        for i in range(300):
            key = Key("tokens", "", str((i * seed) % 37), "w")
            if store.get(key) is None:
                store.put(key, i, num_bytes=90, cost_s=0.0)

    threads = [threading.Thread(target=use, args=(seed,)) for seed in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.hits + store.misses == 1200
    assert store.num_bytes == 90 * len(store) <= 1000


@pytest.mark.parametrize("setup", ["prepend", "pal"])
def test_clips_encoded_ahead_together_are_heard_as_one_by_one(setup):
    model = tiny_model(streams=SETUPS[setup])
    listener = Listener(model)
    audio, lengths = clips(1.3, 0.7)
    known = recordings(audio, lengths)
    ahead = listener.encode([("a", known[0]), ("a", known[1]), ("b", known[1])])
    assert set(ahead) == {("a", known[0].audio), ("a", known[1].audio), ("b", known[1].audio)}
    assert len(listener.store) == 0 and listener.store.misses == 0, "nothing is remembered before it is heard"
    for scope, place in (("a", 0), ("a", 1), ("b", 1)):
        ids, mask = text(model, [[3, "a", 9]], lengths[place : place + 1])
        out, heard = remembered(model, listener, ids, mask, [known[place]], scope=scope, ahead=ahead)
        alone = fresh(model, ids, mask, audio[place : place + 1, : lengths[place]], lengths[place : place + 1])
        torch.testing.assert_close(out, alone, rtol=1e-4, atol=1e-4)
        assert heard.misses and not heard.hits
        assert remembered(model, listener, ids, mask, [known[place]], scope=scope)[1].hits
    assert listener.encode([("a", known[0]), ("b", known[1])]) == {}, "handles hold these"


def test_what_was_made_ahead_is_of_the_weights_of_that_moment():
    model = tiny_model(streams=SETUPS["attend"])
    listener = Listener(model)
    audio, lengths = clips(0.7)
    known = recordings(audio, lengths)
    ids, mask = text(model, [[3, "a", 9]], lengths)
    remembered(model, listener, ids, mask, known, ahead=listener.encode([("", known[0])]))
    with torch.no_grad():
        next(model.streams["ear"].connector.parameters()).mul_(1.5)
    out, heard = remembered(model, listener, ids, mask, known)
    assert not heard.hits
    torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)


def test_a_forced_route_and_another_focus_never_meet_old_handles():
    cnn = {"kind": "cnn", "dim": 16, "channels": [4, 4, 8, 8], "depth": 1, "heads": 2, "window_s": 1.0}
    mixture = {"kind": "mowe", "base": cnn, "pool": [cnn, cnn], "routers": ["independent"], "top_k": 1}
    model = tiny_model(streams=[stream(encoder=mixture)])
    model.eval()
    listener = Listener(model)
    audio, lengths = clips(4.0)
    ids, mask = text(model, [["a", 5]], lengths)
    encoder = next(iter(model.streams.values())).encoder

    def same():
        out, heard = remembered(model, listener, ids, mask, recordings(audio, lengths))
        torch.testing.assert_close(out, fresh(model, ids, mask, audio, lengths), rtol=1e-4, atol=1e-4)
        return out, heard.hits

    free, _ = same()
    assert same()[1], "what is the same is found again"
    forced = []
    for route in (0, 1):
        with encoder.forced(independent=route):
            forced.append(same()[0])
    assert not torch.allclose(*forced)
    model.config.focus = {"over_s": 2.0, "keep_s": 1, "stretch_s": 1}
    focused, _ = same()
    assert not torch.allclose(free, focused)
    model.config.focus = None
    assert same()[1]
