"""State that objects keep in plain attributes: counters, lists, averages, copies of a model. What changed is state.

What is the same as when training began is configuration, and belongs to the script: a patience that the user raised
before resuming stays raised. So nothing has to be known of any class, and nobody has to write a ``state_dict``.

A walk goes through attributes (slots, too), lists, tuples and dicts, into objects of the user's own classes, variables
that their functions enclose, and into modules that no module tree holds. It runs no code of theirs, but the
``state_dict`` of optimizers, schedulers and the like. Its ends are plain values and tensors, and containers of these.
What two attributes share they share again after a resume.
"""

from __future__ import annotations

import copy
import functools
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from ckpt_callbacks.state.objects.kinds import (
    base_of,
    has_variables,
    is_code,
    is_frameworks,
    is_immutable,
    is_iterator,
    is_of_its_own_kind,
    is_parameter,
    is_shared,
    is_stateful,
    is_tensor,
    is_users,
    is_value,
    is_variable,
    is_walked,
    package_of,
)
from ckpt_callbacks.state.objects.lent import Lenders, with_members_named
from ckpt_callbacks.state.objects.parts import Cells, Fields, Items, Parts, device_of, fill, items_of, moved, typed
from ckpt_callbacks.state.objects.tokens import is_bulky, is_large, storable, token

__all__ = ["Attributes", "Saved", "outermost"]

MAX_OBJECTS = 20_000
"""How many objects a walk looks at."""

MAX_DEPTH = 20
"""How deep plain containers may lie in each other to count as one value."""

Saved = list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class _Cell:
    """One end of a walk: ``parent`` has ``value`` under ``key``."""

    path: str
    parent: str
    key: Any
    value: Any
    owned: bool  # whether what holds it is of a user's class, or tensors in what is held by such a thing

    def token(self) -> Any:
        """Equal tokens, equal values."""
        return token(self.value)

    def saved(self, *, filled: bool) -> tuple[dict[str, Any] | None, str | None]:
        """How it is saved, and why it can't be."""
        value, why = storable(self.value)
        one = {"in": self.parent, "key": self.key, "value": value, "fill": filled}
        return one | ({} if why is not None or (device := device_of(value)) is None else {"device": device}), why


class _Alias(_Cell):
    """An attribute whose value is the same object as another's, whose path is ``value``."""

    def token(self) -> Any:
        return "alias", self.value

    def saved(self, *, filled: bool) -> tuple[dict[str, Any] | None, str | None]:
        return {"in": self.parent, "key": self.key, "alias": self.value}, None


class _Keys(_Cell):
    """What a container has besides its items, where these are looked at one by one: see `Items.keys`."""

    def saved(self, *, filled: bool) -> tuple[dict[str, Any] | None, str | None]:
        value, why = storable(self.value)
        return {"in": self.parent, "keys": value}, why


class _Object(_Cell):
    """An object whose attributes are looked at one by one: of another class than at first, these would not fit."""

    def token(self) -> Any:
        return type(self.value)


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
        self._same: dict[str, Callable[[], Any]] = {}
        walk = self._walk()
        self._began = {cell.path: cell.token() for cell in walk.cells}
        self._same = {path: _reference(value) for path, value in walk.shared.items()}
        self._holders = set(walk.holders)
        self._found: dict[int, str] = {}

    def settle(self) -> None:
        """What was made by now has a place in a new process, too: hooks make it there that run at the start.

        What such things hold may come from what was put back before, so all of it is state.
        """
        self._holders |= set(self._walk().holders)

    def capture(self) -> tuple[Saved, dict[str, str]]:
        """What changed since, and what of it can't be stored or could not be put back -> why."""
        saved: Saved = []
        missing: dict[str, str] = {}
        walk = self._walk()
        self._found = {id(holder.of): path for path, holder in walk.holders.items()}
        self._found |= {id(value): path for path, value in walk.shared.items()}
        if walk.left_out is not None:
            missing[walk.left_out] = (
                f"more than {MAX_OBJECTS} objects are in attributes, and this and the next are left out"
            )
        for cell in walk.cells:
            lost = self._lost(cell, walk)
            missing |= lost or {}
            if lost is None and (cell.path not in self._began or self._began[cell.path] != cell.token()):
                self._save(cell, walk, saved, missing)
        return saved, missing

    def changed_within(self, objects: Iterable[Any], saved: Saved) -> list[str]:
        """The paths of those ``objects`` that hold something of what `capture`, called just before, found changed."""
        paths = {self._found[id(one)] for one in objects if id(one) in self._found}
        changed = [_join(one["in"], one["key"]) if "key" in one else one["in"] for one in saved]
        return outermost(path for path in paths if any(f"{where}.".startswith(f"{path}.") for where in changed))

    def _lost(self, cell: _Cell, walk: _Walk) -> dict[str, str] | None:
        """What to name, if a cell is one that can't be put back whatever it holds; None if it can."""
        if cell.owned and is_iterator(cell.value):
            return {cell.path: "nobody can tell how far an iterator got: make it where it is used up"}
        if cell.parent not in self._holders:
            return _made(walk.made(cell.parent, self._holders)) if cell.owned and type(cell) is _Cell else {}
        if type(cell) is not _Object:
            return None
        began = self._began.get(cell.path)
        return _made(cell.path) if cell.owned and isinstance(began, type) and began is not cell.token() else {}

    def _save(self, cell: _Cell, walk: _Walk, saved: Saved, missing: dict[str, str]) -> None:
        began = self._began_as(cell.path)
        one, why = cell.saved(filled=began is not None and began is cell.value)
        if why is not None:
            missing |= {cell.path: why} if cell.owned and _has_users(cell.value) else {}
        elif type(cell) is _Cell and is_of_its_own_kind(cell.value) and type(began) is not type(cell.value):
            missing |= _made(cell.path) if cell.owned else {}
        else:
            one, members = with_members_named(one)
            for kind, count in members.items():
                if walk.lenders.enumeration(kind.__name__) is not kind:
                    missing[cell.path] = f"{count} of {kind.__name__}, whose class is in no module of an object here"
            saved.append(one)

    def put_back(self, saved: Saved) -> list[str]:
        """Set what `capture` found; give the paths of what has no place any more."""
        walk = self._walk()
        holders, saved, left = walk.holders, walk.lenders.typed(saved), []
        for one in saved:
            if "value" not in one:
                continue
            value = moved(one["value"], one["device"]) if "device" in one else one["value"]
            if not _put(holders.get(one["in"]), one["key"], value, filled=one["fill"]):
                left.append(_join(one["in"], one["key"]))
        shared = self._walk().shared
        for one in saved:
            if "alias" in one and not _share(holders.get(one["in"]), one["key"], shared.get(one["alias"])):
                left.append(_join(one["in"], one["key"]))
            elif "keys" in one and one["in"] in holders:
                holders[one["in"]].keep(one["keys"])
        return left

    @contextmanager
    def lending(self, saved: Saved) -> Iterator[None]:
        """Have what ``saved`` tells for a while, and then again what is now."""
        undo = self.remember(saved)
        self.put_back(saved)
        try:
            yield
        finally:
            undo()

    def remember(self, saved: Saved) -> Callable[[], None]:
        """Give what makes all that is now where ``saved`` would be put back the same objects again, with what they hold
        now; variables are left out."""
        holders, live = self._walk().holders, []
        for one in saved:
            holder = holders.get(one["in"])
            if holder is not None and "keys" in one:
                live.append(functools.partial(holder.keep, holder.keys()))
            elif holder is not None:
                found = [value for key, value in holder if key == one["key"] and not is_variable(value)]
                live += [functools.partial(_reset, holder, one["key"], value, _content(value)) for value in found]

        def undo() -> None:
            for reset in live:
                reset()

        return undo

    def copies(self, saved: Saved) -> Saved:
        """What is now where ``saved`` would be put back, in the same form; variables are left out."""
        holders = self._walk().holders
        found: Saved = []
        for one in saved:
            holder = holders.get(one["in"])
            if holder is not None and "keys" in one:
                found.append({"in": one["in"], "keys": holder.keys()})
            elif holder is not None:
                live = [value for key, value in holder if key == one["key"] and not is_variable(value)]
                value, _ = storable(live[0]) if live else (None, None)
                copied = {"in": one["in"], "key": one["key"], "value": copy.deepcopy(value), "fill": False}
                found += [copied] if live else []
        return found

    def _began_as(self, path: str) -> Any:
        """The object that was there when training began, as long as it lives."""
        reference = self._same.get(path)
        return None if reference is None else reference()

    def _walk(self) -> _Walk:
        return _Walk(self._objects, self._counts, self._elsewhere(), self._began_as)


class _Walk:
    """One walk over some objects.

    Attributes:
        cells: its ends.
        holders: what has attributes or items, by path.
        shared: what several attributes might have, by the path that it is saved under.
        left_out: the path of the first object of too many.
    """

    def __init__(
        self,
        objects: Mapping[str, Any],
        counts: Callable[[Any, str], bool],
        elsewhere: Iterable[Any],
        began: Callable[[str], Any],
    ) -> None:
        self.cells: list[_Cell] = []
        self.holders: dict[str, Parts] = {}
        self.shared: dict[str, Any] = {}
        self.left_out: str | None = None
        self._parents: dict[str, str] = {}
        self._began = began
        self._paths = {id(one): "" for one in elsewhere if not is_immutable(one)}
        self._queue: deque[tuple[str, Parts, str | None, bool]] = deque()
        self._roots(objects)
        while self._queue:
            path, holder, home, held = self._queue.popleft()
            self._look(path, holder, home, held, counts)

    @functools.cached_property
    def lenders(self) -> Lenders:
        """Where the classes of enumerations and named tuples are looked for."""
        return Lenders(holder.of for holder in self.holders.values() if isinstance(holder, Fields))

    def made(self, path: str, known: set[str]) -> str:
        """The outermost of the things that ``path`` lies in and that are not ``known``, or the container of it."""
        while (parent := self._parents.get(path, "")) and parent not in known:
            path = parent
        return parent if isinstance(self.holders.get(parent), Items) else path

    def _roots(self, objects: Mapping[str, Any]) -> None:
        for path, one in objects.items():
            self._paths[id(one)], self.shared[path] = path, one
        for path, one in objects.items():
            home = None if is_frameworks(type(one)) else package_of(type(one))
            self._enter(path, "", Fields(one) if base_of(one) is None else Items(one), home, held=False)

    def _look(self, path: str, holder: Parts, home: str | None, held: bool, counts: Callable[[Any, str], bool]) -> None:
        self.holders[path] = holder
        parts = [(key, value) for key, value in holder if not isinstance(holder, Fields) or counts(holder.of, key)]
        # What is where it was when training began is found there in a new process, too.
        for key, value in sorted(parts, key=lambda part: self._began(_join(path, part[0])) is not part[1]):
            if is_shared(value) or is_walked(value, home):
                self._claim(_join(path, key), value)
        for key, value in parts:
            self._visit(path, key, value, home, held=held)
        # Where functions lie, keys may be numbers of this process: of hooks, say.
        keys = holder.keys() if self._parents[path] else None
        if keys is not None and not any(is_code(value) for _, value in parts):
            self.cells.append(_Keys(f"{path}[]", path, None, keys, home is not None))

    def _claim(self, path: str, value: Any) -> None:
        if self._paths.setdefault(id(value), path) == path:
            self.shared[path] = value

    def _visit(self, parent: str, key: Any, value: Any, home: str | None, *, held: bool) -> None:
        """Look at one value.

        Args:
            parent: the path of what holds it.
            key: what it is called there.
            value: the value.
            home: the package of the user's object that it belongs to, if it is a user's.
            held: whether a user's object holds it, however far up.
        """
        if has_variables(value) and self._paths.setdefault(id(value), _join(parent, key)) == _join(parent, key):
            self._enter(_join(parent, key), parent, Cells(value), None, held=held)
        if is_code(value):
            return
        path, base = _join(parent, key), base_of(value)
        owned, held = home is not None, held or home is not None
        known = path if is_immutable(value) else self._paths.get(id(value), path)
        if known != path:
            self.cells += [_Alias(path, parent, key, known, owned)] if known else []
        elif is_walked(value, home):
            self.cells.append(_Object(path, parent, key, value, owned))
            self._enter(path, parent, Fields(value), home if is_users(type(value), home) else None, held=held)
        elif base is not None and self._has_parts(value, home):
            self._enter(path, parent, Items(value), home, held=held)
        elif is_value(value) or owned:
            if base not in (None, set, frozenset):
                self.holders[path] = Items(value)
            self.cells.append(_Cell(path, parent, key, value, owned or (held and _has_tensors(value))))
        if known == path and base is not None and is_of_its_own_kind(value):
            self._enter(f"{path}.__dict__", path, Fields(value), home, held=held)

    def _enter(self, path: str, parent: str, holder: Parts, home: str | None, *, held: bool) -> None:
        if len(self._parents) < MAX_OBJECTS:
            self._parents[path] = parent
            self._queue.append((path, holder, home, held))
        else:
            self.left_out = self.left_out or path

    def _has_parts(self, container: Any, home: str | None, depth: int = 0) -> bool:
        """Whether to go on into a container: it holds what is no plain value, or what others hold as well."""
        if depth > MAX_DEPTH or (depth == 0 and is_bulky(container)):
            return depth > MAX_DEPTH
        return base_of(container) not in (set, frozenset) and any(
            self._is_part(item, home, depth) for item in items_of(container)
        )

    def _is_part(self, item: Any, home: str | None, depth: int) -> bool:
        if is_immutable(item):
            return False
        if is_variable(item):
            return True
        if is_tensor(item):
            return id(item) in self._paths or is_large(item) or is_parameter(item)  # these are kept, and filled
        if id(item) in self._paths or is_stateful(item) or is_of_its_own_kind(item) or is_walked(item, home):
            return True
        return not is_value(item) if base_of(item) is None else self._has_parts(item, home, depth + 1)


def outermost(paths: Iterable[str]) -> list[str]:
    """Dotted paths without those that lie within others of them."""
    found: list[str] = []
    for path in sorted(paths):
        if not any(path.startswith(f"{one}.") for one in found):
            found.append(path)
    return found


def _join(path: str, key: Any) -> str:
    return f"{path}.{key}" if path else str(key)


def _made(path: str) -> dict[str, str]:
    return {path: "it was made while training, or holds what was: make it in __init__ or setup"}


def _has_users(value: Any) -> bool:
    """Whether a value is of a user's class or holds such things."""
    inside = () if base_of(value) is None else islice(items_of(value), 1000)
    return any(is_users(type(one), None) for one in (value, *inside))


def _has_tensors(value: Any) -> bool:
    inside = () if base_of(value) is None else items_of(value)
    return any(map(is_tensor, (value, *inside)))


def _reference(value: Any) -> Callable[[], Any]:
    """A way to tell later whether a value is still the very same object; tensors are not kept alive for it."""
    try:
        return weakref.ref(value)
    except TypeError:
        return lambda: value


def _content(value: Any) -> Any:
    """A copy of what a container or tensor holds; None for what can't be filled."""
    if is_tensor(value):
        return value.copy() if isinstance(value, np.ndarray) else value.detach().clone()
    return copy.copy(value) if base_of(value) not in (None, tuple, frozenset) else None


def _reset(holder: Parts, key: Any, value: Any, content: Any) -> None:
    holder.set(key, value)
    if content is not None:
        fill(value, content)


# Putting back ---------------------------------------------------------------------------------------------------------


def _put(holder: Parts | None, key: Any, value: Any, *, filled: bool) -> bool:
    """Give ``holder`` its value back; tell whether it has a place for it."""
    if holder is None:
        return False
    live = holder.get(key)
    if is_variable(live):
        live.assign(value)
        return True
    if is_stateful(live):
        live.load_state_dict(value["state_dict"])
        return True
    in_place = filled or is_parameter(live) or (isinstance(holder, Items) and holder.base is tuple)
    if (in_place or is_of_its_own_kind(live)) and fill(live, value):
        return True
    return holder.set(key, typed(value, live))


def _share(holder: Parts | None, key: Any, value: Any) -> bool:
    """Let ``holder`` have the very object that another has; tell whether it could be."""
    return holder is not None and value is not None and (holder.get(key) is value or holder.set(key, value))
