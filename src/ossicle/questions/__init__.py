"""Questions and answers about audio, made from facts. Name of a source → `module:Class`."""

NAMES = {
    "asked": "asked:Asked",
}
