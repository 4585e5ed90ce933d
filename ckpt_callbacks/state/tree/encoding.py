"""Encoding: one walk over a tree, which turns it into nodes and finds its tensors. See `ckpt_callbacks.state.tree`."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import functools
import math
import types
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ckpt_callbacks.state.tensors.elements import RefusedError, itemsize
from ckpt_callbacks.state.tensors.libraries import library_of
from ckpt_callbacks.state.tensors.shelf import Found
from ckpt_callbacks.state.tensors.tensor import Expansion
from ckpt_callbacks.state.tree import codecs, leaves
from ckpt_callbacks.state.tree.grammar import (
    FACTORIES,
    MAX_DEPTH,
    ROOT,
    Node,
    OnUnstorable,
    canonical,
    is_unicode,
    join,
    key_name,
    knows_factory,
    plain_key,
)

__all__ = ["Encoder"]


class Encoder:
    """One walk over a tree. ``found`` holds its tensors by identity, ``refused`` what can't be stored, by path.

    With ``views`` some tensors may be stored as views of one block, and then none is taken that a reader would refuse.
    """

    def __init__(self, on_unstorable: OnUnstorable | None = None, *, views: bool = False) -> None:
        self.on_unstorable = on_unstorable
        self.expansion = Expansion() if views else None
        self.found: dict[int, Found] = {}
        self.refused: dict[str, str] = {}
        self.open: dict[int, str] = {}
        self.flattens = False
        self.kept: list[object] = []  # what codecs and hooks made: an identity is only good as long as its object lives

    def value(self, value: Any, path: str) -> Any:
        """The node for ``value``; what can't be stored is noted, or replaced by the hook."""
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is int and -leaves.SAFE_INTEGER < value < leaves.SAFE_INTEGER:
            return value
        if (kind is float and math.isfinite(value)) or (kind is str and is_unicode(value)):
            return value
        if (known := self.found.get(id(value))) is not None:
            return known.node
        before = len(self.found)
        writer = _writer_of(kind)
        try:
            return writer(self, value, path) if writer in _CHILDLESS else self._container(writer, value, path)
        except RefusedError as reason:
            return self._refuse(value, path, str(reason), before)

    def _container(self, writer: Writer, value: Any, path: str) -> Any:
        if id(value) in self.open:
            raise RefusedError(f"a cycle: it is the same {type(value).__name__} as {self.open[id(value)] or ROOT}")
        if len(self.open) >= MAX_DEPTH:
            raise RefusedError(f"nested deeper than {MAX_DEPTH} containers")
        self.open[id(value)] = path
        try:
            return writer(self, value, path)
        finally:
            del self.open[id(value)]

    def _refuse(self, value: object, path: str, reason: str, before: int) -> Any:
        while len(self.found) > before:  # tensors within it go as well
            self.found.popitem()
        if self.on_unstorable is None:
            self.refused[path or ROOT] = reason
            return None
        hook, self.on_unstorable = self.on_unstorable, None  # what replaces a value must be storable as it is
        try:
            return self.value(self.keep(hook(path, value, reason)), path)
        finally:
            self.on_unstorable = hook

    def keep(self, value: object) -> object:
        """Keep ``value`` alive for as long as this walk lasts."""
        self.kept.append(value)
        return value

    def hashed(self, value: object, path: str, what: str) -> Any:
        """The node of a dict's key or a set's element, which must not hold tensors: those hash by identity."""
        before = len(self.found)
        node = self.value(value, path)
        if len(self.found) > before or _has_tensor(node):
            return self._refuse(value, path, f"a tensor in {what}, which a restored one would not equal", before)
        return node

    def pairs(self, value: Mapping[Any, Any], path: str) -> list[list[Any]]:
        """The items of a dict, in its order."""
        named = [(key, item, join(path, key_name(key))) for key, item in value.items()]
        return [[self.hashed(key, here, "a key"), self.value(item, here)] for key, item, here in named]

    def items(self, value: Iterable[Any], path: str) -> list[Any]:
        """The items of a sequence."""
        return [self.value(item, join(path, index)) for index, item in enumerate(value)]


def _has_tensor(node: Any) -> bool:
    if type(node) is dict:
        return node.get("$") == "tensor" or any(map(_has_tensor, node.values()))
    return type(node) is list and any(map(_has_tensor, node))


Writer = Callable[[Encoder, Any, str], Any]


def _writer_of(kind: Any) -> Writer:
    """How to write a value of a type that JSON can't say by itself."""
    return _WRITERS.get(kind) or (_write_coded if kind in codecs.BY_TYPE else _writer_of_other(kind))


@functools.lru_cache(1024)
def _writer_of_other(kind: type) -> Writer:
    if issubclass(kind, enum.Enum):
        return _write_enum
    if issubclass(kind, tuple) and hasattr(kind, "_fields"):
        return _write_namedtuple
    if dataclasses.is_dataclass(kind) and not issubclass(kind, dict | list | tuple | set | str | int | float):
        return _write_dataclass
    return _write_leaf if leaves.knows(kind) else _write_tensor


def _write_leaf(encoder: Encoder, value: Any, path: str) -> Node:
    return leaves.write(value)


def _write_tensor(encoder: Encoder, value: Any, path: str) -> Node:
    library = library_of(value)
    if library is None:
        raise RefusedError(_what(value))
    node: Node = {"$": "tensor"}
    leaf = library.look(value)
    if leaf.memory is not None and encoder.expansion is not None:
        nbytes = leaf.memory.stop - leaf.memory.start
        if (excess := encoder.expansion.refuses(leaf.shape, itemsize(leaf.dtype), nbytes)) is not None:
            raise RefusedError(f"an expanded {type(value).__name__}: {excess}. Make a real copy of it, or its source")
    encoder.found[id(encoder.keep(value))] = Found(path or ROOT, leaf, node)
    return node


def _what(value: object) -> str:
    """What an unstorable value is, for a message."""
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    for plain in (dict, list, tuple, set, frozenset, str, bytes, int, float):
        if isinstance(value, plain):
            return f"{name}, a subclass of {plain.__name__} whose own type would be lost"
    if isinstance(value, type | types.FunctionType | types.BuiltinFunctionType | types.MethodType):
        return f"the {kind.__name__} {value.__module__}.{value.__qualname__}"
    return name


def _write_dict(encoder: Encoder, value: dict[Any, Any], path: str) -> Node:
    if all(map(plain_key, value)):
        return {key: encoder.value(item, join(path, key)) for key, item in value.items()}
    return {"$": "dict", "items": encoder.pairs(value, path)}


def _write_list(encoder: Encoder, value: list[Any], path: str) -> list[Any]:
    return encoder.items(value, path)


def _write_tuple(encoder: Encoder, value: tuple[Any, ...], path: str) -> Node:
    return {"$": "tuple", "items": encoder.items(value, path)}


def _write_set(encoder: Encoder, value: set[Any] | frozenset[Any], path: str) -> Node:
    nodes = [encoder.hashed(item, join(path, key_name(item)), "a set") for item in value]
    return {"$": type(value).__name__, "items": sorted(nodes, key=canonical)}


def _write_ordered(encoder: Encoder, value: OrderedDict[Any, Any], path: str) -> Node:
    node = {"$": "OrderedDict", "items": encoder.pairs(value, path)}
    if vars(value):  # a module's state_dict() carries its version numbers there
        node["attributes"] = encoder.value(vars(value), join(path, "__dict__"))
    return node


def _write_defaultdict(encoder: Encoder, value: defaultdict[Any, Any], path: str) -> Node:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if not knows_factory(factory):
        raise RefusedError(f"a defaultdict whose factory is none of None, {', '.join(FACTORIES)}")
    return {"$": "defaultdict", "factory": name, "items": encoder.pairs(value, path)}


def _write_counter(encoder: Encoder, value: Counter[Any], path: str) -> Node:
    return {"$": "Counter", "items": encoder.pairs(value, path)}


def _write_deque(encoder: Encoder, value: deque[Any], path: str) -> Node:
    return {"$": "deque", "maxlen": value.maxlen, "items": encoder.items(value, path)}


def _write_slice(encoder: Encoder, value: slice, path: str) -> Node:
    return {"$": "slice", "items": encoder.items((value.start, value.stop, value.step), path)}


def _write_namespace(encoder: Encoder, value: Any, path: str) -> Node:
    kind = "Namespace" if type(value) is argparse.Namespace else "SimpleNamespace"
    return {"$": kind, "fields": encoder.value(vars(value), path)}


def _write_coded(encoder: Encoder, value: Any, path: str) -> Node:
    codec = codecs.BY_TYPE[type(value)]
    return {"$": "codec", "name": codec.name, "value": encoder.value(encoder.keep(codec.encode(value)), path)}


def _write_enum(encoder: Encoder, value: enum.Enum, path: str) -> Node:
    encoder.flattens = True
    return {"$": "enum", "type": type(value).__name__, "name": value.name, "value": encoder.value(value.value, path)}


def _write_namedtuple(encoder: Encoder, value: Any, path: str) -> Node:
    if getattr(value, "__dict__", None) or len(value._fields) != len(value):
        raise RefusedError(f"{_what(value)}, with more in it than its fields")
    fields = {name: encoder.value(item, join(path, name)) for name, item in zip(value._fields, value, strict=True)}
    return {"$": "namedtuple", "type": type(value).__name__, "fields": fields}


def _write_dataclass(encoder: Encoder, value: Any, path: str) -> Node:
    names = [field.name for field in dataclasses.fields(value)]
    if loose := set(getattr(value, "__dict__", ())).difference(names):
        raise RefusedError(f"a dataclass {_what(value)} with attributes besides its fields: {', '.join(sorted(loose))}")
    if missing := [name for name in names if not hasattr(value, name)]:
        raise RefusedError(f"a dataclass {_what(value)} whose fields have no value: {', '.join(missing)}")
    encoder.flattens = True
    fields = {name: encoder.value(getattr(value, name), join(path, name)) for name in names}
    return {"$": "dataclass", "type": type(value).__name__, "fields": fields}


_CHILDLESS = (_write_tensor, _write_leaf)

_WRITERS: dict[type, Writer] = {
    dict: _write_dict,
    list: _write_list,
    tuple: _write_tuple,
    set: _write_set,
    frozenset: _write_set,
    OrderedDict: _write_ordered,
    defaultdict: _write_defaultdict,
    Counter: _write_counter,
    deque: _write_deque,
    slice: _write_slice,
    argparse.Namespace: _write_namespace,
    types.SimpleNamespace: _write_namespace,
}
