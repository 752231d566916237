"""LAL one row, head and query at a time, the reference of the fast path; it shares no code with `ossicle.integration`.

The audio's keys and values are caught from the decoder's own attention module run on the audio, at its positions.
"""

from __future__ import annotations

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

CAUGHT, AUDIO = [], {}  # what the row at hand hears: states (N, D), rotated `at` (N,), visible_from (N,), layers, norm


def naive_attention(module, query, key, value, mask, scaling=None, position_ids=None, **kwargs):
    if AUDIO.get("catching"):
        CAUGHT.append((key, value))
        return torch.zeros_like(query).transpose(1, 2), None
    hearing = module.layer_idx in AUDIO["layers"] and len(AUDIO["states"])
    audio_key, audio_value = audio_keys_values(module) if hearing else (None, None)
    groups = query.shape[1] // key.shape[1]
    out = torch.zeros_like(query)
    for head in range(query.shape[1]):
        keys, values = key[0, head // groups], value[0, head // groups]
        for row in range(query.shape[2]):
            seen = mask[0, 0, row, : len(keys)]
            k, v = keys[seen], values[seen]
            if hearing:
                hears = AUDIO["visible_from"] <= position_ids[0, row]
                k = torch.cat([k, audio_key[0, head // groups][hears]])
                v = torch.cat([v, audio_value[0, head // groups][hears]])
            weights = torch.softmax(k @ query[0, head, row] * scaling, 0)
            out[0, head, row] = weights @ v
            if "weights" in AUDIO:
                AUDIO["weights"][module.layer_idx, head, row] = weights[int(seen.sum()) :]
    return out.transpose(1, 2), None


def audio_keys_values(module):
    decoder, states = AUDIO["decoder"], AUDIO["states"][None]
    norm = getattr(decoder.layers[module.layer_idx], "input_layernorm", None)
    states = norm(states) if AUDIO["norm"] and norm is not None else states
    kind = {"layer_type": module.layer_type} if hasattr(decoder.rotary_emb, "layer_types") else {}
    angles = decoder.rotary_emb(states, AUDIO["at"][None], **kind)
    AUDIO["catching"] = True
    module(hidden_states=states, position_embeddings=angles, attention_mask=None)
    AUDIO["catching"] = False
    return CAUGHT.pop()


AttentionInterface.register("naive_lal", naive_attention)
AttentionMaskInterface.register("naive_lal", lambda **options: sdpa_mask(**options | {"allow_is_causal_skip": False}))


def naive_logits(language_model, embeddings, positions, **audio):
    """Logits (L, V) of one unpadded row that hears `audio`."""
    language_model.set_attn_implementation("naive_lal")
    AUDIO.update(audio, decoder=language_model.get_decoder(), catching=False)
    row = {"inputs_embeds": embeddings[None], "position_ids": positions[None]}
    return language_model(**row, attention_mask=torch.ones(1, len(embeddings)).long(), use_cache=False).logits[0]
