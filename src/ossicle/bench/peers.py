"""Other people's way to train the same thing, as rows of the same bench: the audio is given as rows before the text.

    qwen2-audio   transformers' Qwen2-Audio over a decoder of the shape at hand, its own loss: logits at every row
    trainer       a plain `AutoModelForCausalLM` stepped by `transformers.Trainer`: logits at every row

Both get the decoder's config, the batch, the optimiser and the kernels (sdpa) of `plits-mlp`; what differs is theirs.
Encoder and projector are left out everywhere. Source: transformers, `modeling_qwen2_audio.py` and `trainer.py`.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM

from ossicle.bench.integrations import Variant
from ossicle.loss import IGNORE

if TYPE_CHECKING:
    from ossicle.bench.integrations import Setting


class Peer(Variant):
    """One peer's model and batch, ready to step."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.begin(setting)
        shape = self.shape
        self.split = [("prepend", shape.audio_tokens)]
        self.config = AutoConfig.for_model(**shape.decoder)
        with self.device:
            model = _qwen2_audio(shape.decoder) if name == "qwen2-audio" else _plain(self.config)
        self.model: Any = model.to(self.dtype)
        if setting.checkpointing:
            self.model.gradient_checkpointing_enable()
        self.audio = [self._values(shape.audio_tokens)]
        self.ids = torch.randint(3, self.config.vocab_size - 3, (shape.batch, shape.text_tokens), device=self.device)
        self.labels = torch.full((shape.batch, shape.audio_tokens + shape.text_tokens), IGNORE, device=self.device)
        self.labels[:, -shape.label_tokens :] = self.ids[:, -shape.label_tokens :]
        self.optimize()
        self.trainer = _trainer(self.model, setting.device) if name == "trainer" else None

    def _inputs(self, *, grad: bool) -> dict[str, Any]:
        words = self.model.get_input_embeddings()(self.ids)
        rows = torch.cat([self.audio[0].detach().requires_grad_(grad), words], 1)
        mask = torch.ones(rows.shape[:2], dtype=torch.long, device=self.device)
        return {"inputs_embeds": rows, "attention_mask": mask, "use_cache": False}

    def loss(self) -> Tensor:
        """Return the training loss of the batch, as the peer makes it."""
        self.model.train()
        inputs = {**self._inputs(grad=True), "labels": self.labels}
        loss: Tensor = (
            self.model(**inputs).loss if self.trainer is None else self.trainer.compute_loss(self.model, inputs)
        )
        return loss

    def train_step(self) -> None:
        """Run forward, backward and the optimiser once; Trainer's own step where it is measured."""
        if self.trainer is None:
            self.loss().backward()
        else:
            self.trainer.training_step(self.model, {**self._inputs(grad=True), "labels": self.labels})
        self.optimizer.step()
        self.optimizer.zero_grad()

    @torch.no_grad()
    def infer_step(self) -> None:
        """Prefill the batch and make the first token's logits, where the peer can make them alone."""
        self.model.eval()
        last = {"logits_to_keep": 1} if self.trainer is not None else {}
        self.model(**self._inputs(grad=False), **last)


def _qwen2_audio(decoder: dict[str, Any]) -> nn.Module:
    """Return transformers' model over a decoder config, its encoder as small as it can be."""
    from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration

    ear = {"model_type": "qwen2_audio_encoder", "encoder_layers": 1, "d_model": 8, "encoder_attention_heads": 1}
    ear |= {"encoder_ffn_dim": 8}
    return Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(audio_config=ear, text_config=dict(decoder)))


def _plain(config: Any) -> nn.Module:
    model: nn.Module = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    return model


def _trainer(model: Any, device: str) -> Any:
    """Return a Trainer that only steps: nothing is logged, saved or loaded."""
    from transformers import Trainer, TrainingArguments

    folder = tempfile.mkdtemp(prefix="ossicle-bench-")
    settings = TrainingArguments(output_dir=folder, use_cpu=device == "cpu", report_to="none", max_grad_norm=0.0)
    trainer = Trainer(model=model, args=settings)
    trainer.current_gradient_accumulation_steps = 1
    return trainer
