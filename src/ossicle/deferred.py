"""What others import and nobody here uses is put off until somebody does.

    transformers' models ──► its losses for object detection ──► scipy.optimize, for one function
    transformers' layers ──► a mark for torch's compiler     ──► the compiler           (see `ossicle.compiler`)
    transformers' loading ─► models cut over processes       ──► DTensor and sympy
    a weight on `meta`   ──► drawn by a reference in Python  ──► sympy, for one comparison

Together two fifths of what a cold `ossicle ask` waited for. This module only knows how; `ossicle.lean` does it.

Source: our choice.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

_alone = False


@contextmanager
def put_off(module: str, function: str) -> Iterator[None]:
    """While it lasts, `from module import function` imports nothing; the function does when it is called.

    Args:
        module: Full name of a module; one that is imported already is left alone.
        function: Name of the function that is wanted of it.

    Example:
        >>> with put_off("wave", "open"):
        ...     from wave import open as later
        >>> later is __import__("wave").open
        False
    """
    if module in sys.modules:
        yield
        return
    placeholder = ModuleType(module)

    def later(*arguments: Any, **named: Any) -> Any:
        return getattr(importlib.import_module(module), function)(*arguments, **named)

    later.__name__ = function
    setattr(placeholder, function, later)
    sys.modules[module] = placeholder
    try:
        yield
    finally:
        if sys.modules.get(module) is placeholder:
            del sys.modules[module]


def work_alone() -> None:
    """Say that this process is the command line's own: it works alone unless a launcher started it as one of several.

    A library says no such thing of the process it is imported into.
    """
    global _alone
    _alone = "WORLD_SIZE" not in os.environ


def forget_other_processes() -> None:
    """Let transformers take torch as built without `torch.distributed`, where this process works alone.

    transformers asks once and keeps the answer; torch itself is left as it is. Does nothing in any other process, and
    nothing where transformers has asked before.
    """
    if not _alone:
        return
    import torch.distributed
    from transformers.utils.import_utils import is_torch_distributed_available

    told = torch.distributed.is_available
    torch.distributed.is_available = lambda: False
    try:
        is_torch_distributed_available()
    finally:
        torch.distributed.is_available = told


ARITHMETIC = {"div", "mul", "pow", "__rdiv__", "__rpow__", "__rtruediv__", "__truediv__"}
"""What rotary frequencies are made by."""


@contextmanager
def undrawn() -> Iterator[None]:
    """While it lasts, weights on the `meta` device, which have no values, are given none.

    torch works out what such a weight would be like, for a few functions by references in Python that import sympy;
    here the answer is plain, so it is given without them.

    Example:
        >>> import torch
        >>> with undrawn():
        ...     torch.nn.Linear(2, 2, device="meta").weight.device.type
        'meta'
    """
    import torch
    from torch.overrides import TorchFunctionMode

    def like(function: Any, arguments: Any, named: Any) -> Any:
        """Return what a call gives where that can be told without making it, else None."""
        if function is torch.arange and str(named.get("device")) == "meta":
            counted = function(*arguments, **{**named, "device": "cpu"})
            return torch.empty(counted.shape, dtype=counted.dtype, device="meta")
        first = named["tensor"] if "tensor" in named else next(iter(arguments), None)
        if not isinstance(first, torch.Tensor) or not first.is_meta:
            return None
        if getattr(function, "__module__", "") == "torch.nn.init":
            return first
        if function is torch.empty_like and first.is_contiguous() and set(named) <= {"dtype", "device"}:
            asked = {name: value for name, value in named.items() if value is not None}
            return torch.empty(first.shape, **{"dtype": first.dtype, "device": "meta", **asked})
        numbers = len(arguments) == 2 and not named and isinstance(arguments[1], int | float)
        if numbers and first.is_floating_point() and getattr(function, "__name__", "") in ARITHMETIC:
            return torch.empty(first.shape, dtype=first.dtype, device="meta")
        return None

    class Undrawn(TorchFunctionMode):
        def __torch_function__(self, function: Any, types: Any, arguments: Any = (), named: Any = None) -> Any:
            named = named or {}
            known = like(function, arguments, named)
            return function(*arguments, **named) if known is None else known

    with Undrawn():
        yield
