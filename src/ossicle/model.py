"""AudioLM: audio streams around an unmodified Hugging Face decoder.

    audio (C, S) ──encode──► tokens of each encoder ──connect──► tokens at LM width ──remember──► AudioMemory
                                                                                                     │
    text (B, L), one marker per clip ──────────────────────────────────► language_model ◄────────────┘

`encode`, `connect` and `remember` are three calls so that each result can be kept: encoder outputs by a feature cache,
connector outputs and keys/values by audio handles. Parts are named `language_model` and
`streams.<name>.encoder|connector|integration`; freezing, LoRA and sharding are applied from outside.
"""

from __future__ import annotations

import ossicle.lean  # noqa: F401  # isort: skip  (before transformers, which then imports less)
import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from ossicle import streams as stream_plans
from ossicle.audio.features import shared
from ossicle.deferred import undrawn
from ossicle.errors import CheckpointError, DataError
from ossicle.focus import focused
from ossicle.integration.base import Placement, place, slot_rows
from ossicle.integration.memory import AudioMemory, end_of_text, input_norms
from ossicle.loss import labelled_loss, next_token_loss, reshapes_logits
from ossicle.mixtures.balance import auxiliary_loss
from ossicle.mixtures.prompt import prompt_vectors
from ossicle.model_config import AudioLMConfig, check_config
from ossicle.types import AudioTokens


def cast(module: nn.Module, dtype: torch.dtype) -> None:
    """Hold what a module learns and saves in a dtype; what it only computes with stays in float32.

    Rotary frequencies are of the second kind, and transformers reads a decoder so: in bf16 they are off by a radian and
    more after some thousand positions.
    """
    for tensor in module.state_dict(keep_vars=True).values():
        if tensor.is_floating_point():
            tensor.data = tensor.data.to(dtype)


@torch.no_grad()
def _rms_of_text(embedding: Any) -> float:
    """Return the rms of text embeddings; some decoders (Gemma) scale them on the way out of their table."""
    weight = embedding.weight.float()
    some = torch.arange(min(64, len(weight)), device=weight.device)
    scale = float(embedding(some).float().norm() / weight[some].norm().clamp_min(1e-30))
    return float(weight.pow(2).mean().sqrt()) * scale


class AudioLM(PreTrainedModel, GenerationMixin):
    """A decoder LM with ears; see the module for the picture."""

    config_class = AudioLMConfig
    config: AudioLMConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: AudioLMConfig, language_model: PreTrainedModel | None = None) -> None:
        super().__init__(config)
        check_config(config)
        plans = stream_plans.plan(config.streams)
        if language_model is None:
            language_model = AutoModelForCausalLM.from_config(config.text_config, attn_implementation="sdpa")
        self.language_model = language_model
        self.streams = nn.ModuleDict({p.name: stream_plans.Stream(p, config.text_config) for p in plans})
        for stream in self.streams.values():
            stream.integration.install(self.language_model)
        self.post_init()

    @classmethod
    def new(cls, config: AudioLMConfig, language_model: PreTrainedModel | None = None) -> AudioLM:
        """Return a model to train: pretrained encoders read, connectors scaled to the decoder's text embeddings.

        Args:
            config: Its `streams` may name `pretrained` encoders; their architecture is written into the config.
            language_model: Decoder whose weights it takes over; None = random weights of `config.text_config`. One
                that is quantized becomes part of the model itself.
        """
        config.streams = stream_plans.resolved(config.streams)
        quantizer = getattr(language_model, "hf_quantizer", None)
        model = cls(config) if quantizer is None else cls(config, language_model)
        if quantizer is not None:
            model._adopt(quantizer)
        elif language_model is not None:
            model.language_model.load_state_dict(language_model.state_dict())
            cast(model.language_model, language_model.dtype)
            model.generation_config = language_model.generation_config
        rms = _rms_of_text(model.get_input_embeddings())
        for stream in model.streams.values():
            stream.connector.set_output_scale(rms)
            stream.connector.load_pretrained()
            stream.integration.start(model.language_model)
            if stream.encoder is not None:
                stream.encoder.load_pretrained()
        return model

    @classmethod
    def from_pretrained(cls, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Read a model folder; every weight must be there and none may be left over.

        Raises:
            CheckpointError: Missing, unexpected or misshapen weights, each named.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        with undrawn():
            model, info = super().from_pretrained(path, *args, output_loading_info=True, **kwargs)
        problems = {
            kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")
        }
        named = [f"{kind.split('_')[0]}: {', '.join(keys[:5])}" for kind, keys in problems.items() if keys]
        if named:
            count = sum(map(len, problems.values()))
            raise CheckpointError(f"model folder '{path}': {count} weights do not fit ({'; '.join(named)})")
        return (model, info) if wants_info else model

    def _adopt(self, quantizer: Any) -> None:
        """Save and read the whole model as its quantized decoder is saved and read; the streams stay as they are."""
        held = copy.deepcopy(quantizer.quantization_config)
        held.llm_int8_skip_modules = ["streams", "lm_head"]
        self.hf_quantizer, self.config.quantization_config = quantizer, held
        del self.language_model.config.quantization_config

    def _init_weights(self, module: nn.Module) -> None:
        """Leave every part as its own constructor made it."""

    def get_input_embeddings(self) -> nn.Module:
        """Return the decoder's embedding table."""
        return self.language_model.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module | None:
        """Return the decoder's LM head."""
        return self.language_model.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        """Return the decoder without its LM head."""
        return self.language_model.get_decoder()

    def gradient_checkpointing_enable(self, gradient_checkpointing_kwargs: dict[str, Any] | None = None) -> None:
        """Checkpoint the layers, never re-entrant: audio memory reaches them as a keyword."""
        super().gradient_checkpointing_enable({**(gradient_checkpointing_kwargs or {}), "use_reentrant": False})

    @shared()
    def encode(self, audio_values: Tensor, audio_lengths: Tensor, *, every: bool = False) -> dict[str, AudioTokens]:
        """Run every encoder once.

        Args:
            audio_values: (C, S) samples at 16 kHz, zero-padded.
            audio_lengths: (C,) real samples of each clip.
            every: Run also what a mixture's routers leave out, so that the result serves any route.

        Returns:
            Features of each encoder (what does not depend on routers or text), by the stream that owns it; of a long
            clip only those of what stands out in it, where the config's `focus` says so.
        """
        encoded = {}
        for name, stream in self.streams.items():
            if stream.encoder is None:
                continue
            trains = any(p.requires_grad for part in stream.encoder.feature_parts() for p in part.parameters())
            with torch.set_grad_enabled(torch.is_grad_enabled() and trains):
                encoded[name] = stream.encoder.features(audio_values, audio_lengths, every=every)
        return focused(encoded, self.config.focus)

    def connect(self, encoded: Mapping[str, AudioTokens], prompt: Tensor | None = None) -> dict[str, AudioTokens]:
        """Return each stream's tokens at the decoder's width from `encode`, and from `prompt` where that matters."""
        connected, finished = {}, dict[str, AudioTokens]()
        for name, stream in self.streams.items():
            for owner in stream.plan.owners:
                if owner not in encoded:
                    raise DataError(f"audio_tokens has no '{owner}'; it has {', '.join(encoded) or 'nothing'}")
                dtype = next(stream.connector.parameters(), encoded[owner].values).dtype
                if owner not in finished:
                    features = encoded[owner].to(device=self.device, dtype=dtype)
                    finished[owner] = self.streams[owner].encoder.finish(features, prompt)
            heard = stream_plans.side_by_side([finished[owner] for owner in stream.plan.owners])
            connected[name] = stream.connector(heard.to(device=self.device, dtype=dtype))
        return connected

    def prompts(self, input_ids: Tensor, attention_mask: Tensor | None, labels: Tensor | None = None) -> Tensor | None:
        """Return (C, D) what each clip is asked, or None where no encoder listens to it; see `mixtures.prompt`."""
        if not any(stream.plan.facts.prompt_dependent for stream in self.streams.values()):
            return None
        audio = (self.config.audio_token_id, self.config.audio_slot_id)
        return prompt_vectors(self.get_input_embeddings().weight, input_ids, attention_mask, labels, audio)

    def remember(
        self, input_ids: Tensor, attention_mask: Tensor | None, connected: Mapping[str, AudioTokens]
    ) -> tuple[AudioMemory, Placement]:
        """Lay the streams' tokens out for a text.

        Args:
            input_ids: (B, L) text with one marker per clip, clips in row-major order.
            attention_mask: (B, L) 1 = real, or None = all real.
            connected: From `connect`.

        Returns:
            What the decoder needs of the audio, and the positions of the text.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        counts = {name: tokens.counts() for name, tokens in connected.items()}
        taken = {}
        for name, stream in self.streams.items():
            positions = [stream.integration.config.num_positions(n) for n in counts[name].tolist()]
            taken[name] = torch.tensor(positions, dtype=torch.long, device=input_ids.device)
        left = torch.stack(list(taken.values())).sum(0)
        placement = place(input_ids, mask, self.config.audio_token_id, left)
        rotary = getattr(self.get_decoder(), "rotary_emb", None)
        end = end_of_text(rotary, placement.positions)
        memory = AudioMemory(rotary=rotary, text_end=end, norms=input_norms(self.language_model))
        by_clip: list[list[Tensor]] = [[] for _ in range(len(left))]
        for name, stream in self.streams.items():
            rows = stream.integration.rows(connected[name])
            for clip, part in enumerate(rows or []):
                by_clip[clip].append(part)
            segment = stream.integration.segment(connected[name], placement, left)
            crossing = stream.integration.crossing(connected[name], placement)
            memory.segments += [segment] if segment is not None else []
            memory.crosses += [crossing] if crossing is not None else []
            left = left - taken[name]
        if any(by_clip):
            memory.slots = slot_rows(by_clip, placement.rows.tolist(), len(input_ids))
        return memory, placement

    def _hear(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        audio_values: Tensor | None,
        audio_lengths: Tensor | None,
        audio_tokens: Mapping[str, AudioTokens] | None,
        labels: Tensor | None = None,
    ) -> tuple[AudioMemory, Placement] | None:
        """Return memory and placement when the batch has audio, None when it has none."""
        if audio_tokens is None and (audio_values is None or len(audio_values) == 0):
            if input_ids is not None and bool((input_ids == self.config.audio_token_id).any()):
                raise DataError("the text has audio markers, but no audio was given")
            return None
        if input_ids is None:
            raise DataError("audio needs input_ids: its place in the text is a marker token")
        if audio_tokens is None:
            if audio_lengths is None:
                raise DataError("audio_values came without audio_lengths (samples of each clip)")
            assert audio_values is not None
            audio_tokens = self.encode(audio_values, audio_lengths)
        connected = self.connect(audio_tokens, self.prompts(input_ids, attention_mask, labels))
        return self.remember(input_ids, attention_mask, connected)

    def embed(self, input_ids: Tensor | None, memory: AudioMemory | None, past: Any = None) -> Tensor:
        """Return (B, L, D) text embeddings with the audio slots filled.

        Args:
            input_ids: (B, L) text.
            memory: From `remember` with this text.
            past: Cache of the text; one that holds something makes this a later step, whose slots are filled.

        Raises:
            DataError: No text, or the text has another number of slots than the audio has tokens.
        """
        if input_ids is None:
            raise DataError("give input_ids or inputs_embeds")
        embeddings: Tensor = self.get_input_embeddings()(input_ids)
        slots = input_ids == self.config.audio_slot_id
        rows = memory.slots if memory is not None else None
        if not rows or (past is not None and past.get_seq_length() > 0):
            return embeddings
        beams = len(input_ids) // len(rows)
        values = torch.cat([row for row in rows for _ in range(beams)])
        found = int(slots.sum())
        if found != len(values):
            raise DataError(f"the text has {found} audio slots, the audio has {len(values)} tokens; use its processor")
        return embeddings.masked_scatter(slots[..., None], values.to(embeddings.dtype))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        audio_values: Tensor | None = None,
        audio_lengths: Tensor | None = None,
        audio_tokens: Mapping[str, AudioTokens] | None = None,
        audio_memory: AudioMemory | None = None,
        num_items_in_batch: Tensor | int | None = None,
        label_weights: Tensor | None = None,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast:
        """Run the decoder over text and audio.

        Args:
            input_ids: (B, L) text; one marker per clip.
            attention_mask: (B, L) 1 = real.
            position_ids: (B, L); None = counted from the mask.
            past_key_values: Cache of the text.
            inputs_embeds: (B, L, D) instead of `input_ids`; text only.
            labels: (B, L), -100 = no loss. The loss is summed and divided by `num_items_in_batch`.
            use_cache: Return a cache.
            logits_to_keep: As in transformers.
            audio_values: (C, S) clips at 16 kHz in the order of their markers.
            audio_lengths: (C,) samples of each clip.
            audio_tokens: Encoder outputs by stream instead of samples (feature cache).
            audio_memory: Made by `remember` instead; `generate` passes it to every step.
            num_items_in_batch: Label tokens of the whole effective batch; None = of this batch.
            label_weights: (B, L) factor of each label's loss in training; None = 1.
            **kwargs: Passed to the decoder.

        Returns:
            `loss` with labels; `logits` (B, L, V), None while training with labels, where only labelled rows are made.
        """
        routing: Tensor | float = 0.0
        if audio_memory is None:
            heard = self._hear(input_ids, attention_mask, audio_values, audio_lengths, audio_tokens, labels)
            if heard is not None:
                audio_memory, placement = heard
                routing = auxiliary_loss(self.streams.values())
                position_ids = placement.positions if position_ids is None else position_ids
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids, audio_memory, past_key_values)
        if audio_memory is not None:
            kwargs["audio_memory"] = audio_memory
            attention_mask = _explicit(attention_mask, inputs_embeds, past_key_values)
        inputs = {"inputs_embeds": inputs_embeds, "attention_mask": attention_mask, "position_ids": position_ids}
        inputs |= {"past_key_values": past_key_values, "use_cache": use_cache, **kwargs}
        if labels is not None and self.training:
            total = self._training_loss(inputs, labels, num_items_in_batch, routing, label_weights)
            return CausalLMOutputWithPast(loss=total)
        out = self.language_model(**inputs, logits_to_keep=logits_to_keep)
        loss = None if labels is None else next_token_loss(out.logits, labels, num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss, logits=out.logits, past_key_values=out.past_key_values)

    def _training_loss(self, inputs: dict[str, Any], labels: Tensor, *settings: Any) -> Tensor:
        """Return the loss with logits at labelled rows only, unless the decoder does more to them than its head."""
        if reshapes_logits(self.config.text_config):
            return next_token_loss(self.language_model(**inputs).logits, labels, *settings)
        hidden = self.get_decoder()(**inputs).last_hidden_state
        return labelled_loss(self.get_output_embeddings(), hidden, labels, *settings)

    @torch.no_grad()
    def generate(  # type: ignore[override]
        self,
        input_ids: Tensor | None = None,
        *,
        attention_mask: Tensor | None = None,
        audio_values: Tensor | None = None,
        audio_lengths: Tensor | None = None,
        audio_tokens: Mapping[str, AudioTokens] | None = None,
        audio_memory: AudioMemory | None = None,
        **kwargs: Any,
    ) -> Any:
        """Generate as transformers does; the audio is encoded once, before the first step.

        Args:
            input_ids: (B, L) left-padded text with one marker per clip.
            attention_mask: (B, L) 1 = real.
            audio_values: As in `forward`; so are `audio_lengths` and `audio_tokens`.
            audio_memory: From `remember` with the same text.
            **kwargs: As in transformers' `generate`.
        """
        if audio_memory is None:
            heard = self._hear(input_ids, attention_mask, audio_values, audio_lengths, audio_tokens)
            if heard is not None:
                audio_memory, placement = heard
                kwargs.setdefault("position_ids", placement.positions)
        if audio_memory is not None:
            audio_memory.keep = True
            kwargs["audio_memory"] = audio_memory
        if attention_mask is not None:
            kwargs["attention_mask"] = attention_mask
        return super().generate(input_ids, **kwargs)


def _explicit(attention_mask: Tensor | None, embeddings: Tensor, cache: Any) -> Tensor:
    """Return the mask, all ones where there is none: without one, transformers reads jumps in positions as packing."""
    if attention_mask is not None:
        return attention_mask
    past = cache.get_seq_length() if cache is not None else 0
    return torch.ones(len(embeddings), past + embeddings.shape[1], dtype=torch.long, device=embeddings.device)


AutoModelForCausalLM.register(AudioLMConfig, AudioLM)
