"""The user's own code: modules that are neither Python's nor installed."""

from __future__ import annotations

import dis
import functools
import inspect
import re
import sys
import types
from collections import defaultdict
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
    return (function.__code__ for _, function in _functions_of(kind, ("fset", "__func__")))


def _functions_of(
    kind: type, within: tuple[str, ...] = ("fget", "fset", "__func__")
) -> Iterator[tuple[str, types.FunctionType]]:
    """The functions of the methods and properties that a class itself defines, each under its name in the class."""
    for name, value in vars(kind).items():
        for function in (value, *(getattr(value, one, None) for one in within)):
            unwrapped = inspect.unwrap(function) if callable(function) else None
            if isinstance(unwrapped, types.FunctionType):
                yield name, unwrapped


@functools.lru_cache(256)
def mentions(
    code: tuple[type | types.FunctionType, ...],
    names: frozenset[str],
    trusted: tuple[str, ...] = (),
    runs: re.Pattern[str] | None = None,
) -> bool:
    """Whether some code, or the functions and classes that it names, has an attribute or global so called.

    An attribute of ``self`` does not count: it is the user's own, and if it is a method, that is looked at.

    Args:
        code: classes and functions.
        names: what is looked for.
        trusted: packages that are not looked into.
        runs: matches the names of methods that are called; others are looked at only if these name them. All are
            called without it.
    """
    methods: defaultdict[str, list[types.FunctionType]] = defaultdict(list)
    for kind in code:
        for name, function in _functions_of(kind) if isinstance(kind, type) else ():
            methods[name].append(function)
    pending = [one for one in code if isinstance(one, types.FunctionType)]
    pending += [one for name in methods if runs is None or runs.fullmatch(name) for one in methods[name]]
    seen: set[types.CodeType] = set()
    while pending:
        function = pending.pop()
        for part in _parts_of(function.__code__):
            if part in seen:
                continue
            seen.add(part)
            if not names.isdisjoint(part.co_names) and _says(part, names):
                return True
            pending += [one for name in part.co_names for one in methods.get(name, ())]
            pending += _named_by(part, function.__globals__, trusted)
    return False


def _parts_of(code: types.CodeType) -> Iterator[types.CodeType]:
    """Some code, and that of the functions and comprehensions within."""
    yield code
    for inner in code.co_consts:
        if isinstance(inner, types.CodeType):
            yield from _parts_of(inner)


def _says(code: types.CodeType, names: frozenset[str]) -> bool:
    """Whether one of the names is used otherwise than as an attribute of ``self``."""
    before = None
    for step in dis.get_instructions(code):
        own = before is not None and before.opname.startswith(("LOAD_FAST", "LOAD_DEREF")) and before.argval == "self"
        if step.argval in names and not (own and step.opname in ("LOAD_ATTR", "LOAD_METHOD", "STORE_ATTR")):
            return True
        before = step
    return False


def _named_by(code: types.CodeType, space: dict[str, Any], trusted: tuple[str, ...]) -> Iterator[types.FunctionType]:
    """The functions that some code names, and those of classes that it names, be it by way of a module."""
    named = [space[name] for name in code.co_names if name in space]
    modules = [one for one in named if isinstance(one, types.ModuleType) and not _is_trusted(one.__name__, trusted)]
    named += [vars(module)[name] for module in modules for name in code.co_names if name in vars(module)]
    for one in named:
        if isinstance(one, types.FunctionType | type) and not _is_trusted(one.__module__ or "", trusted):
            yield from (function for _, function in _functions_of(one)) if isinstance(one, type) else (one,)


def _is_trusted(module: str, trusted: tuple[str, ...]) -> bool:
    return module.partition(".")[0] in (*trusted, *sys.stdlib_module_names)
