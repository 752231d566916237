"""Models for tests: one that hears everything right, one that hears nothing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


@dataclass
class Said:
    text: str


def phrase(truth) -> str:
    """Say a truth as a model would."""
    if isinstance(truth, bool):
        return "Yes, there is." if truth else "No, there is not."
    if isinstance(truth, list) and truth and isinstance(truth[0], int):
        return " ".join(DIGITS[d] for d in truth)
    if isinstance(truth, list):
        return f"I hear {', then '.join(truth)}."
    return f"It is {DIGITS[truth]}." if isinstance(truth, int) and truth < 10 else f"It is {truth}."


class Oracle:
    """Hears everything right: it knows the truth of every sound by its samples."""

    def __init__(self, built: dict) -> None:
        self.truths: dict[bytes, dict[str, object]] = defaultdict(dict)
        self.rows: dict[str, set[str]] = defaultdict(set)
        self.asked = 0
        for task in built.values():
            for item in task.items:
                self.truths[task.sounds[item.audio].load().samples.tobytes()][item.row] = item.truth
                self.rows[item.question].add(item.row)

    def answer(self, items, *, max_new_tokens, batch_size):
        self.asked += len(items)
        return [Said(self._say(wave, question)) for wave, question in items]

    def _say(self, wave, question):
        known = self.truths.get(wave.samples.tobytes(), {}) if wave is not None else {}
        row = next((row for row in self.rows.get(question, ()) if row in known), None)
        return "I can only tell sounds, digits and voices, not that." if row is None else phrase(known[row])


class Deaf:
    """Answers by habit, whatever the sound is."""

    def answer(self, items, *, max_new_tokens, batch_size):
        return [Said("Yes, I hear a dog: one sound, a man, happiness, very loud.") for _ in items]
