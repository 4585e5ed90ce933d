"""What objects remember from batch to batch and from epoch to epoch, as far as their attributes show it."""

from __future__ import annotations

import copy
import datetime
import dis
import functools
import operator
import pathlib
import uuid
from collections import OrderedDict
from collections.abc import Collection, Iterator, Mapping
from itertools import islice, repeat
from typing import Any

import numpy as np
import torch

from ckpt_callbacks.messages import warn
from ckpt_callbacks.state import random_state
from ckpt_callbacks.state.objects.kinds import base_of
from ckpt_callbacks.state.objects.parts import content_of, fill, items_of
from ckpt_callbacks.state.objects.scripts import codes_of, is_script
from ckpt_callbacks.state.objects.tokens import is_bulky, leaf_types, quick, storable

__all__ = ["Memory", "Was", "changed", "held", "iterators", "outline", "put_back", "sets_attributes", "values"]

PLAIN = (bool, int, float, complex, str, bytes, type(None))
ARRAYS = (torch.Tensor, np.ndarray, np.generic)

LEAVES = (tuple, range, slice, pathlib.PurePath, datetime.date, datetime.time, datetime.timedelta, uuid.UUID)
"""What else data are made of; all of it can be stored."""

LARGEST = 256 << 20
"""The most bytes of an attribute of data that a snapshot takes."""

FRAMEWORKS = ("pytorch_lightning", "lightning", "lightning_fabric", "keras", "tensorflow")

Values = dict[str, Any]
"""Path -> ``{"value": ...}``, or ``{"picked": ...}``: which of a list's first items it has now, in what order."""


# Attributes ----------------------------------------------------------------------------------------------------------


class Was:
    """An attribute as it was when it was looked at first: enough to tell what became of it.

    Args:
        value: a number, a text, an array, a container of such, or a list of anything: then its order is looked at.
    """

    def __init__(self, value: Any) -> None:
        constant = type(value) is list and _is_of_constants(value)
        self.is_data = constant or _is_data(value)
        self._is_order = type(value) is list and (constant or not self.is_data)
        self._token = None if self._is_order else quick(value)
        self._size = len(value) if base_of(value) is not None else 0
        self._items = list(value) if type(value) is list else []  # as long as these live, their ids are theirs alone
        has_gaps = any(map(operator.is_, self._items, repeat(None)))
        self._gaps = [index for index, item in enumerate(self._items) if item is None] if has_gaps else []

    def differs(self, value: Any) -> bool:
        """Whether the value is another one now; of a list of objects, or of what can't change, whether its order is."""
        if self._is_order:
            same = type(value) is list and len(value) == self._size and all(map(operator.is_, value, self._items))
            return not same
        return bool(quick(value) != self._token)

    def grew(self, value: Any) -> bool:
        """Whether a dict only got more items, or a list had items put where it had None: so a cache is filled."""
        if type(value) in (dict, OrderedDict) and len(value) > self._size:
            return not self.differs(type(value)(islice(value.items(), self._size)))
        if type(value) is list and self._gaps and len(value) == self._size:
            emptied = list(value)
            for gap in self._gaps:
                emptied[gap] = None
            return not self.differs(emptied)
        return False

    def state(self, value: Any) -> dict[str, Any] | None:
        """How the value is saved; None if it can't be. A list of its own first items is told by these: data sets are
        shuffled so."""
        if self._is_order and self._items and type(value) is list:
            picked = list(map(self._places.get, map(id, value)))
            if None not in picked:
                return {"picked": np.array(picked, np.int64)}
        return {"value": _copy(value)} if _is_data(value) else None

    @functools.cached_property
    def _places(self) -> dict[int, int]:
        return {id(item): index for index, item in enumerate(self._items)}

    def back(self, saved: Mapping[str, Any]) -> Any:
        """The value that was saved. IndexError: it was picked from a list with more items than this one had."""
        return _copy(saved["value"]) if "value" in saved else [self._items[index] for index in saved["picked"].tolist()]


def outline(root: object) -> dict[str, Was]:
    """The attributes of ``root`` and what it holds, by their paths: a flag, a count, an array, a container of such."""
    return {path: Was(vars(holder)[name]) for path, holder, name in _attributes(root)}


def changed(root: object, before: Mapping[str, Was]) -> tuple[Values, dict[str, str]]:
    """The attributes that are not what they were: state, where the others are configuration; and what of it can't be
    stored -> why. A large cache that was filled is neither: what it has would be loaded alike again."""
    found: Values = {}
    missing: dict[str, str] = {}
    for path, holder, name in _attributes(root):
        value = vars(holder)[name]
        was = before.get(path, _ABSENT)
        if not was.differs(value) or _is_cache(was, value):
            continue
        state = was.state(value)
        if state is None:
            missing[path] = "it holds objects that were made while training: nobody can make them again"
        elif "value" in state and (size := _bytes_of(value)) > LARGEST:
            missing[path] = f"it changes, and its {size >> 20} MiB are too many to be saved each time"
        elif (why := storable(state)[1]) is not None:
            missing[path] = why
        else:
            found[path] = state
    return found, missing


def values(root: object, paths: Collection[str], at_most: int = LARGEST) -> Values:
    """What attributes have now, of those that there are and that take no more than so many bytes."""
    return {
        path: {"value": _copy(vars(holder)[name])}
        for path, holder, name in _attributes(root)
        if path in paths and _is_data(vars(holder)[name]) and _bytes_of(vars(holder)[name]) <= at_most
    }


def put_back(root: object, saved: Mapping[str, Any], before: Mapping[str, Was]) -> None:
    """Set the attributes that ``changed`` found; one whose holder is gone is left out."""
    orders = {path: state for path, state in saved.items() if "picked" in state}
    _put_back(root, orders, before)  # first: it tells which objects lie where
    _put_back(root, {path: state for path, state in saved.items() if path not in orders}, before)


def _put_back(root: object, saved: Mapping[str, Any], before: Mapping[str, Was]) -> None:
    for path, holder in list(_holders(root)) if saved else ():
        for place in [place for place in saved if place.rpartition(".")[0] == path]:
            try:
                value = before.get(place, _ABSENT).back(saved[place])
            except IndexError:
                warn(f"{place} of the data had more items when the snapshot was taken: left as it is")
                continue
            name = place.rpartition(".")[2]
            live = vars(holder).get(name)
            if type(live) is not type(value) or not fill(live, value):  # others may hold the same one
                vars(holder)[name] = value


def _is_cache(was: Was, value: Any) -> bool:
    """Whether a container only got more of what would be loaded alike again, and too much to be saved each time."""
    return base_of(value) is not None and was.grew(value) and (is_bulky(value) or not _is_without_arrays(value))


def _is_without_arrays(container: Any) -> bool:
    return set(PLAIN).issuperset(leaf_types(container))


def _copy(value: Any) -> Any:
    """The same value, whatever training does to the one that is there."""
    if isinstance(value, torch.Tensor):
        return value.detach().clone()
    flat = type(value) in (list, set, dict) and set(PLAIN).issuperset(map(type, content_of(value)))
    return copy.copy(value) if flat and type(value) is not dict else copy.deepcopy(value)


def _attributes(root: object) -> Iterator[tuple[str, Any, str]]:
    for path, holder in _holders(root):
        for name in [name for name, value in vars(holder).items() if type(name) is str and _is_looked_at(value)]:
            yield f"{path}.{name}".removeprefix("."), holder, name


def _is_data(value: Any) -> bool:
    """A number, a text, an array, or a container of nothing else."""
    if base_of(value) is None:
        return type(value) in PLAIN or _is_plain_array(value)
    return all(kind in PLAIN or issubclass(kind, (*ARRAYS, *LEAVES)) for kind in leaf_types([value]))


def _is_looked_at(value: Any) -> bool:
    return type(value) is list or _is_data(value)


def _is_of_constants(items: list[Any]) -> bool:
    """Whether nothing that a list holds can change: a list of a million file names is not read again at each look."""
    kinds = leaf_types(items, of=frozenset((tuple,)))
    return all(kind in PLAIN or issubclass(kind, LEAVES[1:]) for kind in kinds)


def _is_plain_array(value: Any) -> bool:
    return type(value) in (torch.Tensor, np.ndarray) and value.dtype != object


def _bytes_of(value: Any) -> int:
    """About how much of a snapshot a value would take."""
    if isinstance(value, ARRAYS):
        return int(value.nbytes)
    return sum(map(_bytes_of, items_of(value))) if base_of(value) is not None else 8


_ABSENT = Was(object())
"""In place of what was not there."""


def sets_attributes(root: object) -> bool:
    """Whether the code of some object that ``root`` holds sets attributes once it is made."""
    kinds = {base for _, value in held(root) for base in type(value).__mro__ if is_script(base.__module__)}
    codes = (code for kind in kinds for code in codes_of(kind) if code.co_name != "__init__")
    return any(step.opname == "STORE_ATTR" for code in codes for step in dis.get_instructions(code))


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
        saved: whether what ``changed`` finds is put back anyway, and does not count.

    Attributes:
        remembers: whether a change was seen.
        sleeps: how many uses come before the next one to look after. They may be noted together.
        draws: whether a use that was looked after drew random numbers; to be set by who uses it.
    """

    def __init__(self, root: object, saved: bool) -> None:
        self.remembers = self.draws = False
        self._root, self._saved, self._uses, self.sleeps = root, saved, 0, 0
        self._attributes: dict[str, Was] = {}
        self._tokens: dict[str, Any] = {}

    def used(self, times: int = 1) -> bool:
        """Note a use, or some; tell whether the last was one to look after."""
        self._uses = uses = self._uses + times
        self.sleeps = (1 << uses.bit_length()) - 1 - uses
        if uses & (uses - 1):
            return False
        if self._uses == 1:
            self._attributes = outline(self._root)
            self._tokens = self._walked()
        self.look()
        return True

    def look(self) -> bool:
        """Whether it changed by now."""
        self.remembers = self.remembers or (self._uses > 1 and (self._has_other_values() or self._has_other_objects()))
        return self.remembers

    @property
    def begun(self) -> bool:
        """Whether there was a use: in the first one, samplers draw their order."""
        return self._uses > 0

    def _has_other_values(self) -> bool:
        now = {path: vars(holder)[name] for path, holder, name in _attributes(self._root)}
        others = {path: value for path, value in held(self._root) if path not in now}
        if any(base_of(others.get(path)) is not None for path in self._attributes):
            return True  # a container holds objects by now
        return any(self._counts(self._attributes.get(path, _ABSENT), value) for path, value in now.items())

    def _counts(self, was: Was, value: Any) -> bool:
        if not was.differs(value):
            return False
        cache = _is_cache(was, value) if self._saved else was.grew(value)
        return self.draws if cache else not self._saved or was.state(value) is None

    def _has_other_objects(self) -> bool:
        now = self._walked()
        if self.draws:
            return now != self._tokens
        return any(not _is_grown(token, now.get(path)) for path, token in self._tokens.items())

    def _walked(self) -> dict[str, Any]:
        """What lies where; generators count by their presence, for their states are kept elsewhere."""
        looked_at = {path: vars(holder)[name] for path, holder, name in _attributes(self._root)}
        known = self._attributes
        inside = tuple(
            f"{path}["
            for path, value in looked_at.items()
            if (known[path].is_data if path in known else _is_data(value))
        )
        return {
            path: _token(value)
            for path, value in held(self._root)
            if path not in looked_at and not path.startswith(inside) and not random_state.is_generator(value)
        }


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
    if _is_looked_at(value) or random_state.is_generator(value):
        return None
    if isinstance(value, torch.Tensor):
        return id(value), value._version
    if isinstance(value, np.ndarray):
        return id(value)
    return type(value)
