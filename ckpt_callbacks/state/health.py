"""Health: whether the numbers of a staged file are finite."""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ckpt_callbacks.state.pages import Bytes
from ckpt_callbacks.state.safetensors_file import Layout

__all__ = ["not_finite"]

PIECE = 1 << 19
"""Bytes that are looked at together: they fit into a core's own cache."""

_FLOATS = {"F64": np.float64, "F32": np.float32, "C64": np.float32, "F16": np.float16}
# Others have all bits of their exponent set in what is no finite number.
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "BF16": (np.uint16, 0x7F80),
    "F8_E5M2": (np.uint8, 0x7C),
}


def not_finite(layout: Layout, data: Bytes) -> Iterator[str]:
    """The names of the tensors that hold NaN or an infinity, in the file's order.

    Args:
        layout: of the file.
        data: its bytes.
    """
    entries = json.loads(layout.header[8:])
    for name, (start, stop) in layout.spans.items():
        if stop > start and not _is_finite(data[start:stop], entries[name]["dtype"]):
            yield name


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
