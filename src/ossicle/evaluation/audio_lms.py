"""Audio language models of transformers (Qwen2-Audio, Voxtral, Audio Flamingo 3, …) asked the same questions.

    (waveform, question) ──► 16 kHz WAV ──► processor.apply_chat_template ──► generate ──► answer

Nothing here knows a model: the processor's own chat template says where the sound goes, and the class is the one that
the folder's config names. Rows with and without a sound are run apart, because some templates
allow one sound for every text or none at all. What a model hears of a long clip is up to its front end.
Source: transformers, `ProcessorMixin.apply_chat_template`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile
import torch

from ossicle.audio.io import load_audio
from ossicle.errors import CheckpointError
from ossicle.inference.engine import choose_device, choose_dtype
from ossicle.types import Waveform


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a model answered."""

    text: str


class TransformersAudioLM:
    """A model of transformers that takes sounds in its chat.

    Args:
        model: The model.
        processor: Its processor.
        name: For the card.
    """

    def __init__(self, model: Any, processor: Any, *, name: str) -> None:
        self.model, self.processor, self.name = model.eval(), processor, name
        processor.tokenizer.padding_side = "left"

    @property
    def setting(self) -> str:
        """One line: device and dtype."""
        return f"device {self.model.device}, {str(self.model.dtype).removeprefix('torch.')}, transformers' own model"

    def answer(
        self, items: Sequence[tuple[Waveform | Path | None, str]], *, max_new_tokens: int, batch_size: int = 8
    ) -> list[Said]:
        """Return one reply per item, in order."""
        said: dict[int, Said] = {}
        with tempfile.TemporaryDirectory(prefix="ossicle-audio-") as folder:
            files: dict[int, Path] = {}
            for group in _groups(items, batch_size):
                turns = [_turn(*items[i], files, Path(folder)) for i in group]
                texts = self._generate(turns, max_new_tokens)
                said.update({i: Said(text=text.strip()) for i, text in zip(group, texts, strict=True)})
        return [said[i] for i in range(len(items))]

    @torch.inference_mode()
    def _generate(self, turns: list[dict[str, Any]], max_new_tokens: int) -> list[str]:
        inputs = self.processor.apply_chat_template(
            [[turn] for turn in turns],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            processor_kwargs={"text_kwargs": {"padding": True}, "return_tensors": "pt"},
        )
        inputs = {
            key: value.to(self.model.device, self.model.dtype if value.is_floating_point() else value.dtype)
            for key, value in inputs.items()
        }
        tokenizer = self.processor.tokenizer
        filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        out = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, pad_token_id=filler)
        return list(tokenizer.batch_decode(out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def _groups(items: Sequence[tuple[Any, str]], batch_size: int) -> list[list[int]]:
    """Return indices in batches, those without a sound apart from those with one."""
    groups = []
    for heard in (False, True):
        chosen = [i for i, (audio, _) in enumerate(items) if (audio is not None) == heard]
        groups += [chosen[start : start + batch_size] for start in range(0, len(chosen), batch_size)]
    return groups


def _turn(audio: Any, question: str, files: dict[int, Path], folder: Path) -> dict[str, Any]:
    """Return one user turn; a sound that several questions share is written once."""
    content: list[dict[str, str]] = []
    if audio is not None:
        if id(audio) not in files:
            wave = audio if isinstance(audio, Waveform) else load_audio(audio)
            files[id(audio)] = folder / f"{len(files)}.wav"
            soundfile.write(files[id(audio)], wave.samples, wave.sample_rate_hz)
        content.append({"type": "audio", "path": str(files[id(audio)])})
    return {"role": "user", "content": [*content, {"type": "text", "text": question}]}


def load_audio_lm(name: str, *, device: str = "auto", dtype: str = "auto") -> TransformersAudioLM:
    """Load a folder, or a model by its name on the hub.

    Raises:
        CheckpointError: transformers does not know it, or it takes no audio.
    """
    import transformers

    place = choose_device(device)
    try:
        config = transformers.AutoConfig.from_pretrained(name)
        if getattr(config, "audio_config", None) is None:
            raise ValueError("its config has no audio part")
        kind = getattr(transformers, (config.architectures or [""])[0], None)
        if kind is None:
            raise ValueError(f"its config names the class {config.architectures}, which transformers lacks")
        processor = transformers.AutoProcessor.from_pretrained(name)
        model = kind.from_pretrained(name, dtype=choose_dtype(dtype, place))
    except (OSError, ValueError, KeyError, ImportError, TypeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"model '{name}': transformers cannot load it as an audio language model ({first}); expected a folder or "
            "hub name of a model such as Qwen2-Audio, Voxtral or Audio Flamingo 3 with its processor"
        ) from None
    return TransformersAudioLM(model.to(place), processor, name=Path(name).name)
