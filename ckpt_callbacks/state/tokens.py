"""Whether a value changed since it was looked at first: what is compared, and what is stored of it.

Plain values are compared bit for bit. What is large costs time at every save, so it is compared by as much as is cheap:
tensors by a hash of their bytes or a sample of these, containers by the identity of their items.
"""

from __future__ import annotations

import hashlib
import marshal
import sys
from collections import OrderedDict, deque
from typing import Any

import numpy as np
import xxhash

from ckpt_callbacks.errors import UnstorableError
from ckpt_callbacks.state.kinds import base_of, is_frameworks, is_of_its_own_kind, is_stateful, is_tensor, is_variable
from ckpt_callbacks.state.parts import content_of, items_of
from ckpt_callbacks.state.tree import encode, to_json

__all__ = ["MAX_ITEMS", "is_bulky", "is_large", "storable", "token"]

MAX_ITEMS = 10_000
"""How many items a container may hold, in all its depth, to be compared by content; beyond, by its items' identity."""

TENSOR_COUNTS = 20
"""As how many items a tensor in a container counts: it takes so much longer to compare."""

LARGE = 1 << 20
"""From how many bytes on a tensor is compared by a hash of its bytes."""

HASHED_ARRAY, HASHED_TENSOR = 256 << 20, 16 << 20
"""From how many bytes on one is compared by a sample. Torch counts the writes to its tensors, numpy does not."""

_SIMPLE = frozenset((type(None), bool, int, float, str, bytes))
_PLAIN = _SIMPLE | {tuple}
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


def storable(value: Any) -> tuple[Any, str | None]:
    """What is stored for a value, and why it can't be."""
    if is_variable(value):
        value = value.numpy()
    stored = {"state_dict": value.state_dict()} if is_stateful(value) else _plain(value)
    try:
        encode(stored, copy=False)
    except UnstorableError:
        return None, f"{type(value).__name__} can't be stored without pickle"
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
    """Whether a tensor is better compared by itself, and not bit by bit with what else a container holds."""
    return bool(tensor.nbytes >= LARGE)


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
    """Plain items by content, in one go; others by identity and what of them can be had at once."""
    items = list(items_of(container))
    keys = list(content_of(container)) if base_of(container) in (dict, OrderedDict) else []
    data = _dumped([keys, items]) if _PLAIN.issuperset(map(type, items)) else None
    return xxhash.xxh3_128_digest(data) if data is not None else (len(items), hash(tuple(map(_glance, items))))


def _dumped(items: list[Any]) -> bytes | None:
    """Plain values as bytes, only to compare them (nothing is ever loaded from these); None if some are not plain."""
    try:
        return marshal.dumps(items, 2)
    except ValueError:
        return None


def _glance(item: Any) -> Any:
    """What shows at once whether an item of a large container is the same."""
    if type(item) is np.ndarray and item.nbytes < LARGE and item.flags.c_contiguous and item.dtype.kind in "biufc":
        return xxhash.xxh3_64_intdigest(item.data)
    base = base_of(item)
    return id(item), None if base is None else base.__len__(item), _writes(item) if is_tensor(item) else None


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
