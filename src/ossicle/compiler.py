"""torch's compiler comes when it is used; being marked for it is no use.

    @torch.compiler.disable ──► noted ──► the compiler is imported ──► the mark is made

transformers marks a few functions for `torch.compile`, and each mark imports the whole compiler: a second, for a
process that compiles nothing. While `marks_noted` lasts, a stand-in for `torch._dynamo` takes down what is marked and
hands back the function; asked for anything else, it gives way to the compiler. When the compiler is imported, by
whomever, it is told.

Source: our choice; what each mark means is in `torch.compiler`.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

import torch

COMPILER = "torch._dynamo"


@contextmanager
def marks_noted() -> Iterator[None]:
    """While it lasts, functions are marked for the compiler without importing it.

    A compiler that is imported already is left alone.

    Example:
        >>> with marks_noted():
        ...     quick = torch.compiler.disable(abs)
        >>> quick(-1)
        1
    """
    spec = None if COMPILER in sys.modules else importlib.util.find_spec(COMPILER)
    if spec is None:
        yield
        return
    notes = _Notes(spec)
    sys.meta_path.insert(0, _Awaiting(notes))
    sys.modules[COMPILER] = torch._dynamo = notes
    try:
        yield
    finally:
        notes.give_way()


class _Notes(ModuleType):
    """Stands in for the compiler's package; its modules can be imported, and asking it for more imports the whole."""

    def __init__(self, spec: ModuleSpec) -> None:
        super().__init__(COMPILER)
        self.__spec__ = spec
        self.__path__ = list(spec.submodule_search_locations or ())
        self.marks: list[Callable[[Any], Any]] = []

    def allow_in_graph(self, function: Any) -> Any:
        return self._mark("allow_in_graph", function)

    def assume_constant_result(self, function: Any) -> Any:
        return self._mark("assume_constant_result", function)

    def disable(self, function: Any = None, recursive: bool = True, **named: Any) -> Any:
        """Return a function that is never compiled, as the compiler's own `disable` does, without importing it."""
        if function is None:
            return lambda marked: self.disable(marked, recursive, **named)
        if not self.stands() or isinstance(function, type):
            return self._compiler().disable(function, recursive, **named)
        runs = [function]

        @functools.wraps(function)
        def uncompiled(*arguments: Any, **keywords: Any) -> Any:
            return runs[0](*arguments, **keywords)

        def mark(compiler: Any) -> None:
            runs[0] = compiler.disable(function, recursive, **named)

        self.marks.append(mark)
        return uncompiled

    def _mark(self, mark: str, function: Any) -> Any:
        if not self.stands():
            return getattr(self._compiler(), mark)(function)
        self.marks.append(lambda compiler: getattr(compiler, mark)(function))
        return function

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or (self.stands() and importlib.util.find_spec(f"{COMPILER}.{name}")):
            raise AttributeError(name)  # a module of the package is imported by whoever asks for it
        return getattr(self._compiler(), name)

    def stands(self) -> bool:
        """Whether the compiler has not come yet, and is not to come by itself."""
        return sys.modules.get(COMPILER) is self

    def _compiler(self) -> ModuleType:
        self.give_way()
        return importlib.import_module(COMPILER)

    def give_way(self) -> None:
        """Leave the compiler's place; torch imports it on its own when it is asked for it."""
        if self.stands():
            del sys.modules[COMPILER]
        if vars(torch).get("_dynamo") is self:
            del torch._dynamo


class _Awaiting(MetaPathFinder):
    """Waits for the compiler to be imported, and then makes the marks that were noted."""

    def __init__(self, notes: _Notes) -> None:
        self.notes = notes

    def find_spec(self, name: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        """Return the compiler's spec, so that the notes are made as marks once it is loaded; None for other modules."""
        if name != COMPILER:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                vars(module).update(self._modules())
                run(module)
                for mark in self.notes.marks:
                    mark(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec

    def _modules(self) -> dict[str, ModuleType]:
        """Return the package's modules that were imported while the notes stood for it."""
        inside = f"{COMPILER}."
        return {
            name.removeprefix(inside): module
            for name, module in sys.modules.items()
            if name.startswith(inside) and "." not in name.removeprefix(inside)
        }
