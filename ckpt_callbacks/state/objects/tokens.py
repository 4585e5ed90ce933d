"""Whether a value changed since it was looked at first: what is compared, and what is stored of it.

Plain values are compared bit for bit. What is large costs time at every save, so it is compared by as much as is cheap:
tensors by a hash of their bytes or a sample of these, containers by the identity of their items.
"""

from __future__ import annotations

import hashlib
import marshal
import sys
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Set
from itertools import chain
from typing import Any

import numpy as np
import xxhash

from ckpt_callbacks.errors import UnstorableError
from ckpt_callbacks.state.objects.kinds import (
    base_of,
    fields_of,
    is_frameworks,
    is_of_its_own_kind,
    is_stateful,
    is_tensor,
    is_variable,
    is_walked,
)
from ckpt_callbacks.state.objects.parts import content_of, items_of
from ckpt_callbacks.state.tree import encode, to_json

__all__ = ["MAX_ITEMS", "is_bulky", "is_large", "leaf_types", "quick", "storable", "token"]

MAX_ITEMS = 10_000
"""How many items a container may hold, in all its depth, to be compared by content; beyond, by its items' identity."""

TENSOR_COUNTS = 20
"""As how many items a tensor in a container counts: it takes so much longer to compare."""

LARGE = 1 << 20
"""From how many bytes on a tensor is compared by a hash of its bytes."""

HASHED_ARRAY, HASHED_TENSOR = 256 << 20, 16 << 20
"""From how many bytes on one is compared by a sample. Torch counts the writes to its tensors, numpy does not."""

GLANCED = 3
"""How deep the items of a large container are looked into, where these are not plain."""

MAX_DEPTH = 50
"""How deep plain containers may lie in each other to be compared in one go."""

_SIMPLE = frozenset((type(None), bool, int, float, str, bytes))
_MARSHALLED = frozenset((list, tuple, dict, set, frozenset))
_BUILTIN = (list, tuple, dict, set, OrderedDict)


def token(value: Any) -> Any:
    """What tells whether a value changed: equal tokens, equal values."""
    kind = type(value)
    if kind in _SIMPLE:
        return kind, value.hex() if kind is float else value  # -0.0 is not 0.0, and nan equals nan
    if kind in _BUILTIN and not value:
        return kind, None
    if base_of(value) is not None and is_bulky(value):
        return type(value), _bulk(value)
    if is_tensor(value) and is_large(value):
        return _large(value)
    stored, why = storable(value)
    return (type(value), id(value)) if why is not None else _digest(stored)


def quick(value: Any) -> Any:
    """As ``token``, but of a container only what can be had quickly, however small it is."""
    return (type(value), _bulk(value)) if base_of(value) is not None and value else token(value)


def storable(value: Any) -> tuple[Any, str | None]:
    """What is stored for a value, and why it can't be."""
    if is_variable(value):
        value = value.numpy()
    stored = {"state_dict": value.state_dict()} if is_stateful(value) else _plain(value)
    try:
        encode(stored, copy=False)
    except UnstorableError as error:
        why = f"({'; '.join(error.paths.values())})" if is_tensor(value) else "without pickle"
        return None, f"{type(value).__name__} can't be stored {why}"
    return stored, None


def _plain(value: Any) -> Any:
    """A value with containers of frameworks in it (Keras makes such of a layer's attributes) as builtin ones."""
    kind = type(value)
    base = base_of(value)
    if base is None or base is tuple or not (is_frameworks(kind) or is_of_its_own_kind(value)):
        return value
    content = content_of(value)
    if base in (dict, OrderedDict):
        return {key: _plain(item) for key, item in content.items()}
    return [_plain(item) for item in content] if base in (list, deque) else content


def is_large(tensor: Any) -> bool:
    """Whether a tensor is better compared by itself, and not bit by bit with what else a container holds.

    One without plain elements (sparse) is none: it can't be stored, and is known by its identity.
    """
    plain = isinstance(tensor, np.ndarray) or tensor.layout is sys.modules["torch"].strided
    return plain and bool(tensor.nbytes >= LARGE)


def is_bulky(container: Any) -> bool:
    """Whether a container holds more than ``MAX_ITEMS`` items, those of containers within it among them."""
    count, pending = 0, [container]
    while pending and count <= MAX_ITEMS:
        one = pending.pop()
        count += base_of(one).__len__(one)
        for item in items_of(one) if count <= MAX_ITEMS else ():
            if is_tensor(item):
                count += TENSOR_COUNTS
            elif base_of(item) is not None:
                pending.append(item)
    return count > MAX_ITEMS


# What is large --------------------------------------------------------------------------------------------------------


def _bulk(container: Any) -> Any:
    """What is plain all the way by content, in one go; of other items what of them can be had quickly."""
    keys = content_of(container) if base_of(container) in (dict, OrderedDict) else {}
    plain = [list(keys), list(items_of(container))]
    if not _is_plain_all_the_way(plain):
        plain = [[_glance(item) for item in items] for items in plain]
    return xxhash.xxh3_128_digest(marshal.dumps(plain, 2))  # only to compare them: nothing is ever loaded from these


def _is_plain_all_the_way(container: Any) -> bool:
    """Whether a container holds nothing but numbers, texts and builtin containers of such."""
    return _SIMPLE.issuperset(leaf_types(container, of=_MARSHALLED))


def leaf_types(
    container: Any, of: Set[type] = frozenset((*_BUILTIN, frozenset, deque, defaultdict, Counter))
) -> set[type]:
    """The types of what lies in a container and in those within it; no item is asked itself.

    Args:
        container: a builtin one.
        of: the types of containers to look into; others are leaves.
    """
    found: set[type] = set()
    level, kinds = [container], {type(container)}
    for _ in range(MAX_DEPTH):
        inner = _inside(level) if any(issubclass(kind, dict) for kind in kinds) else list(chain.from_iterable(level))
        kinds = set(map(type, inner))
        found |= kinds - of
        kinds &= of
        if not kinds:
            return found
        level = inner if kinds == set(map(type, inner)) else [one for one in inner if type(one) in of]
    return found | of  # deeper than anybody stores


def _inside(containers: list[Any]) -> list[Any]:
    dicts = [one for one in containers if isinstance(one, dict)]
    others = chain.from_iterable(one for one in containers if not isinstance(one, dict))
    return [*others, *chain.from_iterable(dicts), *chain.from_iterable(map(dict.values, dicts))]


def _glance(item: Any, depth: int = 0) -> Any:
    """What shows quickly whether an item of a large container is the same: numbers and texts only."""
    if type(item) in _SIMPLE:
        return item
    if type(item) is np.ndarray and item.nbytes < LARGE and item.flags.c_contiguous and item.dtype.kind in "biufc":
        return xxhash.xxh3_64_intdigest(item.data)
    if is_tensor(item):
        return id(item), _writes(item)
    if depth < GLANCED and base_of(item) is not None:
        keys = list(content_of(item)) if base_of(item) in (dict, OrderedDict) else []
        return id(item), [_glance(one, depth + 1) for one in (*keys, *items_of(item))]
    if depth < GLANCED and is_walked(item, None):
        return id(item), [_glance(one, depth + 1) for one in (fields_of(item) or {}).values()]
    return id(item)


def _large(tensor: Any) -> Any:
    """A large tensor by a hash of its bytes, or by identity, torch's count of writes to it, and a sample."""
    array = isinstance(tensor, np.ndarray)
    if array and tensor.dtype.hasobject:
        return id(tensor)
    if (data := _bytes_of(tensor)) is not None:
        return str(tensor.dtype), tuple(tensor.shape), xxhash.xxh3_128_digest(data)
    step = max(1, (tensor.size if array else tensor.numel()) // 1024)
    sample, why = storable(tensor.reshape(-1)[::step])
    return id(tensor), _writes(tensor), None if why is not None else _digest(sample)


def _writes(tensor: Any) -> int | None:
    """How often a tensor of torch was written to; None where nobody counts."""
    return None if isinstance(tensor, np.ndarray) or tensor.is_inference() else int(tensor._version)


def _bytes_of(tensor: Any) -> Any:
    """The bytes of a tensor, if they lie in this machine's memory and are not too many."""
    if isinstance(tensor, np.ndarray):
        whole = tensor.nbytes <= HASHED_ARRAY and not _is_mapped(tensor)
        return np.ascontiguousarray(tensor).reshape(-1).view(np.uint8).data if whole else None
    torch: Any = sys.modules["torch"]
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    if not plain or tensor.device.type != "cpu" or tensor.nbytes > HASHED_TENSOR or tensor.is_conj() or tensor.is_neg():
        return None
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().data


def _is_mapped(array: Any) -> bool:
    """Whether an array's bytes are in a file."""
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap):
            return True
        array = array.base
    return False


def _digest(value: Any) -> bytes:
    encoded = encode(value, copy=False)
    digest = hashlib.blake2b(to_json(encoded.structure), digest_size=16)
    for name in sorted(encoded.tensors):
        tensor = encoded.tensors[name]
        digest.update(f"{name} {tensor.dtype} {tensor.shape}".encode())
        digest.update(tensor.data.tobytes())
    return digest.digest()
