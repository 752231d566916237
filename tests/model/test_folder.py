"""A model folder is read strictly, what does not fit is named; sampling draws the same words with and without cache."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from integration.tiny_models import MARKER, SLOT, clips, stream, text, tiny_model
from ossicle.errors import CheckpointError
from ossicle.model import AudioLM


@pytest.mark.parametrize("fault", ["missing", "unexpected", "mismatched"])
def test_weights_that_do_not_fit_are_named(tmp_path, fault):
    tiny_model().save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if ".connector." in name and name.endswith("weight"))
    value = tensors.pop(name)
    if fault == "unexpected":
        tensors |= {name: value, "streams.ear.connector.stray": value.clone()}
        name = "streams.ear.connector.stray"
    elif fault == "mismatched":
        tensors[name] = value[:-1].clone()
    save_file(tensors, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"1 weights do not fit \({fault}") as caught:
        AudioLM.from_pretrained(tmp_path, ignore_mismatched_sizes=True)
    assert name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["attend", "prepend", "cross"])
def test_sampling_is_seeded_and_the_cache_does_not_change_it(kind):
    model = tiny_model(streams=[stream(kind=kind)])
    audio, lengths = clips(0.7, 0.4)
    ids, mask = text(model, [[3, "a", 9], [2, "a", 4]], lengths)
    given = {"attention_mask": mask, "audio_values": audio, "audio_lengths": lengths, "max_new_tokens": 8}
    given |= {"suppress_tokens": [MARKER, SLOT], "eos_token_id": None, "pad_token_id": 0}
    given |= {"do_sample": True, "temperature": 1.5, "top_k": 40}
    drawn = []
    for seed, cache in ((0, True), (0, False), (1, True)):
        torch.manual_seed(seed)
        drawn.append(model.generate(ids, use_cache=cache, **given))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
