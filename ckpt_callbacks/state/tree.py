"""A tree of plain values and tensors <-> a JSON structure and named tensors. Without pickle, bit for bit.

What JSON can say exactly is said in JSON: None, booleans, strings, integers below 2**53, finite floats, lists, and
dicts whose keys are strings that don't start with ``$``. Everything else is an object whose ``$`` names what it is,
``{"$": "tuple", "items": [...]}``. Types come from a fixed list or from ``register_codec``; a file never names anything
to import.

Three kinds of values are stored by their parts and get their type back only from the live object at the same place
(``like``): without one, a namedtuple comes back as one of the same name and fields that is made anew, a dataclass as a
dict, an enum member as its value.
"""

from __future__ import annotations

import argparse
import dataclasses
import enum
import functools
import json
import math
import struct
import types
import weakref
from collections import Counter, OrderedDict, defaultdict, deque, namedtuple
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ckpt_callbacks.errors import CheckpointError, ConfigurationError, CorruptSnapshotError, UnstorableError
from ckpt_callbacks.state import codecs, leaves
from ckpt_callbacks.state.elements import RefusedError, itemsize, stored_as
from ckpt_callbacks.state.libraries import finish, library_named, library_of
from ckpt_callbacks.state.shelf import Found, shelve
from ckpt_callbacks.state.tensors import HostTensor, Library, Source, c_strides, extent, ordered_strides, permuted

__all__ = [
    "MAX_DEPTH",
    "Encoded",
    "Plan",
    "decode",
    "encode",
    "from_json",
    "is_lookalike",
    "knows_factory",
    "member_of",
    "plan",
    "to_json",
]

MAX_DEPTH = 100
"""How many containers may lie within each other."""

Node = dict[str, Any]
OnUnstorable = Callable[[str, object], object]
OnFlattened = Callable[[str, str], None]

_ROOT = "(root)"
_NAMED = (str, int, float, bool, type(None))
_FACTORIES: dict[str, Callable[[], Any]] = {
    kind.__name__: kind for kind in (list, dict, set, tuple, int, float, str, bool)
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """A tree in its storable form: ``structure`` is plain JSON and refers to ``tensors`` by name."""

    structure: Any
    tensors: dict[str, HostTensor]


@dataclass(frozen=True, slots=True)
class Plan:
    """A tree whose structure is settled and whose tensors' bytes are still to be fetched, each from its ``Source``.

    ``flattens`` tells whether something in it comes back in a plainer type, unless ``decode`` finds its like.
    """

    structure: Any
    sources: dict[str, Source]
    flattens: bool = False

    def fetch(self, *, copy: bool = True) -> Encoded:
        """The tensors' bytes in host memory; without ``copy`` borrowed from the live tensors where that is possible."""
        return Encoded(self.structure, {name: source.host(copy=copy) for name, source in self.sources.items()})


def encode(
    tree: object, *, copy: bool = True, views: bool = True, on_unstorable: OnUnstorable | None = None
) -> Encoded:
    """Split ``tree`` into a JSON structure and named tensors.

    ``copy=False`` borrows the tensors' memory where it can: good until anybody writes to them. ``on_unstorable(path,
    value)`` may return something else to store in place of a value that can't be, or raise; without it all such values
    are collected.

    UnstorableError: the tree holds values that are neither tensors nor plain data, with the path of each.
    """
    return plan(tree, views=views, on_unstorable=on_unstorable).fetch(copy=copy)


def plan(tree: object, *, views: bool = True, on_unstorable: OnUnstorable | None = None) -> Plan:
    """As ``encode``, up to the point where bytes are read: for whoever lays them out in memory of their own."""
    encoder = _Encoder(on_unstorable)
    structure = encoder.value(tree, "")
    if encoder.refused:
        raise UnstorableError(encoder.refused)
    return Plan(structure, shelve(list(encoder.found.values()), views=views), encoder.flattens)


def decode(
    structure: object,
    tensors: Mapping[str, HostTensor],
    *,
    like: object = None,
    copy: bool | Callable[[HostTensor], bool] = True,
    on_flattened: OnFlattened | None = None,
) -> Any:
    """The tree that was encoded: torch's tensors on the CPU, those of tensorflow and jax where these put new ones.

    ``like`` is the live object that the tree is for: where it has a namedtuple, a dataclass or an enum member at the
    same place, that one's type is used. Where it has none, a namedtuple of the same fields stands in, or plain data,
    and ``on_flattened(path, kind)`` is told of the latter. With ``copy=False``, or where ``copy``
    says so of a stored tensor, tensors lie in the memory of ``tensors``: writing to one that is mapped read-only ends
    the process. A tensor whose library can't be imported comes back as a numpy array.

    CorruptSnapshotError: the structure is not one that ``encode`` makes, or refers to a tensor that isn't there or
    differs. ConfigurationError: a codec or an element type that the tree was saved with is missing here.
    """
    must_copy = copy if callable(copy) else lambda _: copy
    return _Decoder(tensors, must_copy=must_copy, on_flattened=on_flattened).value(structure, like, "")


def to_json(structure: object) -> bytes:
    """The structure as compact JSON text, in ASCII."""
    return json.dumps(structure, separators=(",", ":"), allow_nan=False).encode()


def from_json(text: bytes, name: str = "the structure") -> Any:
    """The structure that ``to_json`` wrote. CorruptSnapshotError: it is no JSON; ``name`` says where it was read."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise CorruptSnapshotError(f"{name} can't be parsed as JSON: {error}") from error


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _join(path: str, key: object) -> str:
    return f"{path}.{key}" if path else str(key)


def _key_name(key: object) -> str:
    """A key in a path: nothing is asked of an object whose text could be long or costly."""
    if type(key) is str:
        return key
    plain = type(key) in _NAMED or (type(key) is tuple and all(type(part) in _NAMED for part in key))
    return repr(key) if plain else f"<{type(key).__name__}>"


def _plain_key(key: object) -> bool:
    return type(key) is str and not key.startswith("$") and _is_unicode(key)


def _is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8, as JSON's must be: lone surrogates can't."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# Encoding -------------------------------------------------------------------------------------------------------------


class _Encoder:
    """One walk over a tree. ``found`` holds its tensors by identity, ``refused`` what can't be stored, by path."""

    def __init__(self, on_unstorable: OnUnstorable | None = None) -> None:
        self.on_unstorable = on_unstorable
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
        if (kind is float and math.isfinite(value)) or (kind is str and _is_unicode(value)):
            return value
        if (known := self.found.get(id(value))) is not None:
            return known.node
        before = len(self.found)
        writer = _writer_of(kind)
        try:
            return writer(self, value, path) if writer is _write_leaf else self._container(writer, value, path)
        except RefusedError as reason:
            return self._refuse(value, path, str(reason), before)

    def _container(self, writer: Writer, value: Any, path: str) -> Any:
        if id(value) in self.open:
            raise RefusedError(f"a cycle: it is the same {type(value).__name__} as {self.open[id(value)] or _ROOT}")
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
            self.refused[path or _ROOT] = reason
            return None
        hook, self.on_unstorable = self.on_unstorable, None  # what replaces a value must be storable as it is
        try:
            return self.value(self.keep(hook(path, value)), path)
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
        named = [(key, item, _join(path, _key_name(key))) for key, item in value.items()]
        return [[self.hashed(key, here, "a key"), self.value(item, here)] for key, item, here in named]

    def items(self, value: Iterable[Any], path: str) -> list[Any]:
        """The items of a sequence."""
        return [self.value(item, _join(path, index)) for index, item in enumerate(value)]


def _has_tensor(node: Any) -> bool:
    if type(node) is dict:
        return node.get("$") == "tensor" or any(map(_has_tensor, node.values()))
    return type(node) is list and any(map(_has_tensor, node))


Writer = Callable[[_Encoder, Any, str], Any]


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
    return _write_leaf


def _write_leaf(encoder: _Encoder, value: Any, path: str) -> Node:
    node = leaves.write(value)
    if node is not None:
        return node
    library = library_of(value)
    if library is None:
        raise RefusedError(_what(value))
    node = {"$": "tensor"}
    encoder.found[id(encoder.keep(value))] = Found(path or _ROOT, library.look(value), node)
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


def _write_dict(encoder: _Encoder, value: dict[Any, Any], path: str) -> Node:
    if all(map(_plain_key, value)):
        return {key: encoder.value(item, _join(path, key)) for key, item in value.items()}
    return {"$": "dict", "items": encoder.pairs(value, path)}


def _write_list(encoder: _Encoder, value: list[Any], path: str) -> list[Any]:
    return encoder.items(value, path)


def _write_tuple(encoder: _Encoder, value: tuple[Any, ...], path: str) -> Node:
    return {"$": "tuple", "items": encoder.items(value, path)}


def _write_set(encoder: _Encoder, value: set[Any] | frozenset[Any], path: str) -> Node:
    nodes = [encoder.hashed(item, _join(path, _key_name(item)), "a set") for item in value]
    return {"$": type(value).__name__, "items": sorted(nodes, key=_canonical)}


def _canonical(node: Any) -> str:
    return json.dumps(node, sort_keys=True)


def _write_ordered(encoder: _Encoder, value: OrderedDict[Any, Any], path: str) -> Node:
    node = {"$": "OrderedDict", "items": encoder.pairs(value, path)}
    if vars(value):  # a module's state_dict() carries its version numbers there
        node["attributes"] = encoder.value(vars(value), _join(path, "__dict__"))
    return node


def knows_factory(factory: object) -> bool:
    """Whether a defaultdict of this factory can be stored."""
    return factory is None or any(factory is known for known in _FACTORIES.values())


def _write_defaultdict(encoder: _Encoder, value: defaultdict[Any, Any], path: str) -> Node:
    factory = value.default_factory
    name = None if factory is None else getattr(factory, "__name__", "")
    if not knows_factory(factory):
        raise RefusedError(f"a defaultdict whose factory is none of None, {', '.join(_FACTORIES)}")
    return {"$": "defaultdict", "factory": name, "items": encoder.pairs(value, path)}


def _write_counter(encoder: _Encoder, value: Counter[Any], path: str) -> Node:
    return {"$": "Counter", "items": encoder.pairs(value, path)}


def _write_deque(encoder: _Encoder, value: deque[Any], path: str) -> Node:
    return {"$": "deque", "maxlen": value.maxlen, "items": encoder.items(value, path)}


def _write_slice(encoder: _Encoder, value: slice, path: str) -> Node:
    return {"$": "slice", "items": encoder.items((value.start, value.stop, value.step), path)}


def _write_namespace(encoder: _Encoder, value: Any, path: str) -> Node:
    kind = "Namespace" if type(value) is argparse.Namespace else "SimpleNamespace"
    return {"$": kind, "fields": encoder.value(vars(value), path)}


def _write_coded(encoder: _Encoder, value: Any, path: str) -> Node:
    codec = codecs.BY_TYPE[type(value)]
    return {"$": "codec", "name": codec.name, "value": encoder.value(encoder.keep(codec.encode(value)), path)}


def _write_enum(encoder: _Encoder, value: enum.Enum, path: str) -> Node:
    encoder.flattens = True
    return {"$": "enum", "type": type(value).__name__, "name": value.name, "value": encoder.value(value.value, path)}


def _write_namedtuple(encoder: _Encoder, value: Any, path: str) -> Node:
    if getattr(value, "__dict__", None) or len(value._fields) != len(value):
        raise RefusedError(f"{_what(value)}, with more in it than its fields")
    fields = {name: encoder.value(item, _join(path, name)) for name, item in zip(value._fields, value, strict=True)}
    return {"$": "namedtuple", "type": type(value).__name__, "fields": fields}


def _write_dataclass(encoder: _Encoder, value: Any, path: str) -> Node:
    names = [field.name for field in dataclasses.fields(value)]
    if loose := set(getattr(value, "__dict__", ())).difference(names):
        raise RefusedError(f"a dataclass {_what(value)} with attributes besides its fields: {', '.join(sorted(loose))}")
    if missing := [name for name in names if not hasattr(value, name)]:
        raise RefusedError(f"a dataclass {_what(value)} whose fields have no value: {', '.join(missing)}")
    encoder.flattens = True
    fields = {name: encoder.value(getattr(value, name), _join(path, name)) for name in names}
    return {"$": "dataclass", "type": type(value).__name__, "fields": fields}


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


# Decoding -------------------------------------------------------------------------------------------------------------

_MALFORMED = (LookupError, ValueError, TypeError, ArithmeticError, AttributeError, RuntimeError, struct.error)


class _Decoder:
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
        if tag in _READERS:
            return _READERS[tag](self, node, like, path)
        raise _corrupt(path, f"a value of unknown kind {tag!r}; a newer version of this package may have written it")

    def items(self, nodes: Any, like: Any, path: str) -> list[Any]:
        """The values of a list of nodes."""
        if type(nodes) is not list:
            raise TypeError(f"expected a list of items, found {nodes!r:.100}")
        live = list(like) if isinstance(like, list | tuple | deque) else []
        return [
            self.value(node, live[index] if index < len(live) else None, _join(path, index))
            for index, node in enumerate(nodes)
        ]

    def fields(self, nodes: Any, like: Any, path: str) -> dict[str, Any]:
        """The values of a JSON object whose keys are as they are."""
        if type(nodes) is not dict:
            raise TypeError(f"expected an object, found {nodes!r:.100}")
        live = like if isinstance(like, dict) else {}
        return {key: self.value(node, dict.get(live, key), _join(path, key)) for key, node in nodes.items()}

    def pairs(self, nodes: Any, like: Any, path: str) -> list[tuple[Any, Any]]:
        """The items of a dict of any keys; a live dict lends keys that are stored as its own are."""
        live = like if isinstance(like, dict) else {}
        lent = {_canonical(node): key for key in live if (node := _node_of_key(key)) is not None}
        result = []
        for key_node, node in nodes:
            key = lent.get(_canonical(key_node)) if type(key_node) is dict and lent else None
            if key is None:
                key = self.value(key_node, None, path)
            result.append((key, self.value(node, dict.get(live, key), _join(path, _key_name(key)))))
        if len({key for key, _ in result}) < len(result):
            raise _corrupt(path, "two keys of a dict are the same")
        return result

    def flattened(self, path: str, kind: str) -> None:
        """Tell that plain data stands in for a value of some type of the user's."""
        if self.on_flattened is not None:
            self.on_flattened(path or _ROOT, kind)

    def tensor(self, node: Node, path: str) -> Any:
        """The tensor that ``node`` describes; the same object for the same description."""
        described = repr(node)
        if described not in self.made:
            self.made[described] = self._make(node, path)
        return self.made[described]

    def _make(self, node: Node, path: str) -> Any:
        ref, lib, dtype, shape = node["ref"], node["lib"], node["dtype"], _sizes(node["shape"])
        host = self.tensors.get(ref)
        if host is None:
            raise _corrupt(path, f"its tensor {ref!r} is not in the file")
        if lib not in self.libraries:
            self.libraries[lib] = library_named(lib)
        library, size = self.libraries[lib], itemsize(dtype)
        if "view" in node:
            offset, strides = node["view"]["offset"], tuple(node["view"]["strides"])
            _check_within(shape, strides, offset, size, host.nbytes)
            return finish(library, library.make(self._memory(lib, ref, host), dtype, shape, strides, offset), node)
        if (host.dtype, host.shape) != stored_as(dtype, shape):
            expected = " ".join(map(str, stored_as(dtype, shape)))
            raise _corrupt(path, f"its tensor {ref!r} should be {expected}, found {host.dtype} {host.shape}")
        if "order" not in node:
            data, strides = self._memory(lib, ref, host), c_strides(shape, size)
        else:
            order = _sizes(node["order"])
            if sorted(order) != list(range(len(shape))):
                raise ValueError(f"{order} is no order of {len(shape)} axes")
            data = permuted(host.data, shape, order, size, library.allocate(host.nbytes))
            strides = ordered_strides(shape, order, size)
        return finish(library, library.make(data, dtype, shape, strides, 0), node)

    def _memory(self, lib: str, ref: str, host: HostTensor) -> Any:
        """The bytes of a stored tensor, once for all that refer to it."""
        if not self.must_copy(host):
            return host.data
        if (lib, ref) not in self.memories:
            self.memories[lib, ref] = self.libraries[lib].allocate(host.nbytes)
            self.memories[lib, ref][:] = host.data
        return self.memories[lib, ref]


def _corrupt(path: str, what: str) -> CorruptSnapshotError:
    return CorruptSnapshotError(f"the state can't be read at {path or _ROOT}: {what}")


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
    encoder = _Encoder()
    node = encoder.value(key, "")
    return node if type(node) is dict and not encoder.refused and not encoder.found else None


Reader = Callable[[_Decoder, Node, Any, str], Any]


def _read_dict(decoder: _Decoder, node: Node, like: Any, path: str) -> dict[Any, Any]:
    return dict(decoder.pairs(node["items"], like, path))


def _read_tuple(decoder: _Decoder, node: Node, like: Any, path: str) -> tuple[Any, ...]:
    return tuple(decoder.items(node["items"], like, path))


def _read_set(decoder: _Decoder, node: Node, like: Any, path: str) -> set[Any]:
    return set(decoder.items(node["items"], None, path))


def _read_frozenset(decoder: _Decoder, node: Node, like: Any, path: str) -> frozenset[Any]:
    return frozenset(decoder.items(node["items"], None, path))


def _read_ordered(decoder: _Decoder, node: Node, like: Any, path: str) -> OrderedDict[Any, Any]:
    result = OrderedDict(decoder.pairs(node["items"], like, path))
    for name, value in decoder.fields(node.get("attributes", {}), None, _join(path, "__dict__")).items():
        if hasattr(OrderedDict, name):
            raise ValueError(f"{name!r} is not the name of an attribute")
        setattr(result, name, value)
    return result


def _read_defaultdict(decoder: _Decoder, node: Node, like: Any, path: str) -> defaultdict[Any, Any]:
    factory = None if node["factory"] is None else _FACTORIES[node["factory"]]
    return defaultdict(factory, decoder.pairs(node["items"], like, path))


def _read_counter(decoder: _Decoder, node: Node, like: Any, path: str) -> Counter[Any]:
    return Counter(dict(decoder.pairs(node["items"], like, path)))


def _read_deque(decoder: _Decoder, node: Node, like: Any, path: str) -> deque[Any]:
    items = decoder.items(node["items"], like, path)
    if node["maxlen"] is not None and len(items) > node["maxlen"]:
        raise ValueError(f"{len(items)} items in a deque of at most {node['maxlen']}")
    return deque(items, node["maxlen"])


def _read_slice(decoder: _Decoder, node: Node, like: Any, path: str) -> slice:
    start, stop, step = decoder.items(node["items"], None, path)
    return slice(start, stop, step)


def _read_namespace(decoder: _Decoder, node: Node, like: Any, path: str) -> Any:
    fields = decoder.value(node["fields"], getattr(like, "__dict__", None), path)
    result: Any = argparse.Namespace() if node["$"] == "Namespace" else types.SimpleNamespace()
    vars(result).update(fields)
    return result


def _read_coded(decoder: _Decoder, node: Node, like: Any, path: str) -> Any:
    codec = codecs.BY_NAME.get(node["name"])
    if codec is None:
        raise ConfigurationError(
            f"{path or _ROOT} was stored by the codec {node['name']!r}, which isn't registered here: "
            "call register_codec() with it before resuming"
        )
    value = decoder.value(node["value"], None, path)
    try:
        return codec.decode(value)
    except Exception as error:
        raise ConfigurationError(f"the codec {codec.name!r} failed at {path or _ROOT}: {error}") from error


def _read_enum(decoder: _Decoder, node: Node, like: Any, path: str) -> Any:
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


def _read_namedtuple(decoder: _Decoder, node: Node, like: Any, path: str) -> Any:
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


def _read_dataclass(decoder: _Decoder, node: Node, like: Any, path: str) -> Any:
    names = [field.name for field in dataclasses.fields(like)] if dataclasses.is_dataclass(like) else None
    if isinstance(like, type) or names != list(node["fields"]):
        decoder.flattened(path, f"dataclass {node['type']}")
        return decoder.fields(node["fields"], None, path)
    live = {name: getattr(like, name, None) for name in names}
    result = object.__new__(type(like))
    for name, value in decoder.fields(node["fields"], live, path).items():
        object.__setattr__(result, name, value)  # frozen ones too, and no code of the class runs
    return result


_READERS: dict[str, Reader] = {
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
    "codec": _read_coded,
    "enum": _read_enum,
    "namedtuple": _read_namedtuple,
    "dataclass": _read_dataclass,
}
