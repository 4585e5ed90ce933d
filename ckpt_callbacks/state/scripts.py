"""The user's own code: modules that are neither Python's nor installed."""

from __future__ import annotations

import dis
import functools
import inspect
import sys
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["assigned_by", "codes_of", "is_script", "mentions", "namespaces"]


@functools.cache
def is_script(module: str) -> bool:
    """Whether a module, by its name, is neither Python's own nor installed, nor this package."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return module.partition(".")[0] not in ("ckpt_callbacks", *sys.stdlib_module_names) and not installed


def namespaces() -> dict[str, dict[str, Any]]:
    """The global names of every such module that is loaded; those of a notebook's cells are in ``__main__``."""
    return {name: vars(sys.modules[name]) for name in _loaded(len(sys.modules)) if name in sys.modules}


@functools.lru_cache(1)
def _loaded(count: int) -> tuple[str, ...]:
    """Their names; looked for again when modules were loaded meanwhile."""
    return tuple(
        name
        for name, module in list(sys.modules.items())
        if (name == "__main__" or getattr(module, "__file__", None)) and is_script(name) and hasattr(module, "__dict__")
    )


@functools.cache
def assigned_by(kind: type) -> frozenset[str]:
    """The names of the attributes that the code of a class assigns to, whatever object they are of."""
    steps = [step for code in codes_of(kind) for step in dis.get_instructions(code)]
    return frozenset(step.argval for step in steps if step.opname == "STORE_ATTR")


def codes_of(kind: type) -> Iterator[types.CodeType]:
    """The code of the methods and properties that a class itself defines."""
    return (function.__code__ for function in _functions_of(kind, ("fset", "__func__")))


def _functions_of(kind: type, within: tuple[str, ...] = ("fget", "fset", "__func__")) -> Iterator[types.FunctionType]:
    for value in vars(kind).values():
        for function in (value, *(getattr(value, name, None) for name in within)):
            unwrapped = inspect.unwrap(function) if callable(function) else None
            if isinstance(unwrapped, types.FunctionType):
                yield unwrapped


@functools.cache
def mentions(kind: type, names: frozenset[str], trusted: tuple[str, ...] = ()) -> bool:
    """Whether the code of a class, or of the functions and classes that it names, has an attribute or global so called.

    Args:
        kind: the class.
        names: what is looked for.
        trusted: packages that are not looked into.
    """
    pending = list(_functions_of(kind))
    seen: set[types.CodeType] = set()
    while pending:
        function = pending.pop()
        codes = [function.__code__]
        while codes:
            code = codes.pop()
            if code in seen:
                continue
            seen.add(code)
            if not names.isdisjoint(code.co_names):
                return True
            codes += [inner for inner in code.co_consts if isinstance(inner, types.CodeType)]
            pending += _named_by(code, function.__globals__, trusted)
    return False


def _named_by(code: types.CodeType, space: dict[str, Any], trusted: tuple[str, ...]) -> Iterator[types.FunctionType]:
    """The functions that some code names, and those of classes that it names, be it by way of a module."""
    named = [space[name] for name in code.co_names if name in space]
    modules = [one for one in named if isinstance(one, types.ModuleType) and not _is_trusted(one.__name__, trusted)]
    named += [vars(module)[name] for module in modules for name in code.co_names if name in vars(module)]
    for one in named:
        if isinstance(one, types.FunctionType | type) and not _is_trusted(one.__module__ or "", trusted):
            yield from _functions_of(one) if isinstance(one, type) else (one,)


def _is_trusted(module: str, trusted: tuple[str, ...]) -> bool:
    return module.partition(".")[0] in (*trusted, *sys.stdlib_module_names)
