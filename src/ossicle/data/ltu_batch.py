"""A batch as the official LTU code lays it out: audio, then a gap, then text that ends at the same column.

    [audio 25][pad pad pad][text]      text and pad together fill a multiple of 8 columns
     0 .. 24   25  26  27   28 …       positions count columns, pads too, so that a gap moves text away from audio

The last pad predicts the first word, which counts in the loss; in a row without a pad the first word is never
predicted. A hidden marker takes no position. All other batches of ossicle are padded on the right and take their
positions from the mask. Source: LTU-AS, official code (`finetune.py`, `data_collator.py`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ossicle.errors import DataError
from ossicle.loss import IGNORE
from ossicle.processor import AudioProcessor

MULTIPLE = 8

Row = tuple[list[int], list[int]]
"""Token ids and labels of one conversation."""


def cut(row: Row, audio: Sequence[int], limit: int | None) -> Row:
    """Return a row with at most `limit` tokens of text; what is cut off loses its end-of-answer token.

    Args:
        row: Ids and labels.
        audio: Ids of marker and slot, which are never cut and do not count.
        limit: Tokens of text, None = all.

    Example:
        >>> cut(([9, 9, 1, 2, 3], [-100, -100, 1, 2, 3]), [9], 2)
        ([9, 9, 1, 2], [-100, -100, 1, 2])
    """
    if limit is None:
        return row
    left, kept = limit, []
    for place, token in enumerate(row[0]):
        if token in audio:
            kept.append(place)
        elif left:
            kept.append(place)
            left -= 1
    return [row[0][place] for place in kept], [row[1][place] for place in kept]


def lay_out(rows: Sequence[Row], processor: AudioProcessor) -> dict[str, Tensor]:
    """Return `input_ids`, `attention_mask`, `position_ids` and `labels` (B, L).

    Raises:
        DataError: Audio that does not stand before all text.
    """
    audio = (processor.audio_token_id, processor.audio_slot_id)
    heads = [_head(ids, audio) for ids, _ in rows]
    text = max(len(ids) - head for (ids, _), head in zip(rows, heads, strict=True))
    width = max(heads) + -(-text // MULTIPLE) * MULTIPLE
    filler = processor.tokenizer.pad_token_id or 0
    inputs = {"input_ids": torch.full((len(rows), width), filler), "labels": torch.full((len(rows), width), IGNORE)}
    mask = torch.ones(len(rows), width, dtype=torch.long)
    for index, ((ids, labels), head) in enumerate(zip(rows, heads, strict=True)):
        gap = width - len(ids)
        inputs["input_ids"][index] = torch.tensor([*ids[:head], *[filler] * gap, *ids[head:]])
        mask[index, head : head + gap] = 0
        quiet = labels[head:] if gap else [IGNORE, *labels[head + 1 :]]
        inputs["labels"][index, head + gap :] = torch.tensor(quiet)
    takes_place = torch.ones_like(mask)
    if processor.hides_marker:
        hidden = inputs["input_ids"] == processor.audio_token_id
        mask[hidden], takes_place[hidden] = 0, 0
    positions = (takes_place.cumsum(1) - 1).clamp(min=0)
    return {**inputs, "attention_mask": mask, "position_ids": positions}


def _head(ids: Sequence[int], audio: Sequence[int]) -> int:
    """Return how many tokens of audio a row begins with."""
    head = next((place for place, token in enumerate(ids) if token not in audio), len(ids))
    if any(token in audio for token in ids[head:]):
        raise DataError("compat: ltu puts all audio before the text, but a clip stands inside it; use template: alpaca")
    return head
