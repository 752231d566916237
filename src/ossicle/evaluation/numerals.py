"""Numbers in an answer, as numerals or English words: values, ranges, digit strings, counts, and names of notes.

    "twenty-five"      → 25          "between 30 and 40"  → 35 (a range is its middle, only where ranges are asked for)
    "nine oh five"     → [9, 0, 5]   "a couple of sounds" → 2
    "C sharp 4", "C#4", "Db4"        → MIDI 61
Nothing is guessed: two different numbers where one is expected are no number at all. Source: our choice.
"""

from __future__ import annotations

import re

UNITS = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
]
UNITS += ["seventeen", "eighteen", "nineteen"]
TENS = {
    w: 10 * i
    for i, w in enumerate(["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"], start=2)
}
WORDS = {word: value for value, word in enumerate(UNITS)} | TENS
DIGIT_WORDS = {word: value for value, word in enumerate(UNITS[:10])} | {"oh": 0, "o": 0, "nought": 0, "naught": 0}
COUNT_WORDS = {
    "none": 0,
    "nothing": 0,
    "single": 1,
    "once": 1,
    "couple": 2,
    "pair": 2,
    "twice": 2,
    "both": 2,
    "dozen": 12,
}
PRONOUN_ONE = re.compile(
    r"\b(?:the|this|that|no|any|every|some|which|another|last|first|only other)[ -]one\b(?! (?:is|was) (?:one|1)\b)"
)
HOW_MANY = re.compile(r"\b\w+ (?:digits?|numbers?|numerals?)\b(?!\s+(?:\w+\s+)?\d)")
NOTES = {"c": 0, "d": 2, "e": 4, "f": 5, "g": 7, "a": 9, "b": 11}
_NOTE = re.compile(r"\b([a-g])\s*-?\s*(#|♯|sharp|b(?=\d|\s)|♭|flat)?\s*-?\s*(\d)\b", re.IGNORECASE)


def numbers_in(text: str) -> list[float]:
    """Return every number in reading order.

    Example:
        >>> numbers_in("Twenty-five, or 3.5?")
        [25.0, 3.5]
    """
    tokens = re.findall(r"\d+(?:[.,]\d+)?|[a-z]+", PRONOUN_ONE.sub(" ", text.lower()))
    values: list[float] = []
    previous = ""
    for token in tokens:
        if token[0].isdigit():
            values.append(float(token.replace(",", "." if len(token.split(",")[-1]) != 3 else "")))
        elif token in WORDS:
            if previous in TENS and 0 < WORDS[token] < 10:
                values[-1] += WORDS[token]
            else:
                values.append(float(WORDS[token]))
        elif token == "hundred" and values and previous in (*WORDS, "a"):
            values[-1] *= 100
        previous = token
    return values


def single_number(text: str) -> float | None:
    """Return the one number of an answer; none, or two different ones, give None."""
    found = set(numbers_in(text))
    return found.pop() if len(found) == 1 else None


def count_in(text: str) -> int | None:
    """Return the count an answer states, after its last colon where it has one ("rain, a dog: two sounds")."""
    stated = text.rsplit(":", 1)[-1] if ":" in text else text
    found = {int(value) for value in numbers_in(stated) if value == int(value)}
    words = set(re.findall(r"[a-z]+", PRONOUN_ONE.sub(" ", stated.lower())))
    found |= {value for word, value in COUNT_WORDS.items() if word in words}
    return found.pop() if len(found) == 1 else None


def digits_in(text: str) -> list[int] | None:
    """Return the spoken digits an answer lists; None where it has none or holds a number that is not digits.

    Example:
        >>> digits_in("I hear three digits: nine, oh, 5.")
        [9, 0, 5]
    """
    head, colon, tail = text.lower().rpartition(":")
    found = _listed(tail)
    return found if found or not colon else _listed(head)  # "nine oh five: three digits" lists them first


def _listed(text: str) -> list[int] | None:
    stated = PRONOUN_ONE.sub(" ", HOW_MANY.sub(_unless_digit_named, text))
    digits: list[int] = []
    repeat = 1
    for token in re.findall(r"\d+|[a-z]+", stated):
        if token in ("double", "triple"):
            repeat = 2 if token == "double" else 3
        elif token.isdigit():
            digits += [int(c) for c in token] * repeat
            repeat = 1
        elif token in DIGIT_WORDS:
            digits += [DIGIT_WORDS[token]] * repeat
            repeat = 1
        elif token in WORDS:
            return None
    return digits or None


def _unless_digit_named(match: re.Match) -> str:
    """Drop "three digits" (how many), keep "number", "the digit" (which one follows)."""
    return " " if match[0].split()[0] in WORDS or match[0].split()[0].isdigit() else match[0]


def range_in(text: str, *, low: float = 0.0, high: float = 120.0) -> float | None:
    """Return a quantity such as an age: one number, or the middle of one range; outside `low`..`high` it is None.

    Example:
        >>> range_in("between 30 and 40 years old"), range_in("in his 60s"), range_in("maybe 30, maybe 80")
        (35.0, 65.0, None)
    """
    plain = text.lower().replace("–", "-").replace("—", "-")
    spread = re.search(r"(\d+(?:\.\d+)?)\s*(?:-|to|and|or)\s*(\d+(?:\.\d+)?)", plain)
    decade = re.search(r"(?<![\d-])(?:(early|mid|late)[ -]*)?(\d0)'?s\b", plain)
    if decade:
        value: float | None = int(decade[2]) + {"early": 2.0, "late": 8.0}.get(decade[1] or "", 5.0)
    elif spread and float(spread[1]) <= float(spread[2]) and len(numbers_in(plain.replace("-", " "))) == 2:
        value = (float(spread[1]) + float(spread[2])) / 2
        near = re.search(r"\bor\b|\band\b", spread[0])
        if near and "between" not in plain and float(spread[2]) - float(spread[1]) > 15:
            value = None
    else:
        value = single_number(plain)
    return value if value is not None and low <= value <= high else None


def note_in(text: str) -> int | None:
    """Return the MIDI number of the one note an answer names, with its octave ("C sharp 4" is 61)."""
    found = set()
    for letter, accidental, octave in _NOTE.findall(text):
        shift = 1 if accidental.lower() in ("#", "♯", "sharp") else -1 if accidental else 0
        found.add(12 * (int(octave) + 1) + NOTES[letter.lower()] + shift)
    return found.pop() if len(found) == 1 else None
