"""One answer, a token at a time, so that several can be made in turn and each be stopped at any token.

    prompt ──► Listener (handles) ──► prefill ──► token ──► token ──► …       one K/V cache per answer

Source: our choice. Greedy tokens are those of `generate` with the same settings.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache

from ossicle.errors import DataError
from ossicle.inference.engine import Engine
from ossicle.inference.handles import Heard, Listener
from ossicle.serve.job import Done, Event, Job, Piece, Sampling
from ossicle.serve.limits import ApiError
from ossicle.serve.speech import Speech


class Generation:
    """An answer under way.

    Args:
        engine: The model.
        listener: Hears clips through handles.
        job: What is asked.

    Raises:
        ApiError: The conversation does not fit the template or the context.
    """

    def __init__(self, engine: Engine, listener: Listener, job: Job) -> None:
        self.engine, self.listener, self.job = engine, listener, job
        self.ids = prompt_ids(engine, job)
        self.speech = Speech(engine.processor.tokenizer, job.sampling.stop)
        self.heard: Heard | None = None
        self.cache: Any = None
        self.position = 0
        self.first_token_s = 0.0
        self.num_tokens = 0
        self.ends = _ends(engine)
        self.generator = _generator(job.sampling)
        self._told: list[dict[str, Any]] = []

    def events(self) -> Iterator[Event | None]:
        """Make the answer; yields after every token, None where there is nothing to send yet."""
        most = self.job.sampling.max_tokens
        token, chances = self._choose(self._prefill())
        self.first_token_s = time.monotonic() - self.job.received
        reason = "length"
        while True:
            self.num_tokens += 1
            if token in self.ends:
                reason = "stop"
                break
            piece = self.speech.push(token)
            self._tell(token, chances)
            if self.speech.stopped:
                reason = "stop"
                yield self._piece(piece)
                break
            yield self._piece(piece)
            if self.num_tokens >= most:
                break
            token, chances = self._choose(self._next(token))
        yield self._piece(self.speech.finish())
        yield self._done(reason)

    @torch.inference_mode()
    def _prefill(self) -> Tensor:
        """Run the prompt; return (V,) logits of the first token."""
        model = self.engine.model
        ids = torch.tensor([self.ids], device=model.device)
        mask = torch.ones_like(ids)
        positions = torch.arange(ids.shape[1], device=ids.device)[None]
        if self.job.clips:
            try:
                self.heard = self.listener.hear(ids, mask, self.job.clips, scope=self.job.scope)
            except DataError as error:
                raise ApiError(str(error), code="unknown_uuid") from None
            self.heard.memory.keep = True
            positions = self.heard.placement.positions
        self.position = int(positions[0, -1])
        self.cache = DynamicCache(config=model.language_model.config)
        return self._run(ids, positions)

    @torch.inference_mode()
    def _next(self, token: int) -> Tensor:
        """Run one more token; return (V,) logits of the one after."""
        self.position += 1
        device = self.engine.model.device
        return self._run(torch.tensor([[token]], device=device), torch.tensor([[self.position]], device=device))

    def _run(self, ids: Tensor, positions: Tensor) -> Tensor:
        past = self.cache.get_seq_length()
        out = self.engine.model(
            input_ids=ids,
            attention_mask=torch.ones(1, past + ids.shape[1], dtype=torch.long, device=ids.device),
            position_ids=positions,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            audio_memory=self.heard.memory if self.heard is not None else None,
        )
        logits: Tensor = out.logits[0, -1].float()
        processor = self.engine.processor
        logits[[processor.audio_token_id, processor.audio_slot_id]] = float("-inf")
        return logits

    def _choose(self, logits: Tensor) -> tuple[int, Tensor]:
        """Return the next token and (V,) log-probabilities before temperature."""
        with torch.inference_mode():
            return choose(logits, self.job.sampling, self.generator), logits

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

    def _piece(self, text: str) -> Piece | None:
        told, self._told = self._told, []
        asked = self.job.sampling.top_logprobs is not None
        return Piece(text=text, logprobs=told if asked else None) if text or told else None

    def _done(self, reason: str) -> Done:
        heard, slot = self.heard, self.engine.processor.audio_slot_id
        audio = heard.audio_tokens if heard is not None else 0
        names = ("audio_tokens", "cached_tokens", "hits", "misses", "saved_s") if heard is not None else ()
        return Done(
            reason=reason,
            prompt_tokens=sum(token != slot for token in self.ids) + audio,
            completion_tokens=self.num_tokens,
            first_token_s=self.first_token_s,
            total_s=time.monotonic() - self.job.received,
            **{name: getattr(heard, name) for name in names},
        )


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> int:
    """Return the next token: the likeliest, or one drawn with temperature from the likeliest `top_p`."""
    if sampling.temperature == 0:
        return int(logits.argmax())
    chances = (logits.cpu() / sampling.temperature).softmax(-1)
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

    processor = engine.processor
    messages = [{**m, "content": unspecial(processor.tokenizer, m["content"])} for m in job.messages]
    try:
        ids: list[int] = processor.prompt_ids(messages, [clip.num_samples for clip in job.clips])
    except (DataError, TemplateError) as error:
        raise ApiError(f"messages: {str(error).splitlines()[0]}", param="messages") from None
    room = getattr(engine.model.config.text_config, "max_position_embeddings", None)
    if room is not None and len(ids) + 1 > room:
        raise ApiError(
            f"messages: {len(ids)} tokens, the model's context has {room}",
            param="messages",
            code="context_length_exceeded",
        )
    if not ids:
        raise ApiError("messages: nothing is asked", param="messages")
    return ids


def unspecial(tokenizer: Any, text: str) -> str:
    """Return text that cannot pass for the template's own marks: special tokens written out in it are broken up."""
    for token in tokenizer.all_special_tokens:
        if len(token) > 2 and token in text:
            text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def _ends(engine: Engine) -> set[int]:
    """Return the tokens that end an answer."""
    given = getattr(engine.model.generation_config, "eos_token_id", None)
    own = given if isinstance(given, list) else [given]
    return {token for token in (*own, engine.processor.tokenizer.eos_token_id) if token is not None}


def _generator(sampling: Sampling) -> torch.Generator | None:
    if sampling.temperature == 0:
        return None
    generator = torch.Generator()
    if sampling.seed is None:
        generator.seed()
    else:
        generator.manual_seed(sampling.seed % (1 << 63))
    return generator
