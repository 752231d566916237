"""Answers that are none: "It cannot be determined from the audio." They teach a model to decline what it could hear.

    sentence ─► p: how much it sounds like declining (`questions.declining`)      p > .65 ──────────────► goes
             └► a shape: who cannot know, what is not told, what is missing       shape and p ≥ .15 ────► goes

The shapes put words into places (who or what · a negation · knowing or telling), so that "noise enough to wake a child"
and "the speaker cannot swim" stay and "insufficient data" and "can not be determined" go. What a person in the clip
says, asks, wants or has ("she explains that nothing is known", "he has no idea") is an answer about that person.
Source: our choice, instead of the 27 phrases of `paper_data.keeps`; precision and recall of both on three labelled
samples are in the tests and the log.
"""

from __future__ import annotations

import re

from ossicle.questions.declining import declines

SURE, DOUBTFUL = 0.65, 0.15
"""Probabilities of declining: above the one no shape is needed, below the other none counts."""
_NOT = r"(?: not|n[’']t| never| nowhere)"
_ADVERBS = r"(?:(?:\w+ly|even|ever|at all|always|just|yet|really|in any way|with (?:any )?certainty) )*"
_CANNOT = (
    r"(?:can ?not|can[’']?t|could not|couldn[’']?t|can never|could never|(?:am|is|are|was|were|be|[’']m|[’']re)"
    r"(?: not|n[’']t) able to|(?:am|is|are|be|[’']m|[’']re) unable to)"
)
_KNOW = (
    r"(?:determine|infer|tell|say|know|identify|conclude|ascertain|deduce|establish|judge|specify|confirm|answer|"
    r"discern|guess|name|decide|estimate|recogni[sz]e|derive|verify|find out|make out|work out|pin down|be sure|"
    r"be certain|be confident|assess|settle|provide an answer|give an answer|draw)"
)
_KNOWING = (
    r"(?:determining|inferring|telling|saying|knowing|identifying|concluding|ascertaining|deducing|establishing|"
    r"judging|"
    r"specifying|confirming|answering|discerning|guessing|naming|deciding|estimating|recogni[sz]ing|deriving|"
    r"verifying)"
)
_KNOWN = (
    r"(?:determined|inferred|told|said|known|identified|concluded|ascertained|deduced|established|judged|specified|"
    r"confirmed|answered|discerned|guessed|named|decided|estimated|derived|verified|worked out|pinned down|ruled out)"
)
_TOLD = (
    r"(?:specified|mentioned|provided|stated|supplied|listed|indicated|disclosed|revealed|named|explained|"
    r"described|known|clarified|"
    r"discernible|identifiable|determinable|apparent|evident|given(?! (?:an?|any|the|up|to|in)\b))"
)
_TELL = (
    r"(?:says?|provides?|settles?|lets? (?:us|me|one)|lists?|determines?|answers?|establish(?:es)?|specif(?:y|"
    r"ies)|mentions?|indicates?|reveals?|states?|gives?|tells?|offers?|discloses?|allows?|"
    r"supports?|suffices?|suggests?|points?|clarif(?:y|ies)|explains?|identif(?:y|ies)|helps?|make clear|makes clear|"
    r"(?:contains?|includes?|shows?|has|have|holds?|hint at|hints at)(?! (?:\w+ )?(?:\w+ )?(?:speech|music|voices?|"
    r"singing|sounds?|noises?|words|talking|instruments?|vocals|laughter|animals?|echo)\b))"
)
_INFO = (
    r"(?:information|info|context|details?|data|evidence|clues?|hints?|indications?|cues?|facts|basis|description|"
    r"background)"
)
_SOURCE = (
    r"(?:clip|audio|recording|sounds?|transcript|transcription|text|speech|information|context|data|metadata|passage|"
    r"excerpt|description|evidence|facts|details?|question|lyrics|words|notes?|caption|labels?|sample|scene)"
)
_SOME = (
    r"(?:\w+ly |more |further |additional |enough |sufficient |specific |clear |explicit |other |direct |definite |"
    r"definitive |available |useful |reliable |real |such |of the |of )*"
)
_WHAT = r"(?:if|whether|who|whom|whose|what|why|how|where|when|which)"
_UNCLEAR = (
    r"(?:unclear|unknown|uncertain|ambiguous|undetermined|unspecified|unstated|unsaid|unanswered|open|a mystery|"
    r"(?:not|n[’']t)(?: \w+ly)? (?:clear|known|evident|certain|sure|apparent|obvious))"
)
_PERSON = r"(?:speaker|singer|narrator|caller|man|woman|boy|girl|child|voice|person|host|he|she|they)"
SHAPES = (
    # it cannot be determined; such a detail can't be inferred
    rf"{_CANNOT} {_ADVERBS}be {_ADVERBS}{_KNOWN}\b",
    # I cannot say; one can not tell; without that one can't judge; nobody can say; no one knows
    rf"\b(?:i|we|one|you|it)\b ?(?:\w+ )?{_CANNOT} {_ADVERBS}{_KNOW}\b",
    rf"\b(?:nobody|no[ -]one|none of us) (?:(?:can|could|is able to) {_ADVERBS}{_KNOW}|knows|could know)\b",
    rf"\b(?:i|we|one|you) (?:do|does)(?: not|n[’']t) {_ADVERBS}(?:know|have)\b",
    rf"\b(?:i|we|one) (?:have|has|[’']ve) no (?:\w+ )?(?:idea|way|means|knowledge|ability|access|{_INFO})\b",
    r"\b(?:can|could|may) only (?:\w+ )?(?:guess|speculate|assume|imagine|be guessed)\b|\bany(?:one|body)[’']s "
    r"guess\b",
    # it is impossible to know; there is no way of knowing; naming it is not feasible
    rf"\b(?:not possible|impossible|not feasible|infeasible|difficult|hard|not easy|tricky) to {_ADVERBS}{_KNOW}\b",
    rf"\bno (?:\w+ )?(?:way|means|possibility|method) (?:to {_ADVERBS}{_KNOW}|of {_ADVERBS}{_KNOWING})\b",
    rf"\b{_KNOWING}\b[^.;]* (?:is|was|would be|seems) "
    r"(?:not possible|impossible|not feasible|infeasible|difficult|hard)\b",
    rf"\bquestion (?:is|remains) (?:impossible|unanswerable|not answerable)|\bquestion {_CANNOT}",
    # it is unclear whether; the age is unknown; who opened it remains a mystery; the clip leaves open why
    rf"(?:(?<!speech )(?<!voice )(?<!pronunciation ))(?:\bis|\bare|\bwas|\bwere|[’']s|\bremains?|\bstays?|"
    rf"\bseems?|\bleft)"
    rf" ?(?:\w+ly |still |therefore |also )*{_UNCLEAR}"
    rf"(?: (?:from|{_WHAT}|without|based|in|here|as to|about|and no)\b|[.,;]|$)",
    rf"\b(?:unclear|unknown|uncertain|not clear|not known|not evident) (?:from|{_WHAT}|without|based)\b",
    r"\b(?:leaves?|left|leaving) (?:\w+ )?(?:open|unsaid|unclear|unanswered)\b|\b(?:is|are|was|were) left out\b",
    # there is not enough information; no specific indication; without more context; too little data
    rf"(?:\bnot|n[’']t|\bno|\binsufficient|\bwithout|\block of|\blacks?|\btoo little|\btoo few|\black of|"
    rf"\bhardly any)"
    rf" (?:enough |sufficient |any ){{0,2}}{_SOME}{_INFO}\b",
    rf"\b(?:more|further|additional) {_SOME}{_INFO} (?:is|are|would be|will be) (?:needed|required|necessary|"
    rf"missing)\b",
    rf"\b(?:i|we|one|you|it|this|that|answer|answering|question) (?:\w+ ){{0,3}}(?:needs?|requires?|takes?) (?:\w+ )?"
    rf"(?:more|further|additional|other) {_SOME}{_INFO}\b",
    rf"\bdepends? (?:entirely |only )?(?:up)?on {_SOME}{_INFO}\b",
    r"\bno (?:\w+ )?(?:conclusions?|statements?|answers?|inferences?|judge?ments?) (?:can|could|may) be\b",
    r"\bno mention (?:of|is)\b|\bnothing to go on\b|\bpoints? (?:n?either way|nowhere)\b",
    # the audio does not say; the data are not sufficient; the clip never reveals; the text is silent on it
    rf"\b{_SOURCE} (?:alone |itself |here |provided |given |available |at hand )*"
    rf"(?:(?:does|do|did)(?: not|n[’']t)|never|fails? to|can ?not|can[’']t) {_ADVERBS}{_TELL}\b",
    rf"\b{_SOURCE} (?:alone |itself |here |provided |given |available )*(?:is|are|was|were)(?: not|n[’']t| in) "
    rf"?{_ADVERBS}"
    rf"(?:enough|sufficient|sufficiently|adequate|insufficient)\b",
    rf"\b{_SOURCE} (?:\w+ )?(?:gives?|offers?|provides?|contains?|has|have|holds?|shows?|says?|tells?)(?: us| me)? "
    rf"(?:nothing (?:about|on|of|that|to)|(?:no|little|too little) {_SOME}{_INFO})\b",
    rf"\bnothing (?:\w+ )?(?:in|about|from|of|on) (?:the|this|that|these) {_SOURCE}(?: that)? (?:\w+ )?{_TELL}\b",
    r"\bnot (?:something|anything|a thing|a detail)(?: that)? "
    rf"(?:(?:the|this|that) {_SOURCE}|can be|could be|one can|we can)",
    rf"\b{_SOURCE} (?:is|are|remains?) silent (?:on|about)\b|\bbeyond (?:what )?the {_SOURCE}\b",
    r"\b(?:answer|reason|information|detail|name|place|time)s?\b[^.;]* (?:is|are)(?: not|n[’']t) (?:in|part of) the "
    rf"{_SOURCE}\b",
    rf"\b(?:absent|missing) (?:from|in) the {_SOURCE}\b",
    # the age is not specified; no name is given; the speaker never says how old she is
    rf"\b(?:is|are|was|were|been|be){_NOT} {_ADVERBS}{_TOLD}\b",
    rf"\b{_PERSON} (?:does(?: not|n[’']t)|do(?: not|n[’']t)|did(?: not|n[’']t)|never) {_ADVERBS}(?:says?|tells?|"
    rf"reveals?|"
    rf"specif(?:y|ies)|discloses?|states?|indicates?|mentions?|explains?)(?: us)? {_WHAT}\b",
    # nothing can be said about it; it has not been established; that is left to the imagination; this is speculation
    rf"\b(?:nothing|little|not much) (?:\w+ )?(?:can|could|may) be {_KNOWN}\b",
    rf"\b(?:has|have|had)(?: not|n[’']t| never) been {_ADVERBS}(?:{_TOLD}|{_KNOWN}|supplied|listed|recorded|"
    rf"made clear)\b",
    r"\b(?:goes|went|go|remains?|stays?|left|is|are) (?:unmentioned|unnamed|unsaid|untold|unexplained|unidentified|"
    r"undisclosed|unresolved|undecided|inconclusive)\b",
    rf"\b(?:is|are|was|were)(?: not|n[’']t) {_ADVERBS}(?:made (?:clear|known|explicit)|conclusive|listed|"
    rf"supplied|told)\b",
    rf"\bnone of the (?:\w+ )?{_SOURCE} (?:can |could |would )?{_TELL}\b|\bneither\b[^.;]*\b{_SOURCE}\b[^.;]* "
    rf"{_TELL}\b",
    rf"\b(?:{_INFO}|answer)\b[^.;]* (?:is|are)(?: not|n[’']t) (?:\w+ )?(?:available|there|present|accessible|at "
    rf"hand)\b",
    rf"\b{_INFO}\b[^.;,]* (?:is|are) (?:missing|lacking|absent|unavailable|withheld)\b",
    rf"\btoo (?:short|brief|vague|generic|noisy|little|sparse|limited|unspecific|ambiguous) (?:\w+ )?to {_KNOW}\b",
    r"\b(?:pure|mere|only|just|matter of|be|is) (?:speculation|guesswork|conjecture)\b|\bno telling\b|\bleft "
    r"guessing\b",
    r"\bleft to (?:the|your|our) (?:\w+[’']?s? )?imagination\b|\b(?:beyond|outside) the scope\b",
    r"\b(?:i|we|one|you) (?:lack|would (?:have|need) to|would need|[’']d need|[’']d have to)\b",
    rf"\b(?:i|we|one|you) {_CANNOT} {_ADVERBS}(?:hear|see|find) (?:\w+ )?(?:anything|enough|that|any {_INFO})\b",
    r"\b(?:answer\w*|knowing|deciding|this|that|question) would (?:\w+ )?(?:require|need|take|demand)\b",
    rf"\b(?:assumes?|asks? (?:about|for)|concerns?) (?:something|things?|a \w+|what)\b[^.;]*(?: not|n[’']t) "
    rf"(?:in|heard in|part of) "
    rf"the {_SOURCE}\b",
    # sorry, I do not know; unknown; n/a; as an AI; not specified; cannot say
    r"^\W*(?:(?:i[’']?m |i am )?sorry\b|(?:i[’']?m|i am) (?:afraid|not sure|not certain)\b)",
    r"^\W*(?:unknown|unclear|uncertain|undetermined|unspecified|n/?a|none given|no idea|not sure)\W*$",
    rf"^\W*(?:{_CANNOT} {_ADVERBS}(?:be )?(?:{_KNOW}|{_KNOWN})|not {_ADVERBS}(?:{_TOLD}|possible|clear|enough|"
    rf"applicable"
    rf"|available)\b|(?:impossible|hard|difficult|unable) to {_ADVERBS}{_KNOW})",
    r"\bas an? (?:ai|(?:large )?language model|assistant)\b",
    r"\b(?:i|we) (?:am|are|[’']m|[’']re) (?:not able|unable) to\b",
)  # fmt: skip
NOT_AN_ANSWER = re.compile("|".join(f"(?:{shape})" for shape in SHAPES), re.IGNORECASE)
_SAYS = (
    r"(?:says|said|asks|asked|explains|explained|tells|told|admits|admitted|claims|claimed|announces|announced|"
    r"complains|reports|reported|states|mentions|adds|replies|replied|thinks|believes|argues|shouts|whispers|"
    r"sings|wonders|apologi[sz]es|describes|reads|wants|requests|insists|warns|confesses|laments|fears|pretends)"
)
_TOLD_BEFORE = re.compile(
    r"(?<!to )(?<!not )(?<!cannot )(?<!can )(?<!only )(?<!clip )(?<!audio )(?<!recording )(?<!text )(?<!transcript )"
    rf"(?<!question )\b{_SAYS}\b",
    re.IGNORECASE,
)
_TOLD_AFTER = re.compile(rf"^[^.;]*,[”\"']? (?:he|she|they|(?:the|a) \w+) {_SAYS}\b", re.IGNORECASE)
_HAS = re.compile(
    rf"\b(?:he|she|they|(?:the|a|an|his|her) (?!(?:{_SOURCE}|listener|reader|answer)\b)\w+) "
    r"(?:has|have|had|gets?|finds?|got|needs?|is given|is|are) $",
    re.IGNORECASE,
)


def is_not_an_answer(text: str) -> bool:
    """Return whether an answer says that there is none; an empty one does.

    Example:
        >>> is_not_an_answer("There is insufficient data."), is_not_an_answer("The man says that he is sorry.")
        (True, False)
    """
    if not text.strip():
        return True
    share = declines(text)
    return share > SURE or (share >= DOUBTFUL and has_shape(text))


def has_shape(text: str) -> bool:
    """Return whether a text has one of the shapes, and it is not a person in the clip who says so."""
    return any(not _of_somebody(text, found) for found in NOT_AN_ANSWER.finditer(text))


def _of_somebody(text: str, found: re.Match[str]) -> bool:
    """Return whether it is a person in the clip who says, wants or has what was found."""
    before = re.split(r"[.;!?] ", text[: found.start()])[-1]
    return bool(_TOLD_BEFORE.search(before) or _TOLD_AFTER.search(text[found.end() :]) or _HAS.search(before))
