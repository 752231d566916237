"""What is true of one audio: the facts from which questions are asked and answered."""

from __future__ import annotations

from dataclasses import dataclass

from ossicle.data.material import DIGITS, Sound
from ossicle.questions.names import spoken


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """A sound in its place.

    Attributes:
        sound: What it is (its samples are not looked at).
        start_s: Onset in seconds.
        level_db: RMS over its span, in dB of full scale.
        pitch_hz: F0 as heard, or None.
        words_per_minute: Speaking rate as heard, or None.
    """

    sound: Sound
    start_s: float
    level_db: float
    pitch_hz: float | None = None
    words_per_minute: float | None = None

    @property
    def speech(self) -> bool:
        """Somebody speaks."""
        return self.sound.words != ()

    @property
    def name(self) -> str:
        """What it is called in a list of what is heard."""
        if not self.speech:
            return spoken(str(self.sound.label))
        if self.sound.words:
            return f"a voice saying {' '.join(self.sound.words)}"
        return {"female": "a woman speaking", "male": "a man speaking", None: "a voice speaking"}[self.sound.gender]


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """Everything true of one audio.

    Attributes:
        events: In the order they are heard.
        background: A sound under all of them, or None.
        duration_s: Length of the audio.
    """

    events: tuple[Event, ...]
    duration_s: float
    background: Sound | None = None

    def sounds(self) -> list[Event]:
        """Return the events that are not speech."""
        return [event for event in self.events if not event.speech]

    def spoken(self) -> list[Event]:
        """Return the events that are speech."""
        return [event for event in self.events if event.speech]

    def names(self) -> list[str]:
        """Return what is heard in order; one voice's words in a row are said once, together."""
        names: list[str] = []
        digits: list[str] = []
        for event in self.events:
            if event.sound.words and set(event.sound.words) <= set(DIGITS):
                if digits:
                    names.pop()
                digits += event.sound.words
                names.append(f"a voice saying {' '.join(digits)}")
            else:
                digits = []
                names.append(event.name)
        return names

    def present(self) -> set[str]:
        """Return the names of all sounds that are there, and `speech` when somebody speaks."""
        there = {spoken(str(event.sound.label)) for event in self.sounds()}
        there |= {"speech"} if self.spoken() else set()
        return there | ({spoken(str(self.background.label))} if self.background else set())
