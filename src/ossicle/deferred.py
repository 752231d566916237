"""An import that others make and nobody here uses is put off until somebody does.

    transformers' models ──► its losses for object detection ──► scipy.optimize, for one function

That chain is a tenth of what a cold `ossicle ask` waits for. While the losses are imported, a placeholder stands in
scipy's place; the function they take from it imports the real one when it is called. Whoever imports scipy afterwards
gets scipy. Imported for its effect, before transformers' models are.

Source: our choice.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any


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


with put_off("scipy.optimize", "linear_sum_assignment"):
    importlib.import_module("transformers.loss.loss_utils")
