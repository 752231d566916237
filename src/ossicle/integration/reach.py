"""Whether what travels with a forward as a keyword reaches the attention of every layer.

    decoder(…, audio_memory=probe) ──► layer ──kwargs──► self_attn ──► `audio_attention` ──► probe.mask(layer)

Where it does not (StableLM, Nemotron), `attend` is refused by family, but a running batch would go on with no mask of
its own, and be silently wrong. So a decoder is asked once, by running one token. Source: our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

import torch

from ossicle.integration.memory import AudioSegment, layers_of, use_audio_attention

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_KNOWN: WeakKeyDictionary[PreTrainedModel, bool] = WeakKeyDictionary()


@dataclass(slots=True)
class _Probe:
    """Stands where a plan of slots does, and notes which layers ask for their mask."""

    crosses: tuple[AudioSegment, ...] = ()
    asked: set[int] = field(default_factory=set)

    def mask(self, layer: int, window: int | None) -> None:
        self.asked.add(layer)


def reaches_attention(decoder: PreTrainedModel) -> bool:
    """Return whether keywords reach the attention of every layer; the decoder is left as it was.

    Raises:
        UnsupportedError: The decoder caps its attention scores.
    """
    if decoder not in _KNOWN:
        probe = _Probe()
        _run(decoder, probe)
        _KNOWN[decoder] = len(probe.asked) == len(layers_of(decoder))
    return _KNOWN[decoder]


@torch.no_grad()
def _run(decoder: PreTrainedModel, probe: _Probe) -> None:
    """Run one token, in the way in which slots run."""
    before, token = decoder.config._attn_implementation, torch.zeros(1, 1, dtype=torch.long, device=decoder.device)
    use_audio_attention(decoder)
    try:
        decoder(
            inputs_embeds=decoder.get_input_embeddings()(token),
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=decoder.device),
            position_ids=token,
            use_cache=False,
            audio_memory=probe,
        )
    finally:
        decoder.set_attn_implementation(before)
