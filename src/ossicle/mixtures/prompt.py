"""One vector per clip for the question that is asked about it: the mean embedding of its row's prompt.

    [slot slot marker] What is said ? │ Six .          the prompt ends where the first label begins

Source: our choice (PaM names the prompt, not its encoding).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ossicle.errors import DataError

IGNORED_LABEL = -100


def prompt_vectors(
    embeddings: Tensor, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None, audio: tuple[int, int]
) -> Tensor:
    """Return (C, D) the mean embedding of each clip's prompt, without gradient.

    Args:
        embeddings: (V, D) the decoder's table.
        input_ids: (B, L) text.
        attention_mask: (B, L) 1 = real, or None = all real.
        labels: (B, L); text from the first label on is answer, not prompt. None = all text is prompt.
        audio: Ids of the marker (one per clip) and of the audio slot.

    Raises:
        DataError: A row has audio, but no text before its first label (`loss_on: all`).
    """
    marker, slot = audio
    real = torch.ones_like(input_ids, dtype=torch.bool) if attention_mask is None else attention_mask.bool()
    real = real & (input_ids != marker) & (input_ids != slot)
    if labels is not None:
        real = real & ((labels != IGNORED_LABEL).cumsum(1) == 0)
    rows = (input_ids == marker).nonzero()[:, 0]
    if not bool(real.any(1)[rows].all()):
        raise DataError(
            "an encoder listens to the question, but a row has no text before its labels; use loss_on: assistant"
        )
    weight = real[..., None].to(embeddings.dtype)
    known = embeddings.detach()[input_ids.clamp(max=len(embeddings) - 1)]
    return ((known * weight).sum(1) / weight.sum(1).clamp(min=1))[rows]
