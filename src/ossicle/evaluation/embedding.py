"""Text embeddings, by which the papers' scorers map a free answer to the nearest class name.

    answer ──embed──► vector ──cosine with every class──► argmax (lowest index on a tie)

Whatever embeds is named in the card: scores under two embedders are not comparable. The papers used OpenAI's
text-embedding-ada-002; offline, any sentence encoder in a folder, or word hashing (weak: spelling only).
"""

from __future__ import annotations

import hashlib
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.errors import ConfigError, DataError

Embed = Callable[[Sequence[str]], np.ndarray]
"""Texts → (n, d) vectors."""

HASH_DIM = 256
TIMEOUT_S = 60.0


def cosine(texts: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return (texts, classes) cosine similarities; an all-zero vector is alike to nothing."""
    norms = np.linalg.norm(texts, axis=1)[:, None] * np.linalg.norm(classes, axis=1)[None]
    return np.divide(texts @ classes.T, norms, out=np.zeros(norms.shape), where=norms > 0)


def nearest(scores: np.ndarray, *, tolerance: float = 1e-9) -> int:
    """Return the index of the largest score, the lowest one where several are equal up to rounding."""
    return int(np.flatnonzero(scores >= scores.max() - tolerance)[0])


def hash_embed(texts: Sequence[str]) -> np.ndarray:
    """Return (n, 256) signed counts of words and letter trigrams, put in places by their hash."""
    vectors = np.zeros((len(texts), HASH_DIM))
    for row, text in enumerate(texts):
        for word in re.findall(r"\w+", text.lower()):
            framed = f"^{word}$"
            for part in (word, *(framed[i : i + 3] for i in range(len(framed) - 2))):
                number = int.from_bytes(hashlib.sha256(part.encode()).digest()[:4], "big")
                vectors[row, number % HASH_DIM] += 1.0 if number >> 31 else -1.0
    return vectors


def local_embed(folder: Path) -> Embed:
    """Return an embedder that averages the last layer of a transformers text encoder in a folder.

    Raises:
        ConfigError: The folder holds no such model.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    try:
        tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--embedder {folder}: no text encoder there ({error}); expected a transformers folder"
        ) from None

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> np.ndarray:
        inputs = tokenizer([text or " " for text in texts], return_tensors="pt", padding=True, truncation=True)
        states = model(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        return ((states * mask).sum(1) / mask.sum(1)).float().numpy()

    return embed


def endpoint_embed(url: str, model: str, key: str = "") -> Embed:
    """Return an embedder that asks an OpenAI-compatible `/embeddings` endpoint.

    Args:
        url: Base address, `https://host/v1`.
        model: Name of the embedding model.
        key: Sent as bearer token where given.

    Raises:
        DataError: (when called) the endpoint does not answer, or not with embeddings.
    """

    def embed(texts: Sequence[str]) -> np.ndarray:
        body = json.dumps({"model": model, "input": [text or " " for text in texts]}).encode()
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        request = urllib.request.Request(f"{url.rstrip('/')}/embeddings", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
                rows: list[dict[str, Any]] = json.loads(reply.read())["data"]
        except (urllib.error.URLError, TimeoutError, KeyError, json.JSONDecodeError) as error:
            raise DataError(f"embedding endpoint {url}: {error}; expected an OpenAI-compatible /embeddings") from None
        return np.asarray([row["embedding"] for row in sorted(rows, key=lambda row: row.get("index", 0))])

    return embed


def embedder_named(spec: str, *, key: str = "") -> Embed:
    """Return the embedder of a command line word: `hash`, a folder, or `URL#model`.

    Raises:
        ConfigError: None of the three.
    """
    if spec == "hash":
        return hash_embed
    if spec.startswith(("http://", "https://")):
        url, _, model = spec.partition("#")
        return endpoint_embed(url, model or "text-embedding-ada-002", key)
    if Path(spec).is_dir():
        return local_embed(Path(spec))
    raise ConfigError(f"--embedder {spec}: expected 'hash', a folder with a text encoder, or https://host/v1#model")
