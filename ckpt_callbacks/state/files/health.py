"""Health: whether the numbers of live weights, or of a staged file, are finite."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from typing import Any

import numpy as np
import numpy.typing as npt

from ckpt_callbacks.state.memory.pages import Bytes
from ckpt_callbacks.state.tensors.libraries import library_of
from ckpt_callbacks.state.tensors.safetensors_file import Layout

__all__ = ["first_not_finite", "not_finite"]

PIECE = 1 << 19
"""Bytes that are looked at together: they fit into a core's own cache."""

Span = tuple[str, int, int, str]
"""A tensor's name, its start and stop in the file, and its type."""

_FLOATS = {"F64": np.float64, "F32": np.float32, "C64": np.float32, "F16": np.float16}
# Others have all bits of their exponent set in what is no finite number.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
}


def first_not_finite(weights: Mapping[str, Any], names: Set[str]) -> str | None:
    """The name of the first of these live tensors that holds NaN or an infinity; None if all are finite."""
    return next((name for name, value in weights.items() if name in names and not _has_only_numbers(value)), None)


def _has_only_numbers(value: Any) -> bool:
    library = library_of(value)
    if library is None:
        return True
    host = library.look(value).source().host(copy=False)
    return _is_finite(host.data, host.dtype)


def not_finite(layout: Layout, data: Bytes, names: Set[str]) -> Iterator[str]:
    """The names of the tensors that hold NaN or an infinity, in the file's order.

    Args:
        layout: of the file.
        data: its bytes.
        names: which tensors are looked at.
    """
    entries = json.loads(layout.header[8:])
    watched = [(name, *span, entries[name]["dtype"]) for name, span in layout.spans.items() if name in names]
    for group in _neighbours(watched):
        _, start, _, dtype = group[0]
        stop = group[-1][2]
        if stop > start and not _is_finite(data[start:stop], dtype):  # then it is worth a look at each
            yield from (
                name for name, begin, end, kind in group if end > begin and not _is_finite(data[begin:end], kind)
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


def _is_finite(data: Bytes, dtype: str) -> bool:
    pieces = (data[start : start + PIECE] for start in range(0, len(data), PIECE))
    if dtype in _FLOATS:
        return all(_sums_up(piece.view(_FLOATS[dtype])) for piece in pieces)
    if dtype in _EXPONENTS:
        kind, exponent = _EXPONENTS[dtype]
        return all(bool(((piece.view(kind) & kind(exponent)) != exponent).all()) for piece in pieces)
    return True


def _sums_up(numbers: npt.NDArray[np.floating]) -> bool:
    """NaN and infinities make a sum that is none, and a sum takes half the time of a look at each number."""
    with np.errstate(all="ignore"):
        return bool(np.isfinite(numbers.sum(dtype=numbers.dtype))) or bool(np.isfinite(numbers).all())
