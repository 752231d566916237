"""Where samples come from, and how they become batches. Kinds of sources by name; generators live beside readers."""

NAMES = {
    "messages": "readers:MessagesSource",
    "world_sounds": "world_sounds:WorldSoundsSource",
}
