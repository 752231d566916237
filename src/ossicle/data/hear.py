"""Words and labels by models, for clips whose owner gives none.

    clip without a transcript ─► Whisper | nano's CTC words ─► transcript      (none where nobody speaks)
    clip without labels ─► an audio LLM: "What do you hear?" ─► "A dog, then rain." ─► dog, rain
                        └► an audio classifier: its classes of at least a half, or the likeliest

What a model said is marked (`transcript_by`, `labels_by`), and never stands where an owner said something. A `Hearer`
is names until it hears: each process that it is sent to opens its models once. Source: LTU-AS (arXiv 2309.14405) for
transcripts by Whisper beside labels; the rest is our choice.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.data.clip import Clip
from ossicle.errors import CheckpointError
from ossicle.types import SAMPLE_RATE_HZ, Waveform

QUESTION = "What do you hear?"
LIKELY = 0.5
BETWEEN = re.compile(r"\s*(?:,? then |,? and |, |;|\.)\s*")
ARTICLE = re.compile(r"^(?:a|an|the|some|there is|there are|i hear) ", re.IGNORECASE)
NO_LABEL = re.compile(r"\b(?:saying|speaking|nothing|silence|cannot|not)\b", re.IGNORECASE)
"""Speech belongs into the transcript, and what is not heard is no label."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hearer:
    """Which models hear.

    Attributes:
        transcribe: `ctc`, or the folder or hub id of a Whisper; None = nobody.
        tag: `nano`, the folder of an audio LLM, or the folder or hub id of an audio classifier; None = nobody.
    """

    transcribe: str | None = None
    tag: str | None = None

    def __call__(self, clip: Clip, wave: Waveform) -> dict[str, Any]:
        """Return the fields of a clip that models fill in.

        Raises:
            CheckpointError: A model cannot be read.
        """
        found: dict[str, Any] = {}
        if self.transcribe and clip.transcript is None and (words := _transcriber(self.transcribe)(wave).strip()):
            found |= {"transcript": words, "transcript_by": self.transcribe}
        if self.tag and not clip.labels and (labels := _tagger(self.tag)(wave)):
            found |= {"labels": labels, "labels_by": self.tag}
        return found


def with_heard(clip: Clip, heard: dict[str, Any]) -> Clip:
    """Return the clip with what models heard in it, and which ones."""
    if not heard:
        return clip
    marks = {name: value for name, value in heard.items() if name.endswith("_by")}
    return replace(
        clip,
        transcript=heard.get("transcript", clip.transcript),
        labels=tuple(heard.get("labels", clip.labels)),
        extra={**clip.extra, **marks},
    )


@lru_cache(maxsize=2)
def _transcriber(name: str) -> Any:
    from ossicle.inference.transcribe import open_transcriber

    return open_transcriber(name)


@lru_cache(maxsize=2)
def _tagger(name: str) -> Any:
    from ossicle.inference.engine import BUNDLED
    from ossicle.model import AudioLMConfig

    place = Path(name) / "config.json"
    kind = json.loads(place.read_text(encoding="utf-8")).get("model_type") if place.is_file() else None
    answers = name in BUNDLED or kind == AudioLMConfig.model_type
    return AnsweringTagger(name) if answers else ClassifyingTagger(name)


class AnsweringTagger:
    """An audio LLM that is asked what it hears.

    Args:
        name: A bundled model, or a folder.
    """

    def __init__(self, name: str) -> None:
        from ossicle.inference.engine import load

        self.engine = load(name, device="cpu")

    def __call__(self, wave: Waveform) -> list[str]:
        """Return what it names."""
        return labels_in(self.engine.answer([(wave, QUESTION)])[0].text)


def labels_in(text: str) -> list[str]:
    """Return the sounds that an answer names, each once.

    Example:
        >>> labels_in("A siren, then a dog and a voice saying nine, then a dog.")
        ['siren', 'dog']
    """
    names = [ARTICLE.sub("", part.strip()) for part in BETWEEN.split(text)]
    return list(dict.fromkeys(name.lower() for name in names if name and not NO_LABEL.search(name)))


class ClassifyingTagger:
    """An audio classifier of transformers.

    Args:
        name: Folder or hub id.

    Raises:
        CheckpointError: It cannot be read.
    """

    def __init__(self, name: str) -> None:
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        try:
            self.model: Any = AutoModelForAudioClassification.from_pretrained(name, use_safetensors=True).eval()
            self.extractor: Any = AutoFeatureExtractor.from_pretrained(name)
        except (OSError, ValueError) as error:
            why = str(error).splitlines()[0]
            raise CheckpointError(f"tagger '{name}' is neither an audio LLM nor an audio classifier: {why}") from None
        self.several = self.model.config.problem_type == "multi_label_classification"

    def __call__(self, wave: Waveform) -> list[str]:
        """Return its likely classes, the likeliest first."""
        import torch

        from ossicle.processor import as_samples

        samples = np.asarray(as_samples(wave, wave.sample_rate_hz), np.float32)
        inputs = self.extractor(samples, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        with torch.inference_mode():
            scores = self.model(**inputs).logits[0]
        shares = scores.sigmoid() if self.several else scores.softmax(-1)
        order = shares.argsort(descending=True).tolist()
        chosen = [index for index in order if self.several and float(shares[index]) >= LIKELY] or order[:1]
        return [str(self.model.config.id2label[index]) for index in chosen]
