"""FENSE: how near a caption's meaning is to that of its references, cut to a tenth where the caption is broken.

    s(c)     = mean over references r of cos(e(c), e(r))      e: mean over words of a sentence encoder's last layer
    FENSE(c) = s(c) · (1 − 0.9 · [p(c) > 0.9])                p: sigmoid of the last output of an error detector

Both models are read from disk and never fetched: the detector's file under `FENSE_DATA` (else where the public package
keeps it), the sentence encoder and the detector's own encoder in folders of their names there, or in the hub's cache.
Source: Zhou et al., arXiv 2110.04684, and the layout of its release V0.1.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ossicle.errors import DataError, OssicleError
from ossicle.evaluation.embedding import cosine, local_embed

ENCODER = "sentence-transformers/paraphrase-TinyBERT-L6-v2"
DETECTOR = "echecker_clotho_audiocaps_base.ckpt"
PENALTY = 0.9
THRESHOLD = 0.9
LONGEST = 64
"""Tokens of a caption that the detector reads."""
BATCH = 32


def measure(captions: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float | None, str | None]:
    """Return the mean FENSE of captions, or why there is none.

    Args:
        captions: One caption for each clip.
        references: The references of each clip, at least one.
    """
    try:
        return float(np.mean(fense(captions, references, models_folder()))), None
    except (OssicleError, OSError, ValueError, KeyError, RuntimeError) as error:
        return None, str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def models_folder() -> Path:
    """Return where FENSE's models lie: `FENSE_DATA`, else the folder that its public package fills."""
    if "FENSE_DATA" in os.environ:
        return Path(os.environ["FENSE_DATA"]).expanduser()
    import torch

    return Path(torch.hub.get_dir()) / "fense_data"


def fense(captions: Sequence[str], references: Sequence[Sequence[str]], folder: Path) -> np.ndarray:
    """Return the FENSE of each caption.

    Args:
        captions: One caption for each clip.
        references: The references of each clip, at least one.
        folder: Where the models lie.

    Raises:
        DataError: A model is not there.
    """
    detector = folder / DETECTOR
    if not detector.is_file():
        raise DataError(
            f"FENSE needs {detector} (its public release V0.1) and {ENCODER} (hf download); FENSE_DATA names a folder"
        )
    broken = error_probabilities(captions, detector) > THRESHOLD
    return similarities(captions, references, located(ENCODER, folder)) * (1 - PENALTY * broken)


def located(name: str, folder: Path) -> Path:
    """Return the folder of a model: of its name under `folder`, else in the hub's cache.

    Raises:
        DataError: Neither.
    """
    for place in (folder / name, folder / name.split("/")[-1]):
        if place.is_dir():
            return place
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, local_files_only=True))
    except (OSError, ValueError):
        raise DataError(f"FENSE needs {name}: put its folder under {folder}, or run: hf download {name}") from None


def similarities(captions: Sequence[str], references: Sequence[Sequence[str]], encoder: Path) -> np.ndarray:
    """Return, for each caption, its mean cosine with its references."""
    embed = local_embed(encoder)
    said = _in_batches(embed, captions)
    told = _in_batches(embed, [text for texts in references for text in texts])
    ends = np.cumsum([len(texts) for texts in references])
    rows = [told[end - len(texts) : end] for texts, end in zip(references, ends, strict=True)]
    return np.asarray([cosine(one[None], many).mean() for one, many in zip(said, rows, strict=True)])


def error_probabilities(captions: Sequence[str], detector: Path) -> np.ndarray:
    """Return how likely each caption is broken (a word repeated, a verb or conjunction missing, a tail added).

    Args:
        captions: Texts; punctuation and case are taken away first.
        detector: A file with `model_type` (the name of its text encoder), `num_classes` and `state_dict`.
    """
    import torch
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    stored = torch.load(detector, map_location="cpu", weights_only=True)
    place = located(stored["model_type"], detector.parent)
    tokenizer = AutoTokenizer.from_pretrained(place)
    encoder = AutoModel.from_config(AutoConfig.from_pretrained(place))
    judge = torch.nn.Linear(encoder.config.hidden_size, stored["num_classes"])
    weights = {name: value for name, value in stored["state_dict"].items() if not name.endswith("position_ids")}
    torch.nn.ModuleDict({"encoder": encoder, "clf": judge}).load_state_dict(weights)
    encoder.eval()

    @torch.inference_mode()
    def probabilities(texts: Sequence[str]) -> np.ndarray:
        inputs = tokenizer(list(texts), truncation=True, max_length=LONGEST, padding=True, return_tensors="pt")
        first = encoder(**inputs).last_hidden_state[:, 0]
        return judge(first)[:, -1].sigmoid().numpy()

    return _in_batches(probabilities, [re.sub(r"[^\w\s]", "", text).lower() for text in captions])


def _in_batches(call, texts: Sequence[str]) -> np.ndarray:
    """Return what a call gives for all texts, asked in batches."""
    return np.concatenate([call(texts[i : i + BATCH]) for i in range(0, len(texts), BATCH)])
