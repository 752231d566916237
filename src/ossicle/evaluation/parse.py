"""What an answer says, without guessing: a label, a level, yes or no, an order, a count, digits, a choice, a text.

    answer ──► words ──► longest alias first, whole words, negated mentions dropped ──► exactly one label, or None

An answer that names two labels where one is asked for says nothing; it is unparsed, which is counted and scored wrong.
No embedding, no model and no nearest match decides here. Source: our choice.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import yaml

from ossicle.errors import ConfigError
from ossicle.evaluation import numerals
from ossicle.evaluation.normalise import basic

Vocabulary = Mapping[str, Sequence[str]]

NEGATION = re.compile(
    r"\b(?:no|not|never|without|neither|nor|isn't|wasn't|aren't|doesn't|don't|didn't|cannot|can't|rather than|"
    r"instead of|other than|unlike|absence of)(?:\s+\w+){0,3}\s*$"
)
CLAUSE = re.compile(r"[,;:.!?]|\bbut\b")
NOTHING = r"(?:no|none|neither|zero|nothing(?! (?:but|except|other|else than))|(?:hardly|barely|scarcely) an?y?)\b"
DENIES = re.compile(
    rf"\b(?:there (?:is|are) (?:not\b|{NOTHING})|there isn't|there aren't|hear {NOTHING}|"
    r"(?:do not|don't|cannot|can't)(?: \w+)? (?:hear|think|believe)|i doubt|unlikely|is absent|(?:lack|absence) of|"
    r"(?:is not|isn't|not) (?:there|present|heard|audible|the case))\b"
)
UNSURE = re.compile(
    r"\b(?:(?:if|whether|not (?:sure|certain|clear)(?: that)?|unsure|uncertain|unclear) (?:there|i)|"
    r"nothing (?:but|except|other|else than))\b"
)
AFFIRMS = re.compile(r"\b(?:there (?:is|are)|i (?:can )?hear|is (?:present|heard|audible|there))\b")
REFUSAL = re.compile(
    r"\b(?:cannot|can't|can not|could not|couldn't|unable|not able|don't know|do not know|outside|beyond|not trained|"
    r"i (?:can )?only|not something i|sorry)\b",
    re.IGNORECASE,
)
WORD = r" [ai](?:[-']| (?!(?:because|since|as)\b))\w"
"""An article or a pronoun where a letter might stand: "the answer is a siren"."""


def plain(text: str) -> str:
    """Return a text in lower case, quotes and repeated blanks removed, curly apostrophes made straight."""
    return re.sub(r"\s+", " ", re.sub(r"[\"“”*_`]", "", text.replace("’", "'").lower())).strip()


plain_label = lru_cache(maxsize=4096)(plain)
"""`plain` of a label or alias, which every answer of a task is compared with."""


@cache
def vocabularies() -> dict[str, dict[str, list[str]]]:
    """Return the label lists that come with ossicle."""
    return yaml.safe_load(Path(__file__).with_name("vocabulary.yaml").read_text(encoding="utf-8"))


def vocabulary_named(name: str) -> dict[str, list[str]]:
    """Return one label list.

    Raises:
        ConfigError: There is none of that name.
    """
    if name not in vocabularies():
        raise ConfigError(f"no vocabulary '{name}'; known: {', '.join(sorted(vocabularies()))}")
    return vocabularies()[name]


@cache
def _pattern(aliases: tuple[str, ...]) -> re.Pattern:
    """Return a pattern that finds any alias as whole words, the longest one first, plural allowed."""
    ordered = sorted(aliases, key=len, reverse=True)
    forms = "|".join(re.escape(alias).replace(r"\ ", r"[ -]+").replace(r"\-", r"[ -]") for alias in ordered)
    return re.compile(rf"(?<![\w'])(?:{forms})(?:'s|e?s)?(?![\w'])")


def mentions(text: str, vocabulary: Vocabulary) -> list[str]:
    """Return the labels an answer asserts, in order, repeats kept, negated mentions left out.

    Example:
        >>> mentions("Not a dog, but rain and then a rooster.", {"dog": ["barking"], "rain": [], "rooster": []})
        ['rain', 'rooster']
    """
    owner = {plain_label(alias): label for label, aliases in vocabulary.items() for alias in (label, *aliases)}
    words = plain(text)
    found = []
    for match in _pattern(tuple(owner)).finditer(words):
        before = CLAUSE.split(words[: match.start()])[-1]
        if not NEGATION.search(before):
            found.append(_owner_of(match[0], owner))
    return found


def _owner_of(form: str, owner: Mapping[str, str]) -> str:
    squeezed = {re.sub(r"[ -]+", " ", alias): label for alias, label in owner.items()}
    form = re.sub(r"[ -]+", " ", form)
    return next(
        squeezed[f]
        for f in (form, form.removesuffix("'s"), form.removesuffix("s"), form.removesuffix("es"))
        if f in squeezed
    )


def label(text: str, vocabulary: Vocabulary) -> str | None:
    """Return the one label an answer names; none, or two different ones, give None."""
    found = set(mentions(text, vocabulary))
    return found.pop() if len(found) == 1 else None


def order(text: str, vocabulary: Vocabulary) -> list[str] | None:
    """Return the labels in the order of time that an answer states, or None where it names none.

    "A before B", "A, then B", "first A and last B" are read as they stand; "B after A" and "B, preceded by A" are
    turned round. A summary behind a colon ("rain, then a dog: two sounds") is no part of the list.
    """
    words = plain(text)
    found = mentions(words, vocabulary)
    backward = re.search(r"\b(?:after|preceded by|following)\b", words)
    if len(found) == 2 and backward and not re.search(r"\bafter (?:that|which|it|this)\b", words):
        first = mentions(words[: backward.start()], vocabulary)
        if len(first) == 1:
            found = found[::-1]
    return found or None


def one_of_order(text: str, vocabulary: Vocabulary, position: int) -> str | None:
    """Return the label an answer puts first (0) or last (-1): its only label, or one told by an explicit order."""
    single = label(text, vocabulary)
    if single is not None:
        return single
    words = plain(text)
    found = order(words, vocabulary)
    told = re.search(r"\b(?:then|before|after|followed by|preceded by|and finally)\b", words)
    return found[position] if found and told and not re.search(r"\bor\b", words) else None


def yes_no(text: str, vocabulary: Vocabulary | None = None) -> bool | None:
    """Return whether an answer affirms (True) or denies (False); an answer that does neither gives None."""
    words = plain(text)
    judged = re.search(r": (yes|no)\.?$", words)  # what was heard, then the judgement behind a colon
    if judged:
        return judged[1] == "yes"
    opening = re.match(
        r"(?:well,? |oh,? |answer: ?|the answer is )?(yes|yeah|yep|correct|true|no|nope|false|incorrect)\b", words
    )
    if opening:
        return opening[1] in ("yes", "yeah", "yep", "correct", "true")
    if DENIES.search(words):
        return False
    return True if AFFIRMS.search(words) and "or" not in words.split() and not UNSURE.search(words) else None


def choice(text: str, options: Sequence[str]) -> str | None:
    """Return the option an answer picks, by its letter or by its text; two different ones give None.

    Example:
        >>> choice("The answer is (B).", ["cat", "dog"]), choice("It's a dog!", ["cat", "dog"])
        ('dog', 'dog')
    """
    letters = {chr(ord("a") + i): option for i, option in enumerate(options)}
    words = plain(text)
    told = re.match(
        rf"(?:the )?(?:correct )?(?:answer|option|choice)?(?: is)?:? ?\(?([{''.join(letters)}])(?:[).:,]|$)", words
    )
    named = re.findall(
        rf"\(([{''.join(letters)}])\)|(?:option|choice|answer is(?!{WORD})) ([{''.join(letters)}])\b", words
    )
    picked = {letters[a or b] for a, b in named} | ({letters[told[1]]} if told else set())
    if not picked:
        exact = [option for option in options if plain(option).strip(".") == words.strip(".")]
        picked = set(exact) or set(mentions(words, {option: [] for option in options}))
    return picked.pop() if len(picked) == 1 else None


def refuses(text: str) -> bool:
    """Return whether an answer says that it cannot answer."""
    return bool(REFUSAL.search(plain(text)))


PARSERS: dict[str, Callable[[str, Any], Any]] = {
    "label": label,
    "labels": lambda text, vocabulary: mentions(text, vocabulary) or None,
    "order": order,
    "first": lambda text, vocabulary: one_of_order(text, vocabulary, 0),
    "last": lambda text, vocabulary: one_of_order(text, vocabulary, -1),
    "yes_no": yes_no,
    "choice": choice,
    "number": lambda text, _: numerals.single_number(text),
    "count": lambda text, _: numerals.count_in(text),
    "digit": lambda text, _: (
        (numerals.digits_in(text) or [None])[0] if len(numerals.digits_in(text) or []) == 1 else None
    ),
    "digits": lambda text, _: numerals.digits_in(text),
    "quantity": lambda text, _: numerals.range_in(text),
    "note": lambda text, _: numerals.note_in(text),
    "text": lambda text, _: text,
    "exact": lambda text, _: basic(text) or None,
}
"""Parser name → (answer, vocabulary or options) → what it says, or None."""


def parse(kind: str, text: str, vocabulary: Any = None) -> Any:
    """Return what an answer says by one parser, None when it says nothing that the parser knows.

    Raises:
        ConfigError: No parser of that name.
    """
    if kind not in PARSERS:
        raise ConfigError(f"no parser '{kind}'; known: {', '.join(sorted(PARSERS))}")
    return PARSERS[kind](text, vocabulary)
