"""Which language a sentence is in, by its small words; for telling one's own language from others, no more.

    sentence ─► how many of its words are small words of each language ─► the one with most, if two or more and alone

Source: our choice.
"""

from __future__ import annotations

import re

LEAST = 2
_TEXTS = {
    "en": "the a an is are was were of and to in on with that it this for not but from there as at by be has have what",
    "de": "der die das den dem ein eine einen ist sind war und zu im auf mit dass es nicht aber von wie wird er sie",
    "fr": "le la les un une des est sont et dans sur avec que il elle ce cette pour ne pas mais du au on je vous nous",
    "es": "el la los las un una es son y de en con que se por para no pero del al lo su como este esta muy hay yo",
    "it": "il lo la gli le un una è sono e di in con che si per non ma del al come questo questa molto ci io lui lei",
    "nl": "de het een is zijn was en te in op met dat niet maar van er wordt die deze dit voor aan hij zij ik je wat",
    "pt": "o a os as um uma é são e de em com que se por para não mas do da no na como este esta muito há eu ele ela",
    "pl": "i w na z że się nie jest są to do o jak ale po za od przez który która ten ta te co czy już tylko",
}
WORDS_OF = {code: frozenset(words.split()) for code, words in _TEXTS.items()}


def language_of(text: str) -> str | None:
    """Return the ISO 639 code of a text's language; None where its small words do not decide.

    Example:
        >>> language_of("Der Hund bellt und die Glocke läutet."), language_of("Rain, then thunder.")
        ('de', None)
    """
    words = re.findall(r"[^\W\d_]+", text.lower())
    counts = sorted(((sum(word in small for word in words), code) for code, small in WORDS_OF.items()), reverse=True)
    (most, code), (second, _) = counts[:2]
    return code if most >= LEAST and most > second else None
