"""Answers that are none: "It cannot be determined from the audio." They teach a model to decline what it could hear.

Seven shapes, each with its words in their places, so that "noise enough to wake a child" and "the speaker cannot swim"
stay and "insufficient data" and "can not be determined" go. Source: our choice, instead of the 27 phrases of
`paper_data.keeps`; precision and recall of both on a labelled sample are in the tests and the log.
"""

from __future__ import annotations

import re

_CANNOT = (
    r"(?:can ?not|can[’']?t|could not|couldn[’']?t|(?:am|is|are|was)(?: not|n[’']t) able to|(?:am|is|are) unable to)"
)
_KNOW = (
    r"(?:determine|infer|tell|say|know|identify|conclude|ascertain|deduce|establish|judge|specify|confirm|answer|"
    r"discern|guess)"
)
_KNOWN = (
    r"(?:determined|inferred|told|said|known|identified|concluded|ascertained|deduced|established|judged|specified|"
    r"confirmed|answered|discerned|guessed)"
)
_ABOUT = r"(?:information|context|details?|data|evidence|clues?|indications?|cues?)"
_CLIP = r"(?:clip|audio|recording|sound|transcript|text|speech|information|context|data|metadata|passage|excerpt)"
SHAPES = (
    # it cannot be determined; this can't be inferred
    rf"{_CANNOT} (?:be |really |reliably |easily |definitively )*{_KNOWN}\b",
    # I cannot say; one can not tell; we are unable to determine; it is impossible to know
    rf"\b(?:i|we|one|you|it)\b (?:\w+ )?{_CANNOT} (?:\w+ly )?{_KNOW}\b",
    rf"\b(?:not possible|impossible|difficult|hard|not easy|no way) to (?:\w+ly )?{_KNOW}\b",
    # it is unclear whether; the age is unknown; it is not clear who
    r"\b(?:unclear|unknown|uncertain|not clear|not known|not evident)(?: from| if| whether| who| what| why| how| where"
    r"| when| which| without| based|[.,;]|$)",
    # there is not enough information; no specific indication; without more context; insufficient data
    rf"\b(?:not enough|no|insufficient|without|lack of|lacks|not sufficient|more|any)"
    rf"(?: more| further| additional| enough| sufficient| specific| clear| explicit| other| direct)* {_ABOUT}\b",
    # the audio does not say; the clip doesn't provide
    rf"\b{_CLIP} (?:alone |itself )?(?:does|do|did)(?: not|n[’']t) (?:\w+ly )?"
    r"(?:say|provide|specify|mention|indicate|contain|reveal|state|give|tell|include|offer)\b",
    # the age is not specified; no name is given
    r"\b(?:is|are|was|were)(?: not|n[’']t) (?:\w+ly )?"
    r"(?:specified|mentioned|provided|stated|indicated|disclosed|given)\b",
    # sorry, I do not know; unknown; n/a; as an AI
    r"^\W*(?:i[’']?m )?sorry\b|^\W*(?:unknown|unclear|n/?a|no idea)\W*$",
    r"\bi (?:do not|don[’']t) know\b|\bas an? (?:ai|language model)\b",
)
NOT_AN_ANSWER = re.compile("|".join(f"(?:{shape})" for shape in SHAPES), re.IGNORECASE)


def is_not_an_answer(text: str) -> bool:
    """Return whether an answer says that there is none; an empty one does.

    Example:
        >>> is_not_an_answer("There is insufficient data."), is_not_an_answer("The man says that he is sorry.")
        (True, False)
    """
    return not text.strip() or bool(NOT_AN_ANSWER.search(text))
