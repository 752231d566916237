"""Transcripts as LTU-AS puts them into prompts: blanks stripped, and what Whisper makes up in silence taken out.

    " Thanks for watching!" ──► ""          " Hello there. Thank you for watching." ──► "Hello there. "

The training data were made by deleting the phrases and then stripping, the demo strips and then deletes; only in the
order of `demo` can a blank be left in front. Three letter cases are known, others survive. Source: LTU-AS, official
code (`combine_all_v1.py`, `inference_gradio.py`).
"""

from __future__ import annotations

import re
from typing import Literal

Order = Literal["training", "demo"]

PHRASES = re.compile(
    "|".join(
        f"{re.escape(case)}[.!]?"
        for words in ("thank you for watching", "thanks for watching")
        for case in (words, words.capitalize(), words.upper())
    )
)


def clean(text: str, order: Order = "training") -> str:
    """Return a transcript without leading blanks and without Whisper's silence phrases.

    Args:
        text: The transcript.
        order: `training` = phrases, then blanks; `demo` = blanks, then phrases.

    Example:
        >>> clean(" Thank you for watching. Bye"), clean(" Thank you for watching. Bye", "demo")
        ('Bye', ' Bye')
    """
    return PHRASES.sub("", text).lstrip() if order == "training" else PHRASES.sub("", text.lstrip())
