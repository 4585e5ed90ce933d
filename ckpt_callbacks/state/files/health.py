"""Health: whether the numbers of live weights, or of a staged file, are finite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from ckpt_callbacks.state.memory.pages import Bytes
from ckpt_callbacks.state.tensors.elements import RefusedError
from ckpt_callbacks.state.tensors.libraries import library_of
from ckpt_callbacks.state.tensors.safetensors_file import Layout
from ckpt_callbacks.state.tensors.tensor import Leaf, Library

__all__ = ["first_not_finite", "not_finite"]

PIECE = 1 << 19
"""Bytes that are looked at together: they fit into a core's own cache."""

Span = tuple[str, int, int, str]
"""A tensor's name, its start and stop in the file, and its type."""

_FLOATS = {"F64": np.float64, "F32": np.float32, "C64": np.float32, "F16": np.float16}
# Of others: the bits but the sign, which an infinity has, and NaN exceeds.
_INFINITY: dict[str, tuple[type[np.unsignedinteger], int, int]] = {
    "BF16": (np.uint16, 0x7FFF, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7F, 0x7C),
}
# These have no infinity, and NaN in so few ways.
_NANS = {"F8_E4M3": (0x7F, 0xFF), "F8_E8M0": (0xFF,), "F8_E4M3FNUZ": (0x80,), "F8_E5M2FNUZ": (0x80,)}


def first_not_finite(weights: Mapping[str, Any], trained: Set[str]) -> str | None:
    """The name of the first of these live tensors that holds NaN, or that is trained and holds an infinity.

    None if there is none. Where nothing is trained, an infinity may be meant: a mask is made of them.
    """
    leaves = {name: leaf for name, value in weights.items() if (leaf := _look(value)) is not None}
    by_library: dict[Library, list[Any]] = {}
    for leaf in leaves.values():
        by_library.setdefault(leaf.library, []).append(leaf.array)
    doubtful = {library for library, arrays in by_library.items() if not library.add_up(arrays)}
    return next(
        (
            name
            for name, leaf in leaves.items()
            if leaf.library in doubtful and not _is_leaf_sound(leaf, name in trained)
        ),
        None,
    )


def _look(value: Any) -> Leaf | None:
    """A live tensor, if it is one that can be stored: others are named as missing by whoever packs them."""
    library = library_of(value)
    try:
        return library.look(value) if library is not None else None
    except RefusedError:
        return None


def _is_leaf_sound(leaf: Leaf, trained: bool) -> bool:
    host = leaf.source().host(copy=False)
    return _is_sound(host.data, host.dtype, trained)


def not_finite(layout: Layout, data: Bytes, trained: Set[str]) -> Iterator[str]:
    """The names of the tensors that hold NaN, or that are trained and hold an infinity, in the file's order.

    Args:
        layout: of the file.
        data: its bytes.
        trained: of which tensors an infinity counts.
    """
    entries = json.loads(layout.header[8:])
    spans = [(name, *span, entries[name]["dtype"]) for name, span in layout.spans.items()]
    for group in _neighbours(spans):
        _, start, _, dtype = group[0]
        stop = group[-1][2]
        if not _is_sound(data[start:stop], dtype):  # then it is worth a look at each
            yield from (
                name for name, begin, end, kind in group if not _is_sound(data[begin:end], kind, name in trained)
            )


def _neighbours(spans: Iterable[Span]) -> Iterator[list[Span]]:
    """Tensors of one type that lie side by side: thousands of small ones are looked at as one."""
    group: list[Span] = []
    for span in spans:
        if group and (group[-1][2] != span[1] or group[-1][3] != span[3]):
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def _is_sound(data: Bytes, dtype: str, trained: bool = True) -> bool:
    """Whether none of these numbers is NaN, nor an infinity that is ``trained``."""
    pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
    if dtype in _FLOATS:
        return all(_sums_up(piece.view(_FLOATS[dtype]), trained) for piece in pieces)
    if dtype in _INFINITY:
        kind, magnitude, infinity = _INFINITY[dtype]
        limit = kind(infinity - trained)
        return all(bool(((piece.view(kind) & kind(magnitude)) <= limit).all()) for piece in pieces)
    return not any(bool((piece == nan).any()) for piece in pieces for nan in _NANS.get(dtype, ()))


def _sums_up(numbers: npt.NDArray[np.floating], trained: bool) -> bool:
    """NaN and infinities make a sum that is none, and a sum takes half the time of a look at each number."""
    with np.errstate(all="ignore"):
        total = numbers.sum(dtype=numbers.dtype)
        if trained:
            return bool(np.isfinite(total)) or bool(np.isfinite(numbers).all())
        return not np.isnan(total) or not np.isnan(numbers).any()
