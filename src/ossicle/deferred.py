"""transformers is imported with less work: one import is put off, and its folder of models is read once, not twice.

    transformers' models ──► its losses for object detection ──► scipy.optimize, for one function
    transformers ──► what its 1,600 model files export, kept by folder; transformers.models ──► the same again

Each is a tenth of what a cold `ossicle ask` waits for. While the losses are imported, a placeholder stands in scipy's
place; the function they take from it imports the real one when it is called. Whoever imports scipy afterwards gets
scipy. What a folder exports is kept for fewer folders than there are; here it is kept for all. Imported for its effect,
before transformers is.

Source: our choice.
"""

from __future__ import annotations

import functools
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


@contextmanager
def kept_whole(function: str) -> Iterator[None]:
    """While it lasts, a function of that name that asks for a cache of the usual size gets one without a limit.

    Args:
        function: Name of the function; others get the cache they ask for.

    Example:
        >>> with kept_whole("twice"):
        ...     @functools.lru_cache
        ...     def twice(number):
        ...         return 2 * number
        >>> twice.cache_parameters()["maxsize"] is None
        True
    """
    usual = functools.lru_cache

    def lru_cache(maxsize: Any = 128, typed: bool = False) -> Any:
        if getattr(maxsize, "__name__", "") == function:
            return usual(maxsize=None, typed=typed)(maxsize)
        return usual(maxsize, typed)

    functools.lru_cache = lru_cache  # type: ignore[assignment]
    try:
        yield
    finally:
        functools.lru_cache = usual


with kept_whole("create_import_structure_from_path"), put_off("scipy.optimize", "linear_sum_assignment"):
    importlib.import_module("transformers.loss.loss_utils")
