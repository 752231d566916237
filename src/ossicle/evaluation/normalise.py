"""Text before word errors are counted. The normaliser has a name, which stands in the card.

whisper_english   numbers, contractions, British spelling and fillers made alike: the class that ships in transformers
basic             lower case, punctuation removed, blanks collapsed
none              as it is
"""

from __future__ import annotations

import re
import unicodedata
from functools import cache
from typing import Any

from ossicle.errors import ConfigError

DEFAULT = "whisper_english"


@cache
def _whisper_english() -> Any:
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    return EnglishTextNormalizer({})


def basic(text: str) -> str:
    """Return lower-case words; apostrophes stay, all other punctuation becomes a blank."""
    folded = unicodedata.normalize("NFKC", text).lower().replace("’", "'")
    kept = "".join(c if c == "'" or not unicodedata.category(c).startswith(("P", "S")) else " " for c in folded)
    return re.sub(r"\s+", " ", kept).strip()


def normalise(text: str, name: str = DEFAULT) -> str:
    """Return a text ready for counting word errors.

    Raises:
        ConfigError: No normaliser of that name.
    """
    if name == "whisper_english":
        return str(_whisper_english()(text))
    if name == "basic":
        return basic(text)
    if name == "none":
        return text
    raise ConfigError(f"no normaliser '{name}'; known: whisper_english, basic, none")
