"""What every integration is: the rule by which a stream's audio tokens reach the decoder.

    rows      the tokens become rows of the text (`prepend`)
    segment   the tokens become keys and values in the decoder's own attention (`attend`)
    blocks    the tokens are read by blocks of our own before decoder layers (`cross`)

`Placement` says where each clip's marker stands in the text; all positions follow from it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ossicle import registry
from ossicle.config import Section
from ossicle.errors import ConfigError, DataError
from ossicle.types import AudioTokens

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

    from ossicle.integration.memory import AudioSegment

NEVER = 2**30
"""A position no text reaches: a padded audio token is visible from here on."""


class SkipFirst(Section):
    """All layers but the first few."""

    skip_first: int = Field(ge=0)


Layers = Literal["all"] | list[int] | SkipFirst


def layer_indices(layers: Layers, num_layers: int) -> frozenset[int]:
    """Return the indices of the chosen decoder layers.

    Raises:
        ConfigError: An index is out of range, or nothing is left.

    Example:
        >>> sorted(layer_indices(SkipFirst(skip_first=2), 4))
        [2, 3]
    """
    if layers == "all":
        chosen = range(num_layers)
    elif isinstance(layers, SkipFirst):
        chosen = range(layers.skip_first, num_layers)
    else:
        chosen = layers  # type: ignore[assignment]
    wrong = [index for index in chosen if not 0 <= index < num_layers]
    if wrong or not chosen:
        raise ConfigError(f"layers {layers!r} of an integration: the decoder has layers 0 to {num_layers - 1}")
    return frozenset(chosen)


class IntegrationConfig(Section):
    """Settings that every integration has: `kind`, the name in the table of `integration`."""

    kind: str

    def num_slots(self, num_tokens: int) -> int:
        """Return how many rows of text a clip of `num_tokens` takes."""
        return 0

    def num_positions(self, num_tokens: int) -> int:
        """Return by how many positions the text after a clip is shifted, beyond its rows."""
        return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where the clips of a batch stand in its text.

    Attributes:
        rows: (C,) row of each clip, ascending.
        markers: (C,) position (not column) of each clip's marker.
        positions: (B, L) position of every text row.
        shift: (B, L) how far positions run ahead of a plain count, for the text that follows when generating.
    """

    rows: Tensor
    markers: Tensor
    positions: Tensor
    shift: Tensor

    @property
    def num_rows(self) -> int:
        """Number of rows B."""
        return len(self.positions)

    def gather(self, tokens: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Return the clips' real tokens end to end in their rows: (B, N', …) values and (B, N') clip index or -1."""
        num_clips, longest = tokens.shape[:2]
        if num_clips == self.num_rows and torch.equal(self.rows, torch.arange(num_clips, device=self.rows.device)):
            index = torch.arange(num_clips, device=counts.device)[:, None].expand(-1, longest)
            real = torch.arange(longest, device=counts.device) < counts[:, None]
            return tokens, torch.where(real, index, -1)
        by_row: list[list[int]] = [[] for _ in range(self.num_rows)]
        for clip, row in enumerate(self.rows.tolist()):
            by_row[row].append(clip)
        length = max(1, *(int(sum(counts[clip] for clip in clips)) for clips in by_row))
        values, index = (
            tokens.new_zeros(self.num_rows, length, *tokens.shape[2:]),
            counts.new_full((self.num_rows, length), -1),
        )
        parts = []
        for row, clips in enumerate(by_row):
            end = 0
            for clip in clips:
                count = int(counts[clip])
                index[row, end : end + count] = clip
                parts.append((row, end, clip, count))
                end += count
        for row, start, clip, count in parts:
            values[row, start : start + count] = tokens[clip, :count]
        return values, index


def slot_rows(by_clip: list[list[Tensor]], rows: list[int], num_rows: int) -> list[Tensor]:
    """Return the slot rows of each text row: its clips in order, each clip's streams in order."""
    width = next(part for parts in by_clip for part in parts).shape[-1]
    by_row: list[list[Tensor]] = [[] for _ in range(num_rows)]
    for parts, row in zip(by_clip, rows, strict=True):
        by_row[row] += parts
    empty = by_clip[0][0].new_zeros(0, width)
    return [torch.cat([empty, *parts]) for parts in by_row]


def place(input_ids: Tensor, attention_mask: Tensor, marker_id: int, shifts: Tensor) -> Placement:
    """Find each clip's marker and count positions.

    Args:
        input_ids: (B, L) text with one marker per clip.
        attention_mask: (B, L) True or 1 = real; a marker may be hidden by it.
        marker_id: Token id of the marker.
        shifts: (C,) positions that each clip takes just before its marker without having rows there.

    Raises:
        DataError: The number of markers is not the number of clips.
    """
    found = (input_ids == marker_id).nonzero()
    if len(found) != len(shifts):
        raise DataError(f"the text has {len(found)} audio markers, but {len(shifts)} clips were given; each needs one")
    rows, columns = found.unbind(1)
    jumps = torch.zeros_like(input_ids)
    jumps[rows, columns] = shifts.to(input_ids)
    shift = jumps.cumsum(1)
    positions = (attention_mask.long().cumsum(1) - 1).clamp(min=0) + shift
    return Placement(rows=rows, markers=positions[rows, columns], positions=positions, shift=shift)


class Integration(nn.Module):
    """How one stream's tokens reach the decoder. Subclasses set `Config` and override what they use."""

    Config: ClassVar[type[IntegrationConfig]] = IntegrationConfig

    def __init__(self, config: IntegrationConfig, text_config: PreTrainedConfig) -> None:
        super().__init__()
        self.config: Any = config

    def rows(self, tokens: AudioTokens) -> list[Tensor] | None:
        """Return for each clip the (N_c, D) rows that fill its slots in the text, or None."""
        return None

    def segment(self, tokens: AudioTokens, placement: Placement, before: Tensor) -> AudioSegment | None:
        """Return the keys-and-values side of the stream, or None.

        Args:
            tokens: (C, N, D) connector output.
            placement: Where the clips stand.
            before: (C,) distance from the first position of this stream's run to its clip's marker.
        """
        return None

    def crossing(self, tokens: AudioTokens, placement: Placement) -> AudioSegment | None:
        """Return what blocks of the integration's own read, or None."""
        return None

    def install(self, decoder: PreTrainedModel) -> None:
        """Prepare the decoder's modules, where the integration needs it; weights are left alone."""

    def start(self, decoder: PreTrainedModel) -> None:
        """Set weights of a new model that depend on the decoder's."""


def attends(integration: Integration) -> bool:
    """Return whether a stream has keys and values in the decoder's own attention."""
    return type(integration).segment is not Integration.segment


def build_integration(spec: dict[str, Any], text_config: PreTrainedConfig) -> Integration:
    """Return a new integration from `{kind: …}` for a decoder's config."""
    config = registry.parse("integration", spec)
    integration: Integration = registry.lookup("integration", config.kind)(config, text_config)
    return integration
