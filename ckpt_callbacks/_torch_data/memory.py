"""What objects remember from batch to batch and from epoch to epoch, as far as their attributes show it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

from ckpt_callbacks.state import encode, random_state

__all__ = ["Memory", "changed", "held", "iterators", "put_back", "values"]

PLAIN = (bool, int, float, str, type(None))

MAX_ITEMS = 4096
"""How many plain items an attribute may hold to count as plain."""

MAX_BYTES = 1 << 20
"""How large a tensor or array may be to count as plain."""

FRAMEWORKS = ("pytorch_lightning", "lightning", "lightning_fabric", "keras", "tensorflow")

Values = dict[str, Any]


# Plain attributes ----------------------------------------------------------------------------------------------------


def values(root: object) -> Values:
    """The plain attributes of ``root`` and what it holds, by their paths: a flag, a count, a list of such, an array."""
    return {path: _copy(vars(holder)[name]) for path, holder, name in _attributes(root)}


def changed(root: object, before: Mapping[str, Any]) -> Values:
    """The plain attributes that are not what they were: state, where the others are configuration."""
    return {
        path: value
        for path, value in values(root).items()
        if path not in before
        or type(value) is not type(before[path])
        or _comparable(value) != _comparable(before[path])
    }


def put_back(root: object, saved: Mapping[str, Any]) -> None:
    """Set the attributes that ``changed`` found; one whose holder is gone is left out."""
    for path, holder in list(_holders(root)):
        for name in [name for name in saved if name.rpartition(".")[0] == path]:
            _set(vars(holder), name.rpartition(".")[2], saved[name])


def _set(attributes: dict[str, Any], name: str, value: Any) -> None:
    """Set an attribute; an array in its place, for others may hold the same one."""
    live: Any = attributes.get(name)
    alike = _is_array(live) and type(live) is type(value) and live.shape == value.shape and live.dtype == value.dtype
    if alike and isinstance(live, torch.Tensor):
        live.data.copy_(value)
    elif alike and isinstance(live, np.ndarray) and live.flags.writeable:
        live[...] = value
    else:
        attributes[name] = _copy(value)


def _copy(value: Any) -> Any:
    return value.detach().clone() if isinstance(value, torch.Tensor) else copy.copy(value)


def _is_array(value: Any) -> bool:
    return isinstance(value, torch.Tensor | np.ndarray)


def _comparable(value: Any) -> Any:
    """Something in an array's place that can be compared with ``==``."""
    if not _is_array(value):
        return value
    stored = encode(value, copy=False).tensors.values()
    return str(value.dtype), tuple(value.shape), b"".join(one.data.tobytes() for one in stored)


def _attributes(root: object) -> Iterator[tuple[str, Any, str]]:
    for path, holder in _holders(root):
        for name in [name for name, value in vars(holder).items() if _is_plain(value)]:
            yield f"{path}.{name}".removeprefix("."), holder, name


def _is_plain(value: Any) -> bool:
    """A number, a text, a small array, or a list, set or dict of numbers and texts."""
    if type(value) in (torch.Tensor, np.ndarray):
        return bool(value.dtype != object and value.nbytes <= MAX_BYTES)
    if type(value) in (list, set):
        return len(value) <= MAX_ITEMS and all(type(item) in PLAIN for item in value)
    if type(value) is dict:
        return len(value) <= MAX_ITEMS and all(type(item) in PLAIN for pair in value.items() for item in pair)
    return type(value) in PLAIN


def held(root: object) -> Iterator[tuple[str, Any]]:
    """``root`` and what it holds, by path, less what has its own way into a snapshot."""
    return random_state.walk(root, _stop)


def iterators(root: object) -> dict[str, Any]:
    """The iterators of Python's own, generators among them, that ``root`` holds: none tells how far it got."""
    return {path: value for path, value in held(root) if hasattr(type(value), "__next__") and _is_pythons(type(value))}


def _is_pythons(kind: type) -> bool:
    return kind.__module__ in ("builtins", "itertools")


def _holders(root: object) -> Iterator[tuple[str, Any]]:
    for path, value in held(root):
        if type(getattr(value, "__dict__", None)) is dict:
            yield path, value


def _stop(value: Any) -> bool:
    """Modules, trainers and the like have their own ways into a snapshot; data may well refer to them."""
    kind: Any = type(value)
    return isinstance(value, torch.nn.Module) or _of_framework(kind)


@functools.cache
def _of_framework(kind: Any) -> bool:
    return any(base.__module__.partition(".")[0] in FRAMEWORKS for base in kind.__mro__)


# Whether a data set remembers ----------------------------------------------------------------------------------------


class Memory:
    """Looks whether something changes while it is used: a data set that does must see every batch again.

    It looks after 1, 2, 4, 8... uses, and whenever it is asked. What the first use changes doesn't count: many open
    their files then. Nor do new items of a dict, or items in a list that were None, as long as no use was seen to draw
    random numbers: that is a cache of what would be loaded alike again. A change inside a large array is not seen.

    Args:
        root: the data set.
        plain: whether a changed plain attribute counts; not where ``values`` are put back anyway.

    Attributes:
        remembers: whether a change was seen.
        draws: whether a use that was looked after drew random numbers; to be set by who uses it.
    """

    def __init__(self, root: object, plain: bool) -> None:
        self.remembers = self.draws = False
        self._root, self._plain, self._uses = root, plain, 0
        self._before: Any = None

    def used(self) -> bool:
        """Note a use; tell whether it was one to look after."""
        self._uses += 1
        if self._uses & (self._uses - 1):
            return False
        if self._uses == 1:
            self._before = self._outline()
        self.look()
        return True

    def look(self) -> bool:
        """Whether it changed by now."""
        self.remembers = self.remembers or (self._uses > 1 and self._differs(self._outline()))
        return self.remembers

    @property
    def looks_next(self) -> bool:
        """Whether the next use will be one to look after; not the first, in which samplers draw their order."""
        return self._uses > 0 and self._uses & (self._uses + 1) == 0

    def _differs(self, now: dict[str, Any]) -> bool:
        before = self._before
        if self.draws or now["plain"] != before["plain"]:
            return bool(now != before)
        return any(not _is_grown(token, now["tokens"].get(path)) for path, token in before["tokens"].items())

    def _outline(self) -> dict[str, Any]:
        """What lies where; generators count by their presence, for their states are kept elsewhere."""
        plain = {path: value for path, value in values(self._root).items() if value is not None}
        walked = ((path, value) for path, value in held(self._root) if path not in plain)
        tokens = {path: _token(value) for path, value in walked if not random_state.is_generator(value)}
        contents = {path: _comparable(value) for path, value in plain.items()} if self._plain else None
        return {"tokens": tokens, "plain": contents}


def _is_grown(before: Any, now: Any) -> bool:
    """Whether a token is the same, or that of a dict with more items."""
    if before == now or now is None:
        return bool(before == now)
    kind, size, marks = before
    return bool(kind is dict and now[0] is dict and now[1] >= size and now[2] == marks)


def _token(value: Any) -> Any:
    size = len(value) if type(value) in (list, tuple, dict, set) else None
    own = getattr(value, "__dict__", None)
    marks = {name: mark for name, item in own.items() if (mark := _mark(item))} if type(own) is dict else None
    return type(value), size, marks


def _mark(value: Any) -> Any:
    """What shows that an attribute was bound to something else, or a tensor written to."""
    if _is_plain(value) or random_state.is_generator(value):
        return None
    if isinstance(value, torch.Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray):
        return id(value)
    return type(value)
