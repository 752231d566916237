"""The time that a step's own matrix shapes need alone: what a PLITS step is compared with.

    forward   X W        for Q, K, V, O, gate, up, down of every layer, and the head at rows with a label
    backward  dY Wᵀ and Xᵀ dY of each

Nothing else is run: no attention, norms, activations, loss or optimiser. One weight of each shape is made and used for
all layers, so that the caches see what a step's would. Source: our choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoConfig

from ossicle.bench.flops import Trained
from ossicle.bench.integrations import Variant
from ossicle.errors import ConfigError
from ossicle.integration.memory import head_dim

if TYPE_CHECKING:
    from ossicle.bench.integrations import Setting


class Matrices(Variant):
    """The matrix products of a PLITS step in which everything trains."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.begin(setting)
        if setting.trained != Trained():
            raise ConfigError("--matrices: everything trains there; leave out --lora, --freeze-ffn, --checkpointing")
        self.config = AutoConfig.for_model(**self.shape.decoder)
        rows = self.shape.batch * (self.shape.text_tokens + self.shape.audio_tokens)
        layers, labels = self.config.num_hidden_layers, self.shape.batch * self.shape.label_tokens
        products = [(rows, inner, outer, layers) for inner, outer in self.linears()]
        products.append((labels, self.config.hidden_size, self.config.vocab_size, 1))
        self.products = [
            (self._random(count, inner), self._random(inner, outer), self._random(count, outer), times)
            for count, inner, outer, times in products
        ]

    def linears(self) -> list[tuple[int, int]]:
        """Return (in, out) of each linear layer of a decoder layer."""
        width, ffn, head = self.config.hidden_size, self.config.intermediate_size, head_dim(self.config)
        queries, keys = self.config.num_attention_heads * head, self.config.num_key_value_heads * head
        attention = [(width, queries), (width, keys), (width, keys), (queries, width)]
        return [*attention, (width, ffn), (width, ffn), (ffn, width)]

    def _random(self, rows: int, columns: int) -> torch.Tensor:
        return torch.randn(rows, columns, device=self.device, dtype=self.dtype) * 0.02

    @torch.no_grad()
    def train_step(self) -> None:
        """Run the products of forward and backward."""
        for states, weight, slope, times in self.products:
            for _ in range(times):
                states @ weight
                slope @ weight.T
                states.T @ slope

    @torch.no_grad()
    def infer_step(self) -> None:
        """Run the products of forward."""
        for states, weight, _, times in self.products:
            for _ in range(times):
                states @ weight

    def facts(self) -> dict[str, Any]:
        """Return the operations; memory is not compared."""
        once = sum(2 * states.numel() * weight.shape[1] * times for states, weight, _, times in self.products)
        empty = {"activation_bytes": 0, "peak_bytes": 0}
        self.train_step()
        return {"train": {**empty, "analytic_flops": 3 * once}, "infer": {**empty, "analytic_flops": once}}
