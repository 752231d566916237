"""How LTU-AS's own generators chose their facts and dropped their answers, for reproductions.

- Pitch: the gendered cut points, ">240 Hz" for every top level; an unknown gender works for VoxCeleb2 alone.
- Sentiment: the text of an integer from -3 to 3, nothing else.
- The speech of a joint clip is called singing where a label is exactly "Singing".
- An answer is dropped when it holds one of 27 phrases anywhere, of which 21 decide: no word boundaries, so that
  "noise enough to wake" goes and "insufficient" stays.

Source: LTU and LTU-AS, official code; checked against what it computed.
"""

from __future__ import annotations

from typing import Any

from ossicle.audio.levels import F0_CUTS_HZ, f0_phrase
from ossicle.errors import DataError
from ossicle.questions.labelled import SENTIMENTS

PAPER_PHRASES = (
    "can't infer", "cannot", "difficult to determine", "difficult to infer", "do not provide sufficient",
    "does not provide", "enough", "impossible", "it is difficult to", "more context", "no indication",
    "no information", "no specific", "not clear", "not possible", "not provided", "not specified", "sorry", "unclear",
    "without additional", "without more information",
)  # fmt: skip
SPEECH_BUILDERS = ("libritts", "iemocap", "mosei", "voxceleb")
ANY_GENDER = ("voxceleb",)
SENTIMENT_TEXTS = {str(score): word for score, word in SENTIMENTS.items()}


def keeps(answer: str) -> bool:
    """Return whether the official filter keeps an answer.

    Example:
        >>> keeps("There is enough noise to wake a child.")
        False
    """
    lower = answer.lower()
    return not any(phrase in lower for phrase in PAPER_PHRASES)


def facts_of(builder: str, entry: dict[str, Any]) -> dict[str, str]:
    """Return the facts that an official prompt builder makes of an entry.

    Args:
        builder: libritts, iemocap, mosei, voxceleb, fma or jointas.
        entry: As the official files hold it.

    Raises:
        DataError: Where the official builder raises.
    """
    if builder == "fma":
        return {"genre_text": ", ".join(entry["genre"])}
    if builder not in SPEECH_BUILDERS:
        return {"speech_part_called": "singing" if "Singing" in entry["audio_tag"] else "speech"}
    if entry["gender"] not in F0_CUTS_HZ and builder not in ANY_GENDER:
        raise DataError(f"gender {entry['gender']!r}: the {builder} builder knows male and female only")
    facts = {"pitch_phrase": f0_phrase(entry["pitch_detail"], entry["gender"], compat=True)}
    if builder == "mosei":
        score = entry["sentiment_score"]
        if not isinstance(score, str) or score not in SENTIMENT_TEXTS:
            raise DataError(f"sentiment {score!r}: the mosei builder wants the text of an integer from -3 to 3")
        facts["sentiment_word"] = SENTIMENT_TEXTS[score]
    return facts
