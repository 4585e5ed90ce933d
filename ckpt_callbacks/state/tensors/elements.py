"""Element types: what safetensors calls them, and what the libraries do.

One that safetensors has no name for (``complex128``, ``int4``, ``float8_e4m3`` ...) is stored as ``U8`` with one more
axis at the end, as long as an element has bytes.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from ckpt_callbacks.errors import ConfigurationError

__all__ = [
    *("BIG_ENDIAN", "BITS", "BYTES_OF_OTHERS", "ELEMENT_OF", "NATIVE", "RefusedError", "element_of", "itemsize"),
    *("little_endian", "numpy_dtype", "numpy_name", "size_of", "stored_as"),
]

_FORMAT = (
    ("BOOL", 8, "bool"),
    ("F4", 4, None),
    ("F6_E2M3", 6, None),
    ("F6_E3M2", 6, None),
    ("U8", 8, "uint8"),
    ("I8", 8, "int8"),
    ("F8_E5M2", 8, "float8_e5m2"),
    ("F8_E4M3", 8, "float8_e4m3fn"),
    ("F8_E8M0", 8, "float8_e8m0fnu"),
    ("F8_E4M3FNUZ", 8, "float8_e4m3fnuz"),
    ("F8_E5M2FNUZ", 8, "float8_e5m2fnuz"),
    ("I16", 16, "int16"),
    ("U16", 16, "uint16"),
    ("F16", 16, "float16"),
    ("BF16", 16, "bfloat16"),
    ("I32", 32, "int32"),
    ("U32", 32, "uint32"),
    ("F32", 32, "float32"),
    ("C64", 64, "complex64"),
    ("F64", 64, "float64"),
    ("I64", 64, "int64"),
    ("U64", 64, "uint64"),
)
"""Every safetensors dtype in the order in which the format ranks them: its name, its bits, what libraries call it."""

BITS = {stored: bits for stored, bits, _ in _FORMAT}
"""Bits per element of every safetensors dtype, in the format's order."""

NATIVE = {element: stored for stored, _, element in _FORMAT if element}
ELEMENT_OF = {stored: element for element, stored in NATIVE.items()}

_OTHERS = {
    16: "complex128",
    4: "complex32 bcomplex32",
    2: "bits16",
    1: "float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float6_e2m3fn float6_e3m2fn float4_e2m1fn float4_e2m1fn_x2 "
    "bits8 bits1x8 bits2x4 bits4x2 int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7",
}
BYTES_OF_OTHERS = {element: size for size, elements in _OTHERS.items() for element in elements.split()}

_UNIT = r"(\[([1-9]\d{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
_DATETIME = re.compile(rf"(datetime64|timedelta64){_UNIT}")
_TEXT = re.compile(r"([<>]U|\|S)[1-9]\d{0,8}")
BIG_ENDIAN = re.compile(rf">([iuf][248]|c8|c16|[mM]8{_UNIT})")


class RefusedError(Exception):
    """Why a value can't be stored; whoever knows its path turns this into an ``UnstorableError``."""


def size_of(dtype: str, shape: Sequence[int]) -> int | None:
    """Bytes of a tensor of a safetensors dtype; None if that is no whole number. KeyError: no such dtype."""
    bits = BITS[dtype] * math.prod(shape)
    return bits // 8 if bits % 8 == 0 else None


def stored_as(dtype: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """The safetensors dtype and shape as which a library's ``dtype`` is stored. ValueError: no such dtype."""
    if native := NATIVE.get(dtype):
        return native, tuple(shape)
    if _DATETIME.fullmatch(dtype):
        return "I64", tuple(shape)
    if BIG_ENDIAN.fullmatch(dtype):
        return stored_as(np.dtype(dtype).newbyteorder("<").name, shape)
    return "U8", (*shape, itemsize(dtype))


def itemsize(dtype: str) -> int:
    """Bytes of one element of a library's ``dtype``. ValueError: no such dtype."""
    if native := NATIVE.get(dtype):
        return BITS[native] // 8
    if size := BYTES_OF_OTHERS.get(dtype):
        return size
    if _DATETIME.fullmatch(dtype):
        return 8
    if _TEXT.fullmatch(dtype) or BIG_ENDIAN.fullmatch(dtype):
        return np.dtype(dtype).itemsize
    raise ValueError(f"no element type is called {dtype!r}")


def numpy_name(dtype: np.dtype[Any]) -> str:
    """The name under which a numpy dtype is stored. ``RefusedError``: objects, records, platform-bound types."""
    if dtype.char in "gG" and dtype.isbuiltin == 1:  # ml_dtypes took the sign of a complex long double, too
        raise RefusedError(f"numpy's {dtype.name}, whose bytes mean something else on another platform")
    if dtype.kind in "US" and dtype.itemsize:
        return dtype.str
    name = dtype.name if dtype.isnative or dtype.kind not in "iufcmM" else dtype.str
    try:
        itemsize(name)
        numpy_dtype(name)
    except (ValueError, TypeError, ConfigurationError):
        raise RefusedError(f"elements of numpy dtype {dtype}") from None
    return name


def numpy_dtype(name: str) -> np.dtype[Any]:
    """The numpy dtype stored as ``name``. ValueError: there is none; ConfigurationError: it takes ml_dtypes."""
    itemsize(name)
    try:
        return np.dtype(name)
    except TypeError:
        try:
            element: type[np.generic] = getattr(importlib.import_module("ml_dtypes"), name)
            return np.dtype(element)
        except (ImportError, AttributeError, TypeError):
            raise ConfigurationError(
                f"the state holds elements of {name}, which numpy doesn't have: install ml_dtypes"
            ) from None


def element_of(name: str) -> np.dtype[Any]:
    """The numpy dtype stored as ``name``, or one with its bits: an unsigned integer of 1 or 2 bytes, else a void."""
    try:
        return numpy_dtype(name)
    except ConfigurationError:
        size = itemsize(name)
        return np.dtype({1: np.uint8, 2: np.uint16}.get(size, f"V{size}"))


def little_endian(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype as which an array is stored: numbers little-endian, text as it is."""
    return dtype if dtype.isnative or dtype.kind in "US" else dtype.newbyteorder("<")
