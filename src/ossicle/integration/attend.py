"""`attend` (LAL): audio enters the decoder's attention as keys and values only.

                 text rows H                 audio A (connector output, the same in every layer)
                     │ Norm                      │ Norm (the layer's own)
        Q = X Wq ────┤                           ├──── K_a = A' Wk,  V_a = A' Wv
        K = X Wk ────┤                           │
        V = X Wv ────┘                           │
              O = softmax( Q [K_a ; K]ᵀ / √d + M ) [V_a ; V]        one softmax over audio and text
              H ← H + O Wo ;   H ← H + FFN(Norm(H))                 text rows only

No audio row is ever a query, enters `o_proj`, or enters a feed-forward block, so an audio token costs two projections a
layer and no residual stream. Source: PAL v2/v3 (arXiv 2506.10423), abstract and project page; the papers leave these
open, and each is a setting (our choice is the default):
- `own_projections`: the decoder's own Wk, Wv (LoRA included), or new ones per layer that start as copies of them;
- `norm`: A passes the layer's input norm, so that keys and values have the statistics Wk and Wv know;
- `layers`: `all`, a list, or `skip_first: k` (PAL v1 skips 4);
- `positions`: a query is rotated before attention, so an unrotated key is a key at position 0, not one without
  position. `marker`: a clip's keys stand at its marker; `block`: they take a run of positions before it and later text
  is shifted, as if they had been prepended; `zero`: ablation;
- `visibility`: rows before a clip's marker do not see it (`after`), or all rows do (`all`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from ossicle.integration import memory
from ossicle.integration.base import NEVER, Integration, IntegrationConfig, Layers, Placement, layer_indices
from ossicle.types import AudioTokens

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel


class AttendConfig(IntegrationConfig):
    """Settings of `attend`; see the module for what each means.

    Attributes:
        own_projections: Key and value projections of audio's own in every layer; else the decoder's.
        norm: Audio passes the layer's input norm before them.
        layers: `all`, indices, or `{skip_first: k}`.
        positions: A clip's keys stand at its `marker`, take a run of positions (`block`), or stand at `zero`.
        visibility: Text sees a clip from its marker on (`after`), or wherever it stands (`all`).
    """

    kind: str = "attend"
    own_projections: bool = False
    norm: bool = True
    layers: Layers = "all"
    positions: Literal["marker", "block", "zero"] = "marker"
    visibility: Literal["after", "all"] = "after"

    def num_positions(self, num_tokens: int) -> int:
        """Only `block` shifts the text that follows."""
        return num_tokens if self.positions == "block" else 0


class OwnProjections(nn.Module):
    """Key and value projections of one layer for audio alone."""

    def __init__(self, width: int, kv_width: int) -> None:
        super().__init__()
        self.k_proj = nn.Linear(width, kv_width)
        self.v_proj = nn.Linear(width, kv_width)


class Attend(Integration):
    """Audio tokens become keys and values of the decoder's own attention."""

    Config: ClassVar[type[IntegrationConfig]] = AttendConfig

    def __init__(self, config: AttendConfig, text_config: PreTrainedConfig) -> None:
        super().__init__(config, text_config)
        memory.check_family(text_config)
        self.text_config = text_config
        self.layers = layer_indices(config.layers, text_config.num_hidden_layers)
        self.own: nn.ModuleDict | None = None
        if config.own_projections:
            kv_width = text_config.num_key_value_heads * memory.head_dim(text_config)
            pairs = {str(i): OwnProjections(text_config.hidden_size, kv_width) for i in sorted(self.layers)}
            self.own = nn.ModuleDict(pairs)

    def segment(self, tokens: AudioTokens, placement: Placement, before: Tensor) -> memory.AudioSegment:
        """Return the stream's keys-and-values side, clips laid end to end in their rows."""
        counts = tokens.counts()
        states, clip = placement.gather(tokens.values, counts)
        real = clip >= 0
        markers = placement.markers[clip.clamp(min=0)]
        if self.config.positions == "marker":
            positions = markers
        elif self.config.positions == "zero":
            positions = torch.zeros_like(markers)
        else:
            start = markers - before[clip.clamp(min=0)]
            positions = start + _index_in_clip(clip)
        from_where = markers if self.config.visibility == "after" else torch.full_like(markers, -1)
        return memory.AudioSegment(
            states=states,
            visible_from=torch.where(real, from_where, NEVER),
            positions=torch.where(real, positions, 0),
            layers=self.layers,
            norm=self.config.norm,
            unit=memory.unit_states(self.text_config, states) if self.config.norm else None,
            own=self.own,
        )

    def install(self, decoder: PreTrainedModel) -> None:
        """Switch the decoder to the attention function that knows audio."""
        memory.use_audio_attention(decoder)

    def start(self, decoder: PreTrainedModel) -> None:
        """Let own projections start as copies of the decoder's."""
        if self.own is not None:
            memory.copy_projections(decoder, self.own)


def _index_in_clip(clip: Tensor) -> Tensor:
    """Return (B, N) the index of each token within its clip, from the (B, N) clip index."""
    steps = torch.arange(clip.shape[1], device=clip.device).expand_as(clip)
    starts = torch.ones_like(clip, dtype=torch.bool)
    starts[:, 1:] = clip[:, 1:] != clip[:, :-1]
    return steps - torch.where(starts, steps, 0).cummax(1).values
