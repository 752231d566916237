"""Labels in plain words: how a sound is named in an answer, and which family an instrument belongs to.

One sound has one name, whichever set it comes from, so that a recorded fire and a synthesised one get the same answer.
"""

from __future__ import annotations

from functools import cache

SPOKEN = {
    "baby cry": "a crying baby",
    "chainsaw": "a chainsaw",
    "clock tick": "a ticking clock",
    "dog bark": "a barking dog",
    "fire crackling": "a crackling fire",
    "helicopter": "a helicopter",
    "person sneeze": "a person sneezing",
    "rain": "rain",
    "rooster": "a rooster",
    "sea waves": "sea waves",
    "balloon": "a balloon",
    "bell or chime": "a bell",
    "bird": "a bird",
    "camera shutter": "a camera shutter",
    "chain": "a chain",
    "coins or keys": "coins or keys",
    "crowd or cheering": "a crowd",
    "door": "a door",
    "drill or power tool": "a power tool",
    "drum": "a drum",
    "eating or mouth sounds": "mouth sounds",
    "explosion": "an explosion",
    "flute or whistle": "a flute or whistle",
    "footsteps": "footsteps",
    "glass": "glass",
    "gong or cymbal": "a gong or cymbal",
    "guitar": "a guitar",
    "household appliance": "a household appliance",
    "metal impact": "a metal impact",
    "music box": "a music box",
    "paper or plastic crumpling": "crumpling paper",
    "piano": "a piano",
    "ping pong": "ping pong",
    "plucked lamellophone or sitar": "a sitar",
    "road vehicle": "a road vehicle",
    "scream or yell": "a scream",
    "shaker or rattle": "a shaker",
    "singing voice": "a singing voice",
    "squeak": "a squeak",
    "synthesizer": "a synthesizer",
    "tape or tearing": "tearing tape",
    "theremin": "a theremin",
    "train or subway": "a train",
    "trash can or tin can": "a tin can",
    "violin or cello": "a violin",
    "water": "water",
    "wood": "wood",
}
"""Names of recorded sounds; a parametric source brings its own."""

FAMILIES = {
    "a keyboard instrument": ("piano", "organ"),
    "a string instrument": ("guitar", "plucked string", "violin or cello", "plucked lamellophone or sitar"),
    "a wind instrument": ("flute or whistle", "flute", "horn", "whistle"),
    "a percussion instrument": (
        *("drum", "gong or cymbal", "shaker or rattle", "bass drum", "snare drum", "hi-hat", "bell or chime", "bell"),
    ),
    "an electronic instrument": ("synthesizer", "theremin"),
}


@cache
def spoken(label: str) -> str:
    """Return a label as it is said in a sentence.

    Example:
        >>> spoken("dog bark")
        'a barking dog'
    """
    from ossicle.world.sounds import SOURCES

    if label in SPOKEN:
        return SPOKEN[label]
    return SOURCES[label].spoken if label in SOURCES else label


@cache
def family(label: str) -> str | None:
    """Return the instrument family of a label, None for what is no instrument."""
    return next((name for name, labels in FAMILIES.items() if label in labels), None)


def sentence(text: str) -> str:
    """Return a text with a capital letter and a full stop.

    Example:
        >>> sentence("a barking dog")
        'A barking dog.'
    """
    return text[:1].upper() + text[1:] + "."


def join(names: list[str]) -> str:
    """Return names in the order they are heard.

    Example:
        >>> join(["rain", "a siren", "a bell"])
        'rain, then a siren, then a bell'
    """
    return ", then ".join(names)
