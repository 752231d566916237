"""A decoder whose frozen weights are held in four bits while adapters, connectors and encoders train beside it.

    published weights ──► NF4 or FP4, 64 weights a scale ──► dequantised layer by layer as they are used

Only the decoder's linear layers, its output head left out, are held so. They are read that way (transformers'
`BitsAndBytesConfig`), saved that way, and read again that way by `AudioLM.from_pretrained`. A weight of four bits
cannot train itself; low-rank adapters on it can.

Source: Dettmers et al., arXiv 2305.14314; the kernels are bitsandbytes', which also run on a CPU.
"""

from __future__ import annotations

from typing import Any, Literal

from ossicle.config import Section
from ossicle.errors import require


class QuantizationSpec(Section):
    """How the decoder's linear layers are held.

    Attributes:
        kind: `nf4` (levels of a normal distribution) or `fp4`.
        double: Hold the scales in eight bits too: 0.4 bit less for each weight.
        compute_dtype: Dtype in which a dequantised layer multiplies.
    """

    kind: Literal["nf4", "fp4"] = "nf4"
    double: bool = False
    compute_dtype: Literal["float32", "bfloat16"] = "bfloat16"


def settings(spec: QuantizationSpec) -> Any:
    """Return transformers' own quantization config.

    Raises:
        MissingExtraError: bitsandbytes is not installed.

    Example:
        >>> settings(QuantizationSpec()).bnb_4bit_quant_type  # doctest: +SKIP
        'nf4'
    """
    require("bitsandbytes", "train")
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=spec.kind,
        bnb_4bit_use_double_quant=spec.double,
        bnb_4bit_compute_dtype=getattr(torch, spec.compute_dtype),
    )
