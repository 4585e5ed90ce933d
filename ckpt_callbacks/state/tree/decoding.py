"""Decoding: one walk over a structure, which makes the tree again. See `ckpt_callbacks.state.tree`."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import functools
import math
import struct
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Mapping
from typing import Any

from ckpt_callbacks.errors import CheckpointError, ConfigurationError, CorruptSnapshotError
from ckpt_callbacks.state.tensors.elements import itemsize, stored_as
from ckpt_callbacks.state.tensors.libraries import finish, is_library, library_named
from ckpt_callbacks.state.tensors.tensor import (
    Expansion,
    HostTensor,
    Library,
    c_strides,
    extent,
    ordered_strides,
    permuted,
)
from ckpt_callbacks.state.tree import codecs, leaves
from ckpt_callbacks.state.tree.encoding import Encoder
from ckpt_callbacks.state.tree.grammar import FACTORIES, MAX_DEPTH, ROOT, Node, OnFlattened, canonical, join, key_name

__all__ = ["READERS", "Checker", "Decoder", "is_lookalike", "member_of"]


_MALFORMED = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, RuntimeError, struct.error)


class Decoder:
    """One walk over a structure."""

    def __init__(
        self,
        tensors: Mapping[str, HostTensor],
        *,
        must_copy: Callable[[HostTensor], bool],
        on_flattened: OnFlattened | None,
    ) -> None:
        self.tensors = tensors
        self.must_copy = must_copy
        self.on_flattened = on_flattened
        self.depth = 0
        self.libraries: dict[str, Library] = {}
        self.memories: dict[tuple[str, str], Any] = {}
        self.made: dict[str, Any] = {}
        self.expansion = Expansion()

    def value(self, node: Any, like: Any, path: str) -> Any:
        """The value that ``node`` stands for; ``like`` is the live one in its place, if there is one."""
        if node is None or type(node) in (bool, int, str) or (type(node) is float and math.isfinite(node)):
            return node
        if self.depth >= MAX_DEPTH:
            raise _corrupt(path, f"nested deeper than {MAX_DEPTH} containers")
        self.depth += 1
        try:
            return self._container(node, like, path)
        except CheckpointError:
            raise
        except _MALFORMED as error:
            tag = node.get("$") if type(node) is dict else type(node).__name__
            raise _corrupt(
                path, f"this is no {tag!r} as this package writes it: {type(error).__name__}: {error}"
            ) from error
        finally:
            self.depth -= 1

    def _container(self, node: Any, like: Any, path: str) -> Any:
        if type(node) is list:
            return self.items(node, like, path)
        if type(node) is not dict:
            raise TypeError(f"no JSON value: {node!r:.100}")
        if "$" not in node:
            return self.fields(node, like, path)
        tag = node["$"]
        if tag in leaves.READERS:
            return leaves.READERS[tag](node)
        if tag in READERS:
            return READERS[tag](self, node, like, path)
        raise _corrupt(path, f"a value of unknown kind {tag!r}; a newer version of this package may have written it")

    def items(self, nodes: Any, like: Any, path: str) -> list[Any]:
        """The values of a list of nodes."""
        if type(nodes) is not list:
            raise TypeError(f"expected a list of items, found {nodes!r:.100}")
        live = list(like) if isinstance(like, list | tuple | deque) else []
        return [
            self.value(node, live[index] if index < len(live) else None, join(path, index))
            for index, node in enumerate(nodes)
        ]

    def fields(self, nodes: Any, like: Any, path: str) -> dict[str, Any]:
        """The values of a JSON object whose keys are as they are."""
        if type(nodes) is not dict:
            raise TypeError(f"expected an object, found {nodes!r:.100}")
        live = like if isinstance(like, dict) else {}
        return {key: self.value(node, dict.get(live, key), join(path, key)) for key, node in nodes.items()}

    def pairs(self, nodes: Any, like: Any, path: str) -> list[tuple[Any, Any]]:
        """The items of a dict of any keys; a live dict lends keys that are stored as its own are."""
        live = like if isinstance(like, dict) else {}
        lent = {canonical(node): key for key in live if (node := _node_of_key(key)) is not None}
        result = []
        for key_node, node in nodes:
            key = lent.get(canonical(key_node)) if type(key_node) is dict and lent else None
            if key is None:
                key = self.value(key_node, None, path)
            result.append((key, self.value(node, dict.get(live, key), join(path, key_name(key)))))
        if len({key for key, _ in result}) < len(result):
            raise _corrupt(path, "two keys of a dict are the same")
        return result

    def flattened(self, path: str, kind: str) -> None:
        """Tell that plain data stands in for a value of some type of the user's."""
        if self.on_flattened is not None:
            self.on_flattened(path or ROOT, kind)

    def tensor(self, node: Node, path: str) -> Any:
        """The tensor that ``node`` describes; the same object for the same description."""
        described = repr(node)
        if described not in self.made:
            self.made[described] = self._make(node, path)
        return self.made[described]

    def _make(self, node: Node, path: str) -> Any:
        host, shape, strides, offset = self._layout(node, path)
        ref, lib, dtype = node["ref"], node["lib"], node["dtype"]
        if lib not in self.libraries:
            self.libraries[lib] = library_named(lib)
        library, data = self.libraries[lib], None
        if "view" not in node and "order" in node:
            data = permuted(host.data, shape, node["order"], itemsize(dtype), library.allocate(host.nbytes))
        data = self._memory(lib, ref, host) if data is None else data
        return finish(library, library.make(data, dtype, shape, strides, offset), node)

    def _layout(self, node: Node, path: str) -> tuple[HostTensor, tuple[int, ...], tuple[int, ...], int]:
        """What is stored of a tensor; and its shape, strides and offset there."""
        ref, dtype, shape = node["ref"], node["dtype"], _sizes(node["shape"])
        host = self.tensors.get(ref)
        if host is None:
            raise _corrupt(path, f"its tensor {ref!r} is not in the file")
        if not is_library(node["lib"]):
            raise ValueError(f"{node['lib']!r} is no library of tensors")
        size = itemsize(dtype)
        if "view" in node:
            offset, strides = node["view"]["offset"], tuple(node["view"]["strides"])
            _check_within(shape, strides, offset, size, host.nbytes)
            if (excess := self.expansion.refuses(shape, size, host.nbytes)) is not None:
                raise _corrupt(path, excess)
            return host, shape, strides, offset
        if (host.dtype, host.shape) != stored_as(dtype, shape):
            expected = " ".join(map(str, stored_as(dtype, shape)))
            raise _corrupt(path, f"its tensor {ref!r} should be {expected}, found {host.dtype} {host.shape}")
        if "order" not in node:
            return host, shape, c_strides(shape, size), 0
        order = _sizes(node["order"])
        if sorted(order) != list(range(len(shape))):
            raise ValueError(f"{order} is no order of {len(shape)} axes")
        return host, shape, ordered_strides(shape, order, size), 0

    def coded(self, node: Node, path: str) -> Any:
        """What a codec of the user's makes of a value."""
        codec = codecs.BY_NAME.get(node["name"])
        if codec is None:
            raise ConfigurationError(
                f"{path or ROOT} was stored by the codec {node['name']!r}, which isn't registered here: "
                "call register_codec() with it before resuming"
            )
        value = self.value(node["value"], None, path)
        try:
            return codec.decode(value)
        except Exception as error:
            raise ConfigurationError(f"the codec {codec.name!r} failed at {path or ROOT}: {error}") from error

    def _memory(self, lib: str, ref: str, host: HostTensor) -> Any:
        """The bytes of a stored tensor, once for all that refer to it."""
        if not self.must_copy(host):
            return host.data
        if (lib, ref) not in self.memories:
            self.memories[lib, ref] = self.libraries[lib].allocate(host.nbytes)
            self.memories[lib, ref][:] = host.data
        return self.memories[lib, ref]


class Checker(Decoder):
    """One walk over a structure that makes no tensor, and asks no codec."""

    def _make(self, node: Node, path: str) -> Any:
        self._layout(node, path)
        return object()

    def coded(self, node: Node, path: str) -> Any:
        """Only that there is a value."""
        if type(node["name"]) is not str:
            raise TypeError(f"expected a codec's name, found {node['name']!r:.100}")
        self.value(node["value"], None, path)
        return object()


def _corrupt(path: str, what: str) -> CorruptSnapshotError:
    return CorruptSnapshotError(f"the state can't be read at {path or ROOT}: {what}")


def _sizes(numbers: Any) -> tuple[int, ...]:
    """Numbers that are sizes: integers, not negative."""
    if type(numbers) is not list or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"expected sizes, found {numbers!r:.100}")
    return tuple(numbers)


def _check_within(shape: tuple[int, ...], strides: tuple[Any, ...], offset: Any, size: int, nbytes: int) -> None:
    """A view must lie within its block: nothing else stands between a file and foreign memory."""
    if any(type(n) is not int for n in (*strides, offset)) or len(strides) != len(shape) or 0 in shape:
        raise ValueError(f"no view: shape {shape}, strides {strides}, offset {offset!r}")
    low, high = extent(shape, strides, size)
    if offset + low < 0 or offset + high > nbytes:
        raise ValueError(f"the view from {offset + low} to {offset + high} leaves its block of {nbytes} bytes")


def _node_of_key(key: object) -> Node | None:
    """How a live dict's key is stored, if that takes a tagged object."""
    encoder = Encoder()
    node = encoder.value(key, "")
    return node if type(node) is dict and not encoder.refused and not encoder.found else None


Reader = Callable[[Decoder, Node, Any, str], Any]


def _read_dict(decoder: Decoder, node: Node, like: Any, path: str) -> dict[Any, Any]:
    return dict(decoder.pairs(node["items"], like, path))


def _read_tuple(decoder: Decoder, node: Node, like: Any, path: str) -> tuple[Any, ...]:
    return tuple(decoder.items(node["items"], like, path))


def _read_set(decoder: Decoder, node: Node, like: Any, path: str) -> set[Any]:
    return set(decoder.items(node["items"], None, path))


def _read_frozenset(decoder: Decoder, node: Node, like: Any, path: str) -> frozenset[Any]:
    return frozenset(decoder.items(node["items"], None, path))


def _read_ordered(decoder: Decoder, node: Node, like: Any, path: str) -> OrderedDict[Any, Any]:
    result = OrderedDict(decoder.pairs(node["items"], like, path))
    for name, value in decoder.fields(node.get("attributes", {}), None, join(path, "__dict__")).items():
        if hasattr(OrderedDict, name):
            raise ValueError(f"{name!r} is not the name of an attribute")
        setattr(result, name, value)
    return result


def _read_defaultdict(decoder: Decoder, node: Node, like: Any, path: str) -> defaultdict[Any, Any]:
    factory = None if node["factory"] is None else FACTORIES[node["factory"]]
    return defaultdict(factory, decoder.pairs(node["items"], like, path))


def _read_counter(decoder: Decoder, node: Node, like: Any, path: str) -> Counter[Any]:
    return Counter(dict(decoder.pairs(node["items"], like, path)))


def _read_deque(decoder: Decoder, node: Node, like: Any, path: str) -> deque[Any]:
    items = decoder.items(node["items"], like, path)
    if node["maxlen"] is not None and len(items) > node["maxlen"]:
        raise ValueError(f"{len(items)} items in a deque of at most {node['maxlen']}")
    return deque(items, node["maxlen"])


def _read_slice(decoder: Decoder, node: Node, like: Any, path: str) -> slice:
    start, stop, step = decoder.items(node["items"], None, path)
    return slice(start, stop, step)


def _read_namespace(decoder: Decoder, node: Node, like: Any, path: str) -> Any:
    fields = decoder.value(node["fields"], getattr(like, "__dict__", None), path)
    result: Any = argparse.Namespace() if node["$"] == "Namespace" else types.SimpleNamespace()
    vars(result).update(fields)
    return result


def _read_enum(decoder: Decoder, node: Node, like: Any, path: str) -> Any:
    value = decoder.value(node["value"], None, path)
    kind = type(like)
    if isinstance(like, enum.Enum) and kind.__name__ == node["type"]:
        member = member_of(kind, node["name"], value)
        if member is not None:
            return member
    decoder.flattened(path, f"enum {node['type']}")
    return value


def member_of(kind: type[enum.Enum], name: str | None, value: Any) -> enum.Enum | None:
    """The member of an enumeration by its name, or by its value; None if there is none. Runs no code of the class."""
    if name in kind._member_map_:
        return kind._member_map_[name]
    if issubclass(kind, enum.Flag) and getattr(kind._missing_, "__func__", None) is _FLAGS_OWN:
        return kind(value)
    return next((one for one in kind._member_map_.values() if one._value_ == value), None)


_FLAGS_OWN = getattr(enum.Flag._missing_, "__func__", None)


def _read_namedtuple(decoder: Decoder, node: Node, like: Any, path: str) -> Any:
    names = list(node["fields"])
    lends = isinstance(like, tuple) and list(getattr(type(like), "_fields", ())) == names
    live = dict(zip(names, like, strict=True)) if lends else None
    values = tuple(decoder.fields(node["fields"], live, path).values())
    kind = type(like) if lends else _lookalike(node["type"], tuple(names))
    if kind is tuple:
        decoder.flattened(path, f"namedtuple {node['type']}")
    return tuple.__new__(kind, values)


@functools.lru_cache(maxsize=256)
def _lookalike(name: str, fields: tuple[str, ...]) -> Any:
    """A namedtuple's class of this name and these fields, as far as they are names; else a plain tuple."""
    try:
        kind = namedtuple(name, fields)  # type: ignore[misc]
    except ValueError:
        return tuple
    _LOOKALIKES.add(kind)
    return kind


_LOOKALIKES: weakref.WeakSet[type] = weakref.WeakSet()


def is_lookalike(kind: type) -> bool:
    """Whether a namedtuple's class was made by ``decode``, which had no live one."""
    return kind in _LOOKALIKES


def _read_dataclass(decoder: Decoder, node: Node, like: Any, path: str) -> Any:
    names = [field.name for field in dataclasses.fields(like)] if dataclasses.is_dataclass(like) else None
    if isinstance(like, type) or names != list(node["fields"]):
        decoder.flattened(path, f"dataclass {node['type']}")
        return decoder.fields(node["fields"], None, path)
    live = {name: getattr(like, name, None) for name in names}
    result = object.__new__(type(like))
    for name, value in decoder.fields(node["fields"], live, path).items():
        object.__setattr__(result, name, value)  # frozen ones too, and no code of the class runs
    return result


READERS: dict[str, Reader] = {
    "tensor": lambda decoder, node, like, path: decoder.tensor(node, path),
    "dict": _read_dict,
    "tuple": _read_tuple,
    "set": _read_set,
    "frozenset": _read_frozenset,
    "OrderedDict": _read_ordered,
    "defaultdict": _read_defaultdict,
    "Counter": _read_counter,
    "deque": _read_deque,
    "slice": _read_slice,
    "Namespace": _read_namespace,
    "SimpleNamespace": _read_namespace,
    "codec": lambda decoder, node, like, path: decoder.coded(node, path),
    "enum": _read_enum,
    "namedtuple": _read_namedtuple,
    "dataclass": _read_dataclass,
}
