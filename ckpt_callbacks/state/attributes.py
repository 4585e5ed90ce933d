"""State that objects keep in plain attributes: counters, lists, averages, copies of a model. What changed is state.

What is the same as when training began is configuration, and belongs to the script: a patience that the user raised
before resuming stays raised. So nothing has to be known of any class, and nobody has to write a ``state_dict``.

A walk goes through attributes, lists, tuples and dicts, into objects of the user's own classes and into modules that no
module tree holds. It runs no code of theirs, but the ``state_dict`` of optimizers, schedulers and the like. Its ends
are plain values and tensors. Large tensors are compared by identity, by torch's own count of writes and by a sample, so
that a data set in an attribute costs nothing.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import io
import logging
import sys
import threading
import types
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ckpt_callbacks.errors import UnstorableError
from ckpt_callbacks.state import codecs
from ckpt_callbacks.state.tree import encode, to_json

__all__ = ["Attributes"]

MAX_OBJECTS = 20_000
"""How many objects a walk looks at."""

MAX_ITEMS = 10_000
"""How many items a container may hold, in all its depth, to be compared by content; beyond, by its items' identity."""

MAX_DEPTH = 20
"""How deep plain containers may lie in each other to count as one value."""

LARGE = 1 << 20
"""From how many bytes on a tensor is compared by a sample."""

# Trainers, loggers and the like have their own ways into a snapshot, or none.
_FRAMEWORKS = (
    *("torch", "torchmetrics", "torchvision", "torchaudio", "torchdata", "transformers", "timm", "ckpt_callbacks"),
    *("pytorch_lightning", "lightning", "lightning_fabric", "lightning_utilities", "keras", "tensorflow", "jax"),
)
_CODE = (
    *(types.FunctionType, types.MethodType, types.BuiltinFunctionType, types.BuiltinMethodType, types.ModuleType),
    *(functools.partial, type, np.ufunc),
    *(io.IOBase, logging.Logger, threading.Thread, type(threading.Lock()), weakref.ref),
)
_CONTAINERS = (list, tuple, dict, deque)
_NESTING = (*_CONTAINERS, set, frozenset)

Saved = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Cell:
    """One end of a walk: ``holder`` has ``value`` under ``key``."""

    path: str
    parent: str
    key: Any
    value: Any
    owned: bool  # whether what holds it is of a user's class


class Attributes:
    """Some objects, and what their attributes were when training began.

    Args:
        objects: the objects, by the names that their attributes shall be saved under.
        counts: whether an attribute of an object can be state: ``counts(object, name)``.
        elsewhere: gives what else is saved already: modules of the tree, their tensors, optimizers. Left alone.
    """

    def __init__(
        self,
        objects: Mapping[str, Any],
        counts: Callable[[Any, str], bool],
        elsewhere: Callable[[], list[Any]],
    ) -> None:
        self._objects, self._counts, self._elsewhere = dict(objects), counts, elsewhere
        walk = self._walk()
        self._began = {cell.path: _token(cell.value) for cell in walk.cells}
        self._same = {cell.path: _reference(cell.value) for cell in walk.cells}
        self._holders = set(walk.holders)

    def capture(self) -> tuple[Saved, dict[str, str]]:
        """What changed since, and what of it can't be stored or could not be put back -> why."""
        saved: Saved = []
        missing: dict[str, str] = {}
        for cell in self._walk().cells:
            if cell.owned and _is_iterator(cell.value):
                missing[cell.path] = "nobody can tell how far an iterator got: make it where it is used up"
                continue
            if self._began.get(cell.path) == _token(cell.value):
                continue
            if cell.parent not in self._holders:
                what = f"{cell.parent} was made while training: make it in __init__ or setup"
                missing |= {cell.parent: what} if cell.owned else {}
                continue
            value, why = _storable(cell.value)
            if why is not None:
                missing |= {cell.path: why} if cell.owned and _is_users(type(cell.value), None) else {}
                continue
            began = self._same.get(cell.path)
            fill = began is not None and began() is cell.value
            saved.append({"in": cell.parent, "key": cell.key, "value": value, "fill": fill})
        return saved, missing

    def put_back(self, saved: Saved) -> list[str]:
        """Set what `capture` found; give the paths of what has no place any more."""
        holders = self._walk().holders
        left = []
        for one in saved:
            holder = holders.get(one["in"])
            if holder is None or not _set(holder, one["key"], one["value"], fill=one["fill"]):
                left.append(f"{one['in']}.{one['key']}")
        return left

    def _walk(self) -> _Walk:
        return _Walk(self._objects, self._counts, self._elsewhere())


class _Walk:
    """One walk over some objects: ``cells`` are its ends, ``holders`` what has attributes or items, by path."""

    def __init__(self, objects: Mapping[str, Any], counts: Callable[[Any, str], bool], elsewhere: list[Any]) -> None:
        self.cells: list[_Cell] = []
        self.holders: dict[str, Any] = {}
        self._seen = {id(one) for one in [*objects.values(), *elsewhere]}
        self._queue: deque[tuple[str, Any, str | None]] = deque()
        for path, one in objects.items():
            self._queue.append((path, one, None if _package(type(one)) in _FRAMEWORKS else _package(type(one))))
        while self._queue and len(self._seen) < MAX_OBJECTS:
            path, holder, home = self._queue.popleft()
            self.holders[path] = holder
            for key, value in _children(holder):
                if type(holder) in _CONTAINERS or counts(holder, key):
                    self._visit(path, key, value, home)

    def _visit(self, parent: str, key: Any, value: Any, home: str | None) -> None:
        """Look at one value; ``home`` is the package of the user's object that it belongs to, if it is a user's."""
        if isinstance(value, _CODE) or self._is_elsewhere(value):
            return
        path = f"{parent}.{key}"
        if self._has_parts(value, home, 0):
            self._seen.add(id(value))
            users = type(value) in _CONTAINERS or _is_users(type(value), home)
            self._queue.append((path, value, home if users else None))
        elif _is_value(value) or home is not None:
            if type(value) in _CONTAINERS:
                self.holders[path] = value
            self.cells.append(_Cell(path, parent, key, value, home is not None))

    def _is_elsewhere(self, value: Any) -> bool:
        return not _is_immutable(value) and id(value) in self._seen

    def _has_parts(self, value: Any, home: str | None, depth: int) -> bool:
        """Whether to go on into a value: an object with attributes, or a container that holds such a thing."""
        if type(value) not in _CONTAINERS:
            return _is_walked(value, home)
        if depth > MAX_DEPTH or (depth == 0 and _is_bulky(value)):
            return depth > MAX_DEPTH
        return any(
            self._is_elsewhere(item) or _is_stateful(item) or self._has_parts(item, home, depth + 1)
            for item in _items(value)
        )


# What a value is -----------------------------------------------------------------------------------------------------


def _is_immutable(value: Any) -> bool:
    """Values that many attributes may share without being one."""
    return value is None or isinstance(value, bool | int | float | complex | str | bytes | enum.Enum)


def _package(kind: type) -> str:
    return kind.__module__.partition(".")[0]


def _is_users(kind: type, home: str | None) -> bool:
    """Whether a class is a user's own: of the package ``home``, or of a module that nobody installed."""
    return _package(kind) == home or _is_script(kind.__module__)


@functools.cache
def _is_script(module: str) -> bool:
    """Whether a module is neither a framework's nor Python's own nor installed."""
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    installed = "site-packages" in file or "dist-packages" in file
    return module.partition(".")[0] not in (*_FRAMEWORKS, *sys.stdlib_module_names) and not installed


def _is_iterator(value: Any) -> bool:
    return hasattr(type(value), "__next__") and not _is_walked(value, None)


def _is_module(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Module)


def _is_tensor(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return isinstance(value, np.ndarray) or (torch is not None and isinstance(value, torch.Tensor))


def _is_stateful(value: Any) -> bool:
    """Optimizers, schedulers, averages of other libraries: their own ``state_dict`` says what they are."""
    kind = type(value)
    if _is_module(value) or not (hasattr(kind, "state_dict") and hasattr(kind, "load_state_dict")):
        return False
    return not _is_users(kind, None) and (_package(kind) == "torch" or _package(kind) not in _FRAMEWORKS)


def _is_walked(value: Any, home: str | None) -> bool:
    """Whether a value's attributes are looked at: objects of users, and modules outside of any tree."""
    if _is_immutable(value) or _is_tensor(value) or type(value) in codecs.BY_TYPE or isinstance(value, _CODE):
        return False
    if type(getattr(value, "__dict__", None)) is not dict or isinstance(value, BaseException):
        return False
    return _is_module(value) or _is_users(type(value), home)


def _is_value(value: Any) -> bool:
    """What is worth comparing even in an object that is no user's."""
    if _is_immutable(value) or _is_tensor(value) or _is_stateful(value) or type(value) in codecs.BY_TYPE:
        return True
    return isinstance(value, (*_CONTAINERS, set, frozenset, bytearray, np.generic))


def _children(holder: Any) -> Iterator[tuple[Any, Any]]:
    if type(holder) is dict:
        yield from list(holder.items())
    elif type(holder) in _CONTAINERS:
        yield from enumerate(holder)
    else:
        yield from list(vars(holder).items())


def _items(container: Any) -> Any:
    return container.values() if type(container) is dict else container


def _is_bulky(container: Any) -> bool:
    """Whether a container holds more than ``MAX_ITEMS`` items, those of containers within it among them."""
    count, pending = 0, [container]
    while pending and count <= MAX_ITEMS:
        one = pending.pop()
        count += len(one)
        if count <= MAX_ITEMS:
            pending += [item for item in _items(one) if type(item) in _NESTING]
    return count > MAX_ITEMS


# Comparing and storing ------------------------------------------------------------------------------------------------


def _storable(value: Any) -> tuple[Any, str | None]:
    """What is stored for a value, and why it can't be."""
    value = {"state_dict": value.state_dict()} if _is_stateful(value) else _plain(value)
    try:
        encode(value, copy=False)
    except UnstorableError:
        return None, f"{type(value).__name__} can't be stored without pickle"
    return value, None


def _plain(value: Any) -> Any:
    """A value with the lists, dicts and sets that Keras follows (as it makes of a layer's attributes) as plain ones."""
    kind: Any = type(value)
    if kind not in _NESTING and isinstance(value, (list, dict, set)) and _package(kind) == "keras":
        if isinstance(value, dict):
            return {key: _plain(item) for key, item in value.items()}
        return [_plain(item) for item in value] if isinstance(value, list) else set(value)
    return value


def _token(value: Any) -> Any:
    """What tells whether a value changed: equal tokens, equal values."""
    if type(value) in _NESTING and _is_bulky(value):
        return type(value), id(value), len(value), hash(tuple(map(id, _items(value))))
    if _is_tensor(value) and _bytes(value) >= LARGE:
        flat = value.reshape(-1)[
            :: max(1, value.size // 1024 if isinstance(value, np.ndarray) else value.numel() // 1024)
        ]
        return id(value), getattr(value, "_version", None), _digest(flat)
    stored, why = _storable(value)
    return (type(value), id(value)) if why is not None else _digest(stored)


def _bytes(value: Any) -> int:
    return int(value.nbytes)


def _digest(value: Any) -> bytes:
    encoded = encode(value, copy=False)
    digest = hashlib.blake2b(to_json(encoded.structure), digest_size=16)
    for name in sorted(encoded.tensors):
        tensor = encoded.tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.data.tobytes())
    return digest.digest()


def _reference(value: Any) -> Callable[[], Any] | None:
    """A way to tell later whether a value is still the very same object; tensors are not kept alive for it."""
    if _is_immutable(value):
        return None
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


# Putting back ---------------------------------------------------------------------------------------------------------


def _set(holder: Any, key: Any, value: Any, *, fill: bool) -> bool:
    """Give ``holder`` its value back; tell whether it has a place for it."""
    if type(holder) is tuple or (type(holder) in (list, deque) and key > len(holder)):
        live = holder[key] if type(holder) is tuple and key < len(holder) else None
        return live is not None and _fill(live, value)
    items = holder if type(holder) in _CONTAINERS else vars(holder)
    if type(items) in (list, deque) and key == len(items):
        items.append(value)
        return True
    live = items[key] if type(items) in (list, deque) else items.get(key)
    if _is_stateful(live):
        live.load_state_dict(value["state_dict"])
    elif not ((fill or _is_parameter(live)) and _fill(live, value)):
        items[key] = _typed(value, live)
    return True


def _is_parameter(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.nn.Parameter)


def _fill(live: Any, value: Any) -> bool:
    """Write a value into the object that is there, which others may refer to; tell whether it could be."""
    if isinstance(live, np.ndarray):
        if not isinstance(value, np.ndarray) or live.shape != value.shape or live.dtype != value.dtype:
            return False
        live[...] = value
    elif _is_tensor(live):
        if not _is_tensor(value) or live.shape != value.shape or live.dtype != value.dtype:
            return False
        live.data.copy_(value)
    elif not isinstance(live, type(value)):
        return False
    elif isinstance(live, list):
        live[:] = value
    elif isinstance(live, (dict, set, deque)):
        live.clear()
        live.extend(value) if isinstance(live, deque) else live.update(value)
    else:
        return False
    return True


def _typed(value: Any, live: Any) -> Any:
    """A value with what the live one lends it: its device, and the type of an enum's member or a named tuple."""
    if isinstance(live, enum.Enum):
        return type(live)(value)
    if isinstance(live, tuple) and hasattr(type(live), "_fields"):
        return type(live)(*value)
    if _is_tensor(live) and hasattr(live, "device") and hasattr(value, "to"):
        return value.to(live.device)
    return value
