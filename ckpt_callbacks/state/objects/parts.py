"""The parts that an object or a container has: read, set and filled without running any code of its class."""

from __future__ import annotations

import enum
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ckpt_callbacks.state.objects.kinds import base_of, fields_of, is_tensor, slots_of
from ckpt_callbacks.state.tree.decoding import member_of

__all__ = [
    "Cells",
    "Fields",
    "Items",
    "Parts",
    "content_of",
    "device_of",
    "fill",
    "items_of",
    "moved",
    "replaced",
    "typed",
]

_DICTS, _LISTS = (dict, OrderedDict), (list, deque)


class Fields:
    """The attributes of an object, those in slots among them."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        yield from list((fields_of(self.of) or {}).items())
        for name, slot in slots_of(self.of).items():
            try:
                yield name, slot.__get__(self.of, type(self.of))
            except AttributeError:
                continue  # it has no value yet

    def get(self, name: Any) -> Any:
        """The attribute's value, None if it has none."""
        return next((value for key, value in self if key == name), None)

    def set(self, name: Any, value: Any) -> bool:
        """Give an attribute a value; tell whether there is a place for it."""
        slot, fields = slots_of(self.of).get(name), fields_of(self.of)
        if slot is not None:
            slot.__set__(self.of, value)
        elif fields is not None:
            fields[name] = value
        return slot is not None or fields is not None

    def keys(self) -> None:
        """Nothing: an attribute that comes or goes is a matter of its own."""

    def keep(self, keys: Any) -> None:
        """Nothing, see `keys`."""


class Items:
    """The items of a container, by the methods of the builtin class that it is or derives from."""

    def __init__(self, of: Any) -> None:
        self.of, self.base = of, base_of(of)

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        content = content_of(self.of)
        return iter(list(content.items() if self.base in _DICTS else enumerate(content)))

    def get(self, key: Any) -> Any:
        """The item there, None if there is none."""
        if self.base in _DICTS:
            return dict.get(self.of, key)
        return self.base.__getitem__(self.of, key) if key < self.base.__len__(self.of) else None

    def set(self, key: Any, value: Any) -> bool:
        """Put an item there, or at the end of a list; tell whether there is a place for it."""
        if self.base in _LISTS and key == self.base.__len__(self.of):
            self.base.append(self.of, value)
            return True
        if self.base is tuple or (self.base in _LISTS and key > self.base.__len__(self.of)):
            return False
        self.base.__setitem__(self.of, key, value)
        return True

    def keys(self) -> Any:
        """What of a container is not in its items: the order of its keys, or how many there are."""
        return list(content_of(self.of)) if self.base in _DICTS else self.base.__len__(self.of)

    def keep(self, keys: Any) -> None:
        """Drop what is not among ``keys``, and bring the rest into their order."""
        if self.base in _DICTS:
            content = content_of(self.of)
            self.base.clear(self.of)
            for key in [key for key in keys if key in content]:
                self.base.__setitem__(self.of, key, content[key])
        elif self.base in _LISTS:
            while self.base.__len__(self.of) > keys:
                self.base.pop(self.of)


class Cells:
    """The variables of an enclosing function that a function refers to."""

    def __init__(self, of: Any) -> None:
        self.of = of

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for name, cell in self._cells().items():
            try:
                yield name, cell.cell_contents
            except ValueError:
                continue  # it has no value yet

    def get(self, name: Any) -> Any:
        """The variable's value, None if it has none."""
        return next((value for key, value in self if key == name), None)

    def set(self, name: Any, value: Any) -> bool:
        """Give a variable a value; tell whether there is one of that name."""
        cell = self._cells().get(name)
        if cell is not None:
            cell.cell_contents = value
        return cell is not None

    def keys(self) -> None:
        """Nothing: its variables are those of its code."""

    def keep(self, keys: Any) -> None:
        """Nothing, see `keys`."""

    def _cells(self) -> dict[str, Any]:
        return dict(zip(self.of.__code__.co_freevars, self.of.__closure__ or (), strict=True))


Parts = Fields | Items | Cells


def items_of(container: Any) -> Any:
    """A container's items, without the keys of a dict."""
    base: Any = base_of(container)
    return base.values(container) if base in _DICTS else base.__iter__(container)


def content_of(container: Any) -> Any:
    """A copy of a container in the builtin class that it is or derives from."""
    base: Any = base_of(container)
    if base in _DICTS:
        return {key: dict.__getitem__(container, key) for key in base.__iter__(container)}
    plain: Any = list if base is deque else base
    return plain(base.__iter__(container))


def fill(live: Any, value: Any) -> bool:
    """Write a value into the object that is there, which others may refer to; tell whether it could be."""
    if is_tensor(live):
        return _fill_tensor(live, value)
    base: Any = base_of(live)
    if base in (None, tuple, frozenset) or not (
        isinstance(live, type(value)) or (base is deque and type(value) is list)
    ):
        return False
    base.clear(live)
    if base in _DICTS:
        for key, item in value.items():
            base.__setitem__(live, key, item)
    else:
        (base.update if base is set else base.extend)(live, value)
    return True


def _fill_tensor(live: Any, value: Any) -> bool:
    array = isinstance(live, np.ndarray)
    if not is_tensor(value) or isinstance(value, np.ndarray) != array:
        return False
    if live.shape != value.shape or live.dtype != value.dtype:
        return False
    if array:
        live[...] = value
    else:
        live.data.copy_(value)
    return True


def typed(value: Any, live: Any) -> Any:
    """A value with what the live one lends it: its device, and the type of an enum's member or a named tuple."""
    if isinstance(live, enum.Enum):
        return value if isinstance(value, enum.Enum) else member_of(type(live), None, value)
    if isinstance(live, tuple) and hasattr(type(live), "_fields") and isinstance(value, tuple):
        return tuple.__new__(type(live), value)
    if is_tensor(live) and hasattr(live, "device") and hasattr(value, "to"):
        return value.to(live.device)
    return value


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """What ``change`` makes of a value, after the same was done to its parts; what stays as it is is not copied."""
    kind: Any = type(value)
    if kind in (dict, OrderedDict, defaultdict, Counter):
        pairs = [(key, replaced(key, change), item, replaced(item, change)) for key, item in value.items()]
        if any(key is not new_key or item is not new for key, new_key, item, new in pairs):
            new = kind(value.default_factory) if kind is defaultdict else kind()
            new.update({new_key: new for _, new_key, _, new in pairs})
            return new
    elif kind in (list, deque, set, frozenset) or issubclass(kind, tuple):
        items = [replaced(item, change) for item in value]
        if any(item is not new for item, new in zip(value, items, strict=True)):
            value = _rebuilt(value, items)
    return change(value)


def _rebuilt(value: Any, items: list[Any]) -> Any:
    kind: Any = type(value)
    if kind is deque:
        return deque(items, value.maxlen)
    return tuple.__new__(kind, items) if issubclass(kind, tuple) else kind(items)


def device_of(value: Any) -> str | None:
    """The device of the tensors in a value, which come back on the CPU; None if they are there, or on several."""
    devices: set[str] = set()

    def note(part: Any) -> Any:
        if is_tensor(part) and not isinstance(part, np.ndarray):
            devices.add(str(part.device))
        return part

    replaced(value, note)
    return None if len(devices) != 1 or devices == {"cpu"} else devices.pop()


def moved(value: Any, device: str) -> Any:
    """A value with its tensors on a device."""
    return replaced(value, lambda part: part.to(device) if is_tensor(part) and hasattr(part, "to") else part)
