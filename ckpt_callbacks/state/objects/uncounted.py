"""Changes of torch's tensors that its count of changes does not tell of: by ``.data``, or a numpy array over them."""

from __future__ import annotations

import functools
import re
import sys
import types
from collections.abc import Iterable, Iterator
from typing import Any

from ckpt_callbacks.state.objects.scripts import mentions

__all__ = ["WORTH_WAITING", "held_by", "is_countable", "is_trusted", "may_go_uncounted"]

WORTH_WAITING = 1 << 18
"""Below that many bytes a tensor is copied sooner than noted."""

# What code must say to reach the memory of a tensor, or to give that memory away.
_BEHIND = frozenset(
    {
        *("data", "data_ptr", "storage", "untyped_storage", "numpy", "__array__", "frombuffer", "set_", "resize_"),
        *("from_dlpack", "to_dlpack", "__dlpack__", "swap_tensors", "convert_to_numpy"),
        *("share_memory", "share_memory_", "multiprocessing"),
    }
)
_HARMLESS = ("builtins", "abc", "typing", "collections", "functools", "enum")


def may_go_uncounted(actors: Iterable[Any], runs: re.Pattern[str], trusted: tuple[str, ...]) -> bool:
    """Whether the code of these objects and functions, or of what they hold, may change tensors so.

    Args:
        actors: whose code runs meanwhile.
        runs: matches the names of the methods that run; others do if one of these names them.
        trusted: packages whose code is known.
    """
    code: dict[Any, None] = {}
    for actor in actors:
        for one in (actor, *held_by(actor, trusted)):
            code |= dict.fromkeys(_code_of(one, trusted))
    return mentions(tuple(code), _BEHIND, trusted, runs)


def held_by(actor: Any, trusted: tuple[str, ...]) -> Iterator[Any]:
    """The values of a user's object, and those within its lists and dicts."""
    if is_trusted(type(actor), trusted):
        return
    for value in getattr(actor, "__dict__", {}).values():
        yield from value if type(value) in (list, tuple) else value.values() if type(value) is dict else (value,)


def is_trusted(code: Any, trusted: tuple[str, ...]) -> bool:
    """Whether a class or function is Python's own or of these packages."""
    return (code.__module__ or "").partition(".")[0] in (*trusted, *_HARMLESS)


def is_countable(value: Any) -> bool:
    """Whether it is a tensor of torch's in our own memory or on a GPU, whose changes are counted, and worth it."""
    torch = sys.modules["torch"]
    return (
        type(value) in (torch.Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.nbytes >= WORTH_WAITING
        and not value.is_inference()
        and (value.is_cuda or (value.is_cpu and not value.is_shared()))  # torch calls every one on a GPU shared
    )


def _code_of(one: Any, trusted: tuple[str, ...]) -> Iterator[Any]:
    """The classes and functions that hold an object's code, as far as they are the user's. A data set has no model."""
    if isinstance(one, functools.partial):
        yield from _code_of(one.func, trusted)
    elif isinstance(one, types.MethodType):
        yield from (*_code_of(one.__func__, trusted), *_code_of(one.__self__, trusted))
    elif isinstance(one, types.FunctionType):
        yield from () if is_trusted(one, trusted) else (one,)
    elif not isinstance(one, _data_sets()):
        yield from (kind for kind in type(one).__mro__ if not is_trusted(kind, trusted))


def _data_sets() -> tuple[type, ...]:
    data = sys.modules["torch"].utils.data
    return data.Dataset, data.DataLoader
