"""`prepend`: audio tokens are rows of the text and run through every layer, feed-forward included (PLITS).

    rows   [text … | audio audio audio | marker | text …]      one causal sequence

Source: PAL v2, abstract (PLITS baseline family). Where in the prompt the rows go is the chat template's choice;
LTU-AS puts them before all text.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from torch import Tensor

from ossicle.integration.base import Integration, IntegrationConfig
from ossicle.types import AudioTokens


class PrependConfig(IntegrationConfig):
    """Settings of `prepend`.

    Attributes:
        marker: `hidden` = no row sees the clip's marker and it takes no position, as if it were not there (LTU-AS has
            none); `seen` = it is a token like any other.
    """

    kind: str = "prepend"
    marker: Literal["seen", "hidden"] = "seen"

    def num_slots(self, num_tokens: int) -> int:
        """Every token takes a row."""
        return num_tokens


class Prepend(Integration):
    """Audio tokens become rows of the text, just before their clip's marker."""

    Config: ClassVar[type[IntegrationConfig]] = PrependConfig

    def rows(self, tokens: AudioTokens) -> list[Tensor]:
        """Return the real tokens of each clip."""
        return [row[:count] for row, count in zip(tokens.values, tokens.counts().tolist(), strict=True)]
