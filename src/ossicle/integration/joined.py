"""One softmax over `[audio ; text]`: the parts that do not depend on a decoder's internals.

    keys   [ audio 1 … N | text 1 … T ]      a row at position p sees audio whose `visible_from` ≤ p, text as it did
    mask   (B, 1, L, N + T), the same in every layer that sees the same audio: made by the first, kept for the others

Where every row of a batch hears whole clips from the same column m on, no mask is needed: rows m … L are lower-right
causal attention over `[audio ; text]`, rows before m are causal attention over text. That keeps CUDA's flash kernel;
on CPU the two calls save nothing, so the mask is used there. Also shared by layers: x / rms(x) of the audio.
Source: RMSNorm (arXiv 1910.07467), eq. 4; `torch.nn.attention.bias`; sharing and splitting are our choice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

sdpa = nn.functional.scaled_dot_product_attention


def unit_rms(states: Tensor, epsilon: float) -> Tensor:
    """Return states over the root of their mean square, computed in float32."""
    wide = states.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)).to(states.dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Who sees what in one kind of layer: a `mask`, or None and the `deaf` first rows, which see no audio."""

    mask: Tensor | None = None
    deaf: int = 0


@dataclass(slots=True)
class Joined:
    """What the layers of one forward share; a later forward with the same audio replaces it.

    Attributes:
        split: Do without a mask where that is possible; None = on CUDA.
    """

    split: bool | None = None
    _views: list[tuple[tuple[Any, ...], View]] = field(default_factory=list)

    def view(self, query: Tensor, key: Tensor, text: Tensor | None, positions: Tensor, visible_from: Tensor) -> View:
        """Return who sees what (see `full_mask`), made once for all layers that ask with the same tensors."""
        # Tensors are compared by identity and held, so that an address cannot come back with other content.
        if self._views and self._views[0][0][0] is not positions:
            self._views.clear()
        asked = (positions, text, visible_from)
        sizes = query.shape[0], query.shape[2], key.shape[2]
        for (*tensors, shape), made in self._views:
            if shape == sizes and all(a is b for a, b in zip(tensors, asked, strict=True)):
                return made
        deaf = None
        if query.is_cuda if self.split is None else self.split:
            deaf = deaf_rows(query, key, text, positions, visible_from)
        made = View(deaf=deaf) if deaf is not None else View(mask=full_mask(query, key, text, positions, visible_from))
        self._views.append(((*asked, sizes), made))
        return made


def deaf_rows(query: Tensor, key: Tensor, text: Tensor | None, positions: Tensor, visible_from: Tensor) -> int | None:
    """Return how many first rows see no audio while all later ones see all of it; None = the batch needs a mask."""
    if text is not None or query.shape[2] != key.shape[2] or query.shape[0] != visible_from.shape[0]:
        return None
    if not visible_from.shape[1]:
        return query.shape[2]
    before = (positions < visible_from.amin(1, keepdim=True)).expand(query.shape[0], -1)
    whole = (before | (positions >= visible_from.amax(1, keepdim=True))).all()
    counts = before.sum(1)
    same, count = torch.stack([(whole & (counts == counts[0]).all()).long(), counts[0]]).tolist()
    return count if same else None


def full_mask(query: Tensor, key: Tensor, text: Tensor | None, positions: Tensor, visible_from: Tensor) -> Tensor:
    """Return (B, 1, L, N + T) boolean: which audio tokens and text rows each query row sees.

    Args:
        query: (B, H, L, width).
        key: (B, H, T, width) of the text.
        text: (B or 1, 1, L, ≥ T) mask of the text; None = causal, or all for a single query.
        positions: (B or 1, L) of the queries.
        visible_from: (B / beams, N) first position that sees each audio token.
    """
    num_rows, num_queries, num_keys = query.shape[0], query.shape[2], key.shape[2]
    if text is None:
        # transformers leaves the mask out when it is plain causal (or one query that sees all).
        text = torch.ones(num_queries, num_keys, dtype=torch.bool, device=query.device)
        text = text.tril() if num_queries > 1 else text
        text = text[None, None]
    beams = num_rows // visible_from.shape[0]
    seen_from = visible_from.repeat_interleave(beams, 0) if beams > 1 else visible_from
    audio = positions[:, None, :, None] >= seen_from[:, None, None, :]
    shape = (num_rows, 1, num_queries)
    return torch.cat([audio.expand(*shape, -1), text[..., :num_keys].expand(*shape, -1)], -1)


def attend(query: Tensor, audio: tuple[Tensor, Tensor], text: tuple[Tensor, Tensor], view: View, **options: Any) -> Any:
    """Return (B, L, H, width) what the queries read in one softmax over audio and text.

    Args:
        query: (B, H, L, width).
        audio: Keys and values (B, key-value heads, N, width).
        text: Keys and values (B, key-value heads, T, width).
        view: Who sees what.
        **options: `dropout_p` and `scale` of torch's attention.
    """
    keys, values = (torch.cat([a.to(t.dtype), t], 2) for a, t in zip(audio, text, strict=True))
    if view.mask is not None:
        return _masked(query, keys, values, view.mask, options)
    if torch.is_autocast_enabled(query.device.type):  # the lower-right bias goes past autocast
        dtype = torch.get_autocast_dtype(query.device.type)
        query, keys, values = query.to(dtype), keys.to(dtype), values.to(dtype)
        text = text[0].to(dtype), text[1].to(dtype)
    options["enable_gqa"] = query.shape[1] != keys.shape[1]
    deaf, length = view.deaf, query.shape[2]
    parts = []
    if deaf:
        early, key, value = (part[:, :, :deaf] for part in (query, *text))
        parts.append(sdpa(early, key, value, is_causal=deaf > 1, **options))
    if deaf < length:
        # Imported here: it brings the compiler, a second of imports that a mask does without.
        from torch.nn.attention.bias import causal_lower_right

        bias = causal_lower_right(length - deaf, keys.shape[2]) if length - deaf > 1 else None
        parts.append(sdpa(query[:, :, deaf:], keys, values, bias, **options))
    return torch.cat(parts, 2).transpose(1, 2).contiguous()


def _masked(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, options: dict[str, Any]) -> Tensor:
    """Attend under a mask; heads that share keys get copies of them only where a kernel needs that."""
    rows, heads, length, _ = query.shape
    groups = heads // keys.shape[1]
    if groups > 1 and length == 1:  # a group's heads are its rows
        query, groups = query.reshape(rows, keys.shape[1], groups, -1), 1
    elif groups > 1 and query.is_cuda:  # with a mask and shared heads CUDA would fall back to the slow kernel
        keys, values, groups = keys.repeat_interleave(groups, 1), values.repeat_interleave(groups, 1), 1
    out = sdpa(query, keys, values, mask, enable_gqa=groups > 1, **options)
    return out.reshape(rows, heads, length, -1).transpose(1, 2).contiguous()
