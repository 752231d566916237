"""Load a model and ask it: the one way from a recording and a question to an answer.

    load(name or folder) ──► Engine ──answer──► prompt ──► AudioLM.generate ──► Answer

Questions about one clip share its encoding; questions are answered in batches, longest audio last.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList, TextIteratorStreamer

from ossicle.audio.io import load_audio
from ossicle.chat import spoken
from ossicle.errors import CheckpointError, ConfigError
from ossicle.inference.drawing import DRAWINGS, drawn
from ossicle.inference.transcribe import Hearing
from ossicle.model import AudioLM
from ossicle.processor import AudioProcessor
from ossicle.types import Stretches, Waveform

logger = logging.getLogger(__name__)

DEFAULT_QUESTION = "What do you hear?"
BATCH_SECONDS = 600.0
"""Padded audio that is encoded in one batch; an hour-long clip is a batch of its own."""
BUNDLED = ("nano",)
"""Models that ship in the wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the model said.

    Attributes:
        text: The answer.
        tokens: Number of tokens generated.
        audio_tokens: Audio tokens the decoder could hear.
        transcript: What the decoder could read of the speech.
        stretches: The (start, end) seconds of a long recording that were heard; None = all of it (see `ossicle.focus`).
        timing_s: Seconds spent: `encode`, `prefill`, `decode` (shared by all answers of one batch).
    """

    text: str
    tokens: int
    audio_tokens: int = 0
    transcript: str = ""
    stretches: Stretches | None = None
    timing_s: dict[str, float] = field(default_factory=dict)


class Engine:
    """A model, its processor, and where they run."""

    def __init__(self, model: AudioLM, processor: AudioProcessor, *, name: str = "model", load_s: float = 0.0) -> None:
        self.model = model.eval()
        self.processor = processor
        self.name = name
        self.load_s = load_s
        self.hearing = Hearing()
        self.drawing, self.seed = DRAWINGS["greedy"], 0

    @property
    def setting(self) -> str:
        """One line: device, dtype and attention backend."""
        attention = self.model.language_model.config._attn_implementation
        return f"device {self.model.device}, {str(self.model.dtype).removeprefix('torch.')}, attention {attention}"

    @property
    def ends(self) -> list[int]:
        """Tokens that end an answer: those of the model's own settings, a turn's end say, and the tokenizer's."""
        given = self.model.generation_config.eos_token_id
        own = given if isinstance(given, list) else [given]
        return sorted({token for token in (*own, self.processor.tokenizer.eos_token_id) if token is not None})

    def prompt(self, question: str, *, clips: int = 1, transcript: str = "") -> list[dict[str, Any]]:
        """Return the conversation of one question about some clips, with what is said in them where it is known."""
        turn = {"role": "user", "content": "<audio>" * clips + question}
        return [spoken({**turn, "transcript": transcript}, self.processor.chat_template) if transcript else turn]

    @torch.inference_mode()
    def answer(
        self,
        items: Sequence[tuple[Any, str]],
        *,
        max_new_tokens: int = 64,
        batch_size: int = 16,
        **generation: Any,
    ) -> list[Answer]:
        """Answer questions about clips, in the order given.

        Args:
            items: (clip, question); a clip is a path, a `Waveform`, bytes, or None to ask without audio.
            max_new_tokens: At most this many tokens per answer.
            batch_size: Questions generated at once.
            **generation: As in transformers' `generate` (`do_sample`, `temperature`, …); greedy by default.

        Raises:
            AudioError: A clip that cannot be read.

        Example:
            >>> load("nano").answer([("clip.wav", "What do you hear?")])[0].text  # doctest: +SKIP
        """
        waves = {
            id(clip): clip if isinstance(clip, Waveform) else load_audio(clip) for clip, _ in items if clip is not None
        }
        pairs = [(None if clip is None else waves[id(clip)], question) for clip, question in items]
        answers: dict[int, Answer] = {}
        for batch in batches([0.0 if wave is None else wave.duration_s for wave, _ in pairs], batch_size):
            said = self._answer_batch([pairs[i] for i in batch], max_new_tokens=max_new_tokens, **generation)
            answers.update(zip(batch, said, strict=True))
        return [answers[i] for i in range(len(items))]

    def answer_each(
        self, items: Sequence[tuple[Waveform | None, str]], *, max_new_tokens: Sequence[int], batch_size: int = 16
    ) -> Iterator[tuple[int, Answer]]:
        """Answer many questions, each as soon as it can be; greedy unless `drawing` says otherwise.

        Args:
            items: (clip, question), or None to ask without audio; the same clip in several items is encoded once.
            max_new_tokens: At most this many tokens, for each answer.
            batch_size: Questions generated at once.

        Yields:
            The place of an item and its answer, in no order.

        Example:
            >>> dict(load("nano").answer_each([(None, "What?")], max_new_tokens=[8]))  # doctest: +SKIP
        """
        from ossicle.inference.running import Running, runs

        if self.drawing != DRAWINGS["greedy"]:
            yield from drawn(self, items, self.drawing, max_new_tokens, self.seed)
            return
        if runs(self):
            yield from Running(self, items, most=max_new_tokens, size=batch_size)
            return
        for longest in sorted(set(max_new_tokens)):
            places = [place for place, most in enumerate(max_new_tokens) if most == longest]
            said = self.answer([items[place] for place in places], max_new_tokens=longest, batch_size=batch_size)
            yield from zip(places, said, strict=True)

    def _answer_batch(self, items: Sequence[tuple[Waveform | None, str]], **generation: Any) -> list[Answer]:
        """Answer one batch; a clip that several questions share is encoded once."""
        began = time.perf_counter()
        said = [self.hearing.transcript(wave) for wave, _ in items]
        items = [(None if self.hearing.mode == "text_only" else wave, question) for wave, question in items]
        prompts = [
            self.processor.prompt_ids(
                self.prompt(question, clips=wave is not None, transcript=text),
                [] if wave is None else [len(wave.samples)],
            )
            for (wave, question), text in zip(items, said, strict=True)
        ]
        inputs = self.processor.pad(prompts)
        ids, mask = (inputs[key].to(self.model.device) for key in ("input_ids", "attention_mask"))
        heard, rows = self._hear([wave for wave, _ in items], ids, mask)
        clock = _Clock()
        out = self.model.generate(
            ids,
            attention_mask=mask,
            logits_processor=LogitsProcessorList([clock]),
            **heard,
            **self.generation(**generation),
        )
        done = time.perf_counter()
        timing = {"encode": clock.began - began, "prefill": clock.first - clock.began, "decode": done - clock.first}
        return [
            Answer(text=self.text(row), tokens=self.length(row), transcript=text, timing_s=timing, **of_row)
            for row, of_row, text in zip(out[:, ids.shape[1] :], rows, said, strict=True)
        ]

    def _hear(
        self, waves: Sequence[Waveform | None], ids: Tensor, mask: Tensor
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return what `generate` needs of the rows' audio, and what an answer says about the audio of its row."""
        rows: list[dict[str, Any]] = [{"audio_tokens": 0} for _ in waves]
        distinct = list({id(wave): wave for wave in waves if wave is not None}.values())
        if not distinct:
            return {}, rows
        position = {id(wave): row for row, wave in enumerate(distinct)}
        which = torch.tensor([position[id(wave)] for wave in waves if wave is not None])
        encoded, prompts = self.encode(distinct), self.model.prompts(ids, mask)
        if prompts is None:
            connected = _rows(self.model.connect(encoded), which)
        else:  # what a clip sounds like depends on the question
            connected = self.model.connect(_rows(encoded, which), prompts)
        memory, placement = self.model.remember(ids, mask, connected)
        for clip, row in enumerate(placement.rows.tolist()):
            rows[row]["audio_tokens"] += sum(int(tokens.counts()[clip]) for tokens in connected.values())
            stretches = next(iter(connected.values())).stretches
            rows[row]["stretches"] = stretches[clip] if stretches else None
        return {"audio_memory": memory, "position_ids": placement.positions}, rows

    def encode(self, waves: Sequence[Waveform]) -> dict[str, Any]:
        """Return the encoders' tokens of clips."""
        audio = self.processor.audio_inputs(list(waves))
        return self.model.encode(audio["audio_values"].to(self.model.device), audio["audio_lengths"])

    def generation(self, **settings: Any) -> dict[str, Any]:
        """Return settings for `generate`, greedy unless told otherwise; special tokens of audio are never said."""
        return {
            "do_sample": False,
            "suppress_tokens": [self.processor.audio_token_id, self.processor.audio_slot_id],
            "pad_token_id": self.processor.tokenizer.pad_token_id or 0,
            "eos_token_id": self.ends or None,
            **settings,
        }

    def text(self, ids: Tensor) -> str:
        """Return generated ids as text."""
        return str(self.processor.tokenizer.decode(ids, skip_special_tokens=True)).strip()

    def length(self, ids: Tensor) -> int:
        """Return how many tokens an answer has, its end included."""
        ends = torch.isin(ids, ids.new_tensor(self.ends)).nonzero()
        return int(ends[0]) + 1 if len(ends) else len(ids)

    def stream(self, messages: Sequence[dict[str, Any]], audio: Sequence[Any], **settings: Any) -> Iterator[str]:
        """Answer one conversation piece by piece.

        Args:
            messages: The conversation, with one `<audio>` tag per clip.
            audio: Clips in the order of their tags.
            **settings: As in transformers' `generate`.

        Raises:
            Exception: Whatever generating raises, after the pieces that came before it.
        """
        inputs = self.processor.chat([list(messages)], audio=list(audio) or None).to(self.model.device)
        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        settings = self.generation(**{"max_new_tokens": 256, **settings})
        worker = ThreadPoolExecutor(max_workers=1)
        said = worker.submit(self.model.generate, **inputs, **settings, streamer=streamer)
        said.add_done_callback(lambda _: streamer.on_finalized_text("", stream_end=True))
        worker.shutdown(wait=False)  # it ends with its answer, whether anybody still reads or not
        yield from streamer
        said.result()


class _Clock(LogitsProcessor):
    """Notes when generation starts and when the first token's logits are there; changes nothing."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.first = 0.0

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        self.first = self.first or time.perf_counter()
        return scores


def batches(seconds: Sequence[float], size: int, *, budget_s: float = BATCH_SECONDS) -> list[list[int]]:
    """Return indices grouped by length: at most `size` items, and at most `budget_s` of padded audio, in a group.

    Example:
        >>> batches([5.0, 3600.0, 4.0], 16)
        [[2, 0], [1]]
    """
    groups: list[list[int]] = []
    for index in sorted(range(len(seconds)), key=lambda i: seconds[i]):
        if groups and len(groups[-1]) < size and (len(groups[-1]) + 1) * seconds[index] <= budget_s:
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _rows(tokens: dict[str, Any], which: Tensor) -> dict[str, Any]:
    """Return chosen rows of every stream's tokens."""
    return {name: each.take(which) for name, each in tokens.items()}


def load(name: str | Path = "nano", *, device: str = "auto", dtype: str = "auto") -> Engine:
    """Load a model folder, or a model that ships with ossicle.

    Args:
        name: Folder, or a name in `BUNDLED`.
        device: `auto`, `cpu`, `cuda`, `mps`, with an index where wanted.
        dtype: `auto` (bf16 on CUDA, else fp32), `fp32`, `bf16`, `fp16`.

    Raises:
        CheckpointError: No such folder, or it does not hold an ossicle model.
        ConfigError: An unknown device or dtype.

    Example:
        >>> load("nano").name
        'nano'
    """
    began = time.perf_counter()
    folder = bundled(str(name)) if str(name) in BUNDLED else Path(name)
    if not (folder / "config.json").is_file():
        known = ", ".join(BUNDLED)
        raise CheckpointError(
            f"model '{name}': no folder with a config.json there; give a model folder or one of: {known}"
        )
    place = choose_device(device)
    weights = choose_dtype(dtype, place)
    model = AudioLM.from_pretrained(folder, dtype=weights).to(place)
    processor = AudioProcessor.from_pretrained(folder)
    engine = Engine(model, processor, name=str(name), load_s=time.perf_counter() - began)
    logger.info("loaded %s: %s", name, engine.setting)
    return engine


def bundled(name: str) -> Path:
    """Return the folder of a model in the wheel."""
    return Path(__file__).parent.parent / name


def choose_device(device: str) -> torch.device:
    """Return the device; `auto` takes CUDA, then MPS, then the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"--device {device}: not usable here ({reason}); try --device auto") from None
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """Return the dtype of weights; `auto` is bf16 on CUDA, else fp32."""
    table = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if dtype not in table:
        raise ConfigError(f"--dtype {dtype}: expected one of auto, {', '.join(table)}")
    return table[dtype]
