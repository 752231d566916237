"""The command line: one file per verb, no logic of its own.

    ossicle VERB …  ──►  app.run(argv)  ──►  cli/VERB.py, imported only when it is the verb that was typed

A verb's module holds `app = typer.Typer(...)`: with one command it is the verb itself, with several they are its
sub-commands. Results go through `output.emit`, everything else to stderr.
"""

from __future__ import annotations

VERBS = {
    "ask": "Ask a question about recordings; one answer per clip.",
    "chat": "Talk about recordings in the terminal, streamed.",
    "demo": "Answers beside truth, a minute of training, one picture.",
    "adapt": "Your recordings become a model: a folder in, a model out.",
    "train": "Run a recipe's whole curriculum.",
    "study": "Run a recipe over axes of settings, same data and budget.",
    "inspect": "Show parameters, stages, streams and needs, without weights.",
    "eval": "Score a model on a suite, beside its controls.",
    "compare": "Compare two result cards, paired.",
    "serve": "Serve a model: OpenAI-compatible endpoint and page.",
    "data": "Clips, questions, mixes, shards and caches: the data engine.",
    "bench": "Measure side by side in one run.",
    "world": "Render the sound world: sources, scenes, exact truth.",
    "export": "Write a model as a plain folder, LoRA merged.",
    "list": "List parts, recipes, tasks or models.",
}
"""Verb to its one-line help. Static, so that `ossicle --help` imports no verb."""
