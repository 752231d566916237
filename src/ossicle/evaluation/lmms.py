"""Lets lmms-eval run ossicle's models: `--model ossicle --model_args pretrained=nano`.

    lmms-eval ──entry point `lmms_eval.models`──► manifest() ──► OssicleLMMS.generate_until(requests) ──► Engine.answer

A request's arguments are (context, generation settings, doc → media, document, task, split); of the media, what has an
`array` and a `sampling_rate` (or a path) is the sound. One sound a question; more are refused, none is asked blind.
Source: lmms-eval 0.7, `lmms_eval.api.model.lmms` and `lmms_eval.models.registry_v2`.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ossicle.audio.io import load_audio
from ossicle.errors import DataError, UnsupportedError
from ossicle.evaluation.models import open_model
from ossicle.types import Waveform

MODEL_ID = "ossicle"
LONGEST = 128


def _base() -> type:
    """Return lmms-eval's model class; without lmms-eval a plain object, so that this file can always be read."""
    try:
        return importlib.import_module("lmms_eval.api.model").lmms
    except ModuleNotFoundError:
        return object


def manifest() -> Any:
    """Return what lmms-eval's registry asks of an entry point."""
    registry = importlib.import_module("lmms_eval.models.registry_v2")
    return registry.ModelManifest(model_id=MODEL_ID, simple_class_path=f"{__name__}.OssicleLMMS")


class OssicleLMMS(_base()):  # type: ignore[misc]
    """An ossicle model (or anything `ossicle eval` can ask) as lmms-eval sees models.

    Args:
        pretrained: As for `ossicle eval`: a folder, `nano`, an address.
        batch_size: Questions at once.
        device: Where to compute.
        dtype: Number format of the weights.
    """

    is_simple = True

    def __init__(
        self, pretrained: str = "nano", batch_size: int | str = 8, device: str = "auto", dtype: str = "auto"
    ) -> None:
        super().__init__()
        self.answerer, self.identity = open_model(pretrained, device=device, dtype=dtype)
        self.batch_size = int(batch_size)
        self._rank, self._world_size = 0, 1
        self.task_dict: dict[str, Any] = getattr(self, "task_dict", {})

    @property
    def rank(self) -> int:
        """Number of this process."""
        return self._rank

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self._world_size

    def generate_until(self, requests: list[Any]) -> list[str]:
        """Return the answer to every request, in order."""
        groups: dict[int, list[int]] = defaultdict(list)
        items = []
        for index, request in enumerate(requests):
            context, settings, media, document, task, split = request.args
            sounds = [_sound(part) for part in media(self.task_dict[task][split][document]) or []]
            if len(sounds) > 1:
                raise DataError(f"task '{task}', document {document}: {len(sounds)} sounds; expected one a question")
            items.append((sounds[0] if sounds else None, str(context)))
            groups[int(settings.get("max_new_tokens", LONGEST))].append(index)
        answers = [""] * len(requests)
        for longest, indices in groups.items():
            replies = self.answerer.answer(
                [items[i] for i in indices], max_new_tokens=longest, batch_size=self.batch_size
            )
            for index, reply in zip(indices, replies, strict=True):
                answers[index] = _until(reply.text, requests[index].args[1].get("until"))
        return answers

    def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
        """Refuse: ossicle answers freely, so that its answers can be read."""
        raise UnsupportedError("ossicle models answer by generation; choose a generate_until task")

    def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
        """Refuse: only single questions are asked."""
        raise UnsupportedError("ossicle models answer single questions here; choose a generate_until task")


def _sound(part: Any) -> Waveform:
    """Return one piece of media as sound."""
    if isinstance(part, dict) and "array" in part:
        samples = np.asarray(part["array"], dtype=np.float32)
        mono = samples if samples.ndim == 1 else samples.mean(int(samples.shape[0] > samples.shape[1]))
        return load_audio((mono, int(part["sampling_rate"])))
    if isinstance(part, dict) and part.get("path"):
        return load_audio(Path(part["path"]))
    if isinstance(part, (str, Path)):
        return load_audio(Path(part))
    raise UnsupportedError(f"media of type {type(part).__name__}: ossicle hears sounds only; choose an audio task")


def _until(text: str, ends: Any) -> str:
    """Return a text up to the first of some ends."""
    for end in [ends] if isinstance(ends, str) else ends or []:
        if end:
            text = text.split(end)[0]
    return text
