"""One answer, a token at a time, so that several can be made in turn and each be stopped at any token.

    prompt ──► Listener (handles) ──► Batch.prefill ──take──► token ──► Batch.step ──take──► token ──► …

Source: our choice. Greedy tokens are those of `generate` with the same settings.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ossicle.errors import DataError
from ossicle.inference.engine import Engine
from ossicle.inference.handles import Ahead, Heard, Listener
from ossicle.integration.memory import AudioMemory
from ossicle.serve.job import Done, Event, Job, Piece, Sampling
from ossicle.serve.limits import ApiError
from ossicle.serve.speech import Speech

COLDEST = 1e-6
"""Temperature below which an answer is the likeliest in any case."""


class Generation:
    """An answer under way: one row of a `Batch`.

    Args:
        engine: The model.
        listener: Hears clips through handles.
        job: What is asked.
        ahead: What the listener has made of its clips already.

    Attributes:
        embeddings: (L, D) of the prompt, until it is read.
        positions: (L,) of the prompt.
        read: Tokens of the prompt that are read.
        token: The last token, not yet run.
        position: Its position.
        memory: The clips, until a slot holds them.
        heard_at: When its clips were heard.
        over: The answer is finished.

    Raises:
        ApiError: The conversation does not fit the template or the context.
    """

    def __init__(self, engine: Engine, listener: Listener, job: Job, ahead: Ahead | None = None) -> None:
        self.engine, self.job = engine, job
        self.ids = prompt_ids(engine, job)
        self.speech = Speech(engine.processor.tokenizer, job.sampling.stop)
        self.heard: Heard | None = None
        self.memory: AudioMemory | None = None
        self.embeddings: Tensor | None = None
        self.token = self.read = self.num_tokens = 0
        self.over = False
        self.first_token_s = 0.0
        self._ends = [] if job.sampling.endless else engine.ends
        self._generator = _generator(job.sampling)
        self._told: list[dict[str, Any]] = []
        self._hear(listener, ahead)
        self.heard_at = time.monotonic()
        self.position = int(self.positions[-1])
        room = _room(engine)
        self._most = min(job.sampling.max_tokens, job.sampling.max_tokens if room is None else room - len(self.ids))

    @torch.inference_mode()
    def _hear(self, listener: Listener, ahead: Ahead | None) -> None:
        """Hear the clips and lay the prompt out."""
        model = self.engine.model
        ids = torch.tensor([self.ids], device=model.device)
        mask = self.engine.processor.pad([self.ids])["attention_mask"].to(model.device)
        self.positions = torch.arange(ids.shape[1], device=ids.device)
        if self.job.clips:
            try:
                self.heard = listener.hear(ids, mask, self.job.clips, scope=self.job.scope, ahead=ahead)
            except DataError as error:
                raise ApiError(str(error), code="unknown_uuid") from None
            self.memory, self.heard.memory = self.heard.memory, AudioMemory()  # a slot will hold it
            self.positions = self.heard.placement.positions[0]
        seen = mask[0].bool()  # a marker that no token sees is not run at all
        self.positions = self.positions[seen]
        self.embeddings = model.embed(ids, self.memory)[0][seen]

    @torch.inference_mode()
    def take(self, logits: Tensor, likeliest: int) -> list[Event]:
        """Choose the next token from (V,) logits and the likeliest of them; return what there is to send."""
        greedy = self.job.sampling.temperature == 0
        self.token = likeliest if greedy else choose(logits, self.job.sampling, self._generator)
        self.num_tokens += 1
        self.position += 1
        if self.num_tokens == 1:
            self.first_token_s = time.monotonic() - self.job.received
        ended = self.token in self._ends
        text = "" if ended else self.speech.push(self.token)
        if not ended:
            self._tell(self.token, logits)
        ended = ended or self.speech.stopped
        self.over = ended or self.num_tokens >= self._most
        if not self.over:
            return self._pieces(text)
        return [*self._pieces(text + self.speech.finish()), self._done("stop" if ended else "length")]

    def _tell(self, token: int, logits: Tensor) -> None:
        """Note a token's log-probability where asked for."""
        most = self.job.sampling.top_logprobs
        if most is None:
            return
        chances = logits.log_softmax(-1)
        likely = chances.topk(max(1, most))
        top = [self._row(int(i), float(p)) for p, i in zip(likely.values, likely.indices, strict=True)][:most]
        self._told.append({**self._row(token, float(chances[token])), "top_logprobs": top})

    def _row(self, token: int, chance: float) -> dict[str, Any]:
        text = str(self.engine.processor.tokenizer.decode([token]))
        return {"token": text, "logprob": max(chance, -9999.0), "bytes": list(text.encode("utf-8", "replace"))}

    def _pieces(self, text: str) -> list[Event]:
        told, self._told = self._told, []
        asked = self.job.sampling.top_logprobs is not None
        return [Piece(text=text, logprobs=told if asked else None)] if text or told else []

    def _done(self, reason: str) -> Done:
        heard, slot = self.heard, self.engine.processor.audio_slot_id
        audio = heard.audio_tokens if heard is not None else 0
        names = ("audio_tokens", "cached_tokens", "hits", "misses", "saved_s", "stretches") if heard is not None else ()
        return Done(
            reason=reason,
            prompt_tokens=sum(token != slot for token in self.ids) + audio,
            completion_tokens=self.num_tokens,
            first_token_s=self.first_token_s,
            total_s=time.monotonic() - self.job.received,
            **{name: getattr(heard, name) for name in names},
        )


@torch.inference_mode()
def speakable(engine: Engine, logits: Tensor) -> tuple[Tensor, list[int]]:
    """Return (B, V) logits in which no audio token can be said, and the likeliest token of each row."""
    logits[:, [engine.processor.audio_token_id, engine.processor.audio_slot_id]] = float("-inf")
    return logits, logits.argmax(-1).tolist()


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """Return the next token: the likeliest, or one drawn with temperature from the likeliest `top_p`."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    logits = logits.cpu()
    chances = ((logits - logits.max()) / max(sampling.temperature, COLDEST)).softmax(-1)  # however cold, no overflow
    if sampling.top_p < 1:
        ordered, index = chances.sort(descending=True)
        ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0
        chances = torch.zeros_like(chances).scatter(-1, index, ordered)
    return int(torch.multinomial(chances, 1, generator=generator))


def prompt_ids(engine: Engine, job: Job) -> list[int]:
    """Return the token ids of a conversation, with room for an answer.

    Raises:
        ApiError: The template refuses the conversation, or it leaves no room in the context.
    """
    from jinja2 import TemplateError

    processor, room = engine.processor, _room(engine)
    length, most = sum(len(m["content"]) for m in job.messages), _longest_token(processor.tokenizer)
    if room is not None and length > room * most:  # before megabytes are cut into tokens while all answers wait
        raise ApiError(
            f"messages: {length} characters, more than the model's context of {room} tokens can hold",
            param="messages",
            code="context_length_exceeded",
        )
    messages = [{**m, "content": unspecial(processor.tokenizer, m["content"])} for m in job.messages]
    try:
        ids: list[int] = processor.prompt_ids(messages, [clip.num_samples for clip in job.clips])
    except (DataError, TemplateError) as error:
        raise ApiError(f"messages: {str(error).splitlines()[0]}", param="messages") from None
    if room is not None and len(ids) + 1 > room:
        raise ApiError(
            f"messages: {len(ids)} tokens, the model's context has {room}",
            param="messages",
            code="context_length_exceeded",
        )
    if not ids:
        raise ApiError("messages: nothing is asked", param="messages")
    return ids


def _room(engine: Engine) -> int | None:
    """Return the tokens that the model's context holds."""
    return getattr(engine.model.config.text_config, "max_position_embeddings", None)


@lru_cache(maxsize=8)
def _longest_token(tokenizer: Any) -> int:
    """Return the most characters that one token can stand for."""
    return max(map(len, tokenizer.get_vocab()))


def unspecial(tokenizer: Any, text: str) -> str:
    """Return text that cannot pass for the template's own marks: special tokens written out in it are broken up."""
    for token in tokenizer.all_special_tokens:
        if len(token) > 2 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _generator(sampling: Sampling) -> torch.Generator | None:
    if sampling.temperature == 0:
        return None
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % (1 << 63))
    return generator
