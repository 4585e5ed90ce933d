"""Values without children that JSON can't say exactly: each kind has a tag, fields that are plain JSON, and a way back.

``knows(kind)`` tells of which kinds, ``write(value)`` gives the tagged object, ``READERS`` has the way back for every
tag. Integers in fields are JSON numbers below 2**53 and ``0x...`` strings beyond.
"""

from __future__ import annotations

import array
import base64
import datetime
import decimal
import fractions
import importlib
import pathlib
import struct
import uuid
import zoneinfo
from collections.abc import Callable
from typing import Any

import numpy as np

from ckpt_callbacks.state.tensors.elements import RefusedError, numpy_dtype, numpy_name

__all__ = ["READERS", "SAFE_INTEGER", "knows", "write"]

Node = dict[str, Any]

SAFE_INTEGER = 2**53
"""Integers of this size or more don't survive every JSON parser."""


def knows(kind: type) -> bool:
    """Whether values of this type can be written here."""
    return _writer_of(kind) is not None


def write(value: Any) -> Node:
    """The tagged object for ``value``, of a type that is known here. ``RefusedError``: this one can't be stored."""
    writer = _writer_of(type(value))
    assert writer is not None, "whoever calls this has asked"
    return writer(value)


def _writer_of(kind: type) -> Callable[[Any], Node] | None:
    writer = _WRITERS.get(kind) or _LAZY_WRITERS.get((kind.__module__, kind.__qualname__))
    if writer is None and issubclass(kind, np.generic):
        return _write_scalar
    if writer is None and issubclass(kind, np.dtype):
        return _write_dtype
    return writer


# Numbers and text -----------------------------------------------------------------------------------------------------


def _integer(value: int) -> int | str:
    return value if abs(value) < SAFE_INTEGER else hex(value)


def _read_integer(field: Any) -> int:
    if type(field) is str:
        return int(field, 16)
    if type(field) is not int:
        raise TypeError(f"expected an integer, found {field!r}")
    return field


def _text(value: str) -> str | Node:
    """Text as JSON has it, unless it holds lone surrogates, which JSON may join to another character."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return {"$": "str", "base64": _base64(value.encode("utf-8", "surrogatepass"))}
    return value


def _read_text(field: Any) -> str:
    if type(field) is dict:
        return _bytes(field["base64"]).decode("utf-8", "surrogatepass")
    if type(field) is not str:
        raise TypeError(f"expected text, found {field!r}")
    return field


def _base64(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


def _bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _read_float(node: Node) -> float:
    (value,) = struct.unpack(">d", bytes.fromhex(node["hex"]))
    return float(value)


def _read_complex(node: Node) -> complex:
    return complex(*struct.unpack(">dd", bytes.fromhex(node["hex"])))


def _write_array(value: array.array[Any]) -> Node:
    code = "U" if value.typecode in "uw" else value.typecode
    if code == "U":
        return {"$": "array", "typecode": value.typecode, "text": _text(value.tounicode())}
    little = np.frombuffer(value, np.dtype(code)).astype(np.dtype(code).newbyteorder("<"))
    return {"$": "array", "typecode": code, "dtype": little.dtype.str, "base64": _base64(little.tobytes())}


def _read_array(node: Node) -> array.array[Any]:
    if "text" in node:
        return array.array(node["typecode"], _read_text(node["text"]))
    return array.array(node["typecode"], np.frombuffer(_bytes(node["base64"]), np.dtype(node["dtype"])).tolist())


def _read_fraction(node: Node) -> fractions.Fraction:
    numerator, denominator = map(_read_integer, node["items"])
    return fractions.Fraction(numerator, denominator)


def _read_range(node: Node) -> range:
    start, stop, step = map(_read_integer, node["items"])
    return range(start, stop, step)


# Dates ----------------------------------------------------------------------------------------------------------------


def _delta(value: datetime.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


def _write_zone(zone: datetime.tzinfo | None) -> Node | None:
    if zone is None:
        return None
    if type(zone) is zoneinfo.ZoneInfo and zone.key is not None:
        return {"$": "zoneinfo", "key": zone.key}
    if type(zone) is datetime.timezone:
        offset, *name = zone.__getinitargs__()  # type: ignore[attr-defined]  # str() can't tell whether it was given a name
        return {"$": "timezone", "offset": _delta(offset), **({"name": _text(name[0])} if name else {})}
    raise RefusedError(f"a time zone of type {type(zone).__module__}.{type(zone).__qualname__}")


def _read_timezone(node: Node) -> datetime.timezone:
    offset = datetime.timedelta(*map(_read_integer, node["offset"]))
    return datetime.timezone(offset, _read_text(node["name"])) if "name" in node else datetime.timezone(offset)


def _read_zone(node: Node | None) -> datetime.tzinfo | None:
    if node is None:
        return None
    return zoneinfo.ZoneInfo(node["key"]) if node["$"] == "zoneinfo" else _read_timezone(node)


def _write_clock(value: Any) -> Node:
    """A datetime or a time: what its clock shows, which of two equal ones (``fold``), and where."""
    plain = value.replace(tzinfo=None, fold=0).isoformat()
    return {"$": type(value).__name__, "iso": plain, "fold": value.fold, "zone": _write_zone(value.tzinfo)}


def _clock_reader(kind: Any) -> Callable[[Node], Any]:
    def read(node: Node) -> Any:
        return kind.fromisoformat(node["iso"]).replace(fold=node["fold"], tzinfo=_read_zone(node["zone"]))

    return read


# Paths ----------------------------------------------------------------------------------------------------------------


def _write_path(value: pathlib.PurePath) -> Node:
    pure = not isinstance(value, pathlib.Path)
    flavour = {"windows": True} if pure and isinstance(value, pathlib.PureWindowsPath) else {}
    return {"$": "purepath" if pure else "path", "text": _text(value.as_posix()), **flavour}


def _read_path(node: Node) -> pathlib.Path:
    return pathlib.Path(_read_text(node["text"]))


def _read_purepath(node: Node) -> pathlib.PurePath:
    flavour = pathlib.PureWindowsPath if node.get("windows") else pathlib.PurePosixPath
    return flavour(_read_text(node["text"]))


# Libraries ------------------------------------------------------------------------------------------------------------


def _write_scalar(value: np.generic) -> Node:
    return {"$": "numpy.scalar", "dtype": numpy_name(value.dtype), "hex": value.tobytes().hex()}


def _write_dtype(value: np.dtype[Any]) -> Node:
    return {"$": "numpy.dtype", "name": numpy_name(value)}


def _read_scalar(node: Node) -> Any:
    dtype = numpy_dtype(node["dtype"])
    (value,) = np.frombuffer(bytes.fromhex(node["hex"]), dtype)
    return value


def _torch() -> Any | None:
    """Torch, or None where it isn't installed: its dtypes and devices come back as text then, its sizes as tuples."""
    try:
        return importlib.import_module("torch")
    except ImportError:
        return None


def _read_torch_dtype(node: Node) -> Any:
    torch, name = _torch(), _read_text(node["name"])
    if torch is None:
        return name
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype):
        raise ValueError(f"torch has no dtype {name!r}")
    return dtype


def _read_torch_device(node: Node) -> Any:
    torch, name = _torch(), _read_text(node["name"])
    return name if torch is None else torch.device(name)


def _read_torch_size(node: Node) -> Any:
    torch, sizes = _torch(), tuple(map(_read_integer, node["items"]))
    return sizes if torch is None else torch.Size(sizes)


_WRITERS: dict[type, Callable[[Any], Node]] = {
    int: lambda value: {"$": "int", "hex": hex(value)},
    float: lambda value: {"$": "float", "hex": struct.pack(">d", value).hex()},
    complex: lambda value: {"$": "complex", "hex": struct.pack(">dd", value.real, value.imag).hex()},
    str: lambda value: {"$": "str", "base64": _base64(value.encode("utf-8", "surrogatepass"))},
    bytes: lambda value: {"$": "bytes", "base64": _base64(value)},
    bytearray: lambda value: {"$": "bytearray", "base64": _base64(value)},
    array.array: _write_array,
    range: lambda value: {"$": "range", "items": [_integer(i) for i in (value.start, value.stop, value.step)]},
    decimal.Decimal: lambda value: {"$": "decimal", "text": str(value)},
    fractions.Fraction: lambda value: {"$": "fraction", "items": [_integer(i) for i in value.as_integer_ratio()]},
    uuid.UUID: lambda value: {"$": "uuid", "hex": value.hex},
    datetime.date: lambda value: {"$": "date", "iso": value.isoformat()},
    datetime.time: _write_clock,
    datetime.datetime: _write_clock,
    datetime.timedelta: lambda value: {"$": "timedelta", "items": _delta(value)},
    datetime.timezone: lambda value: _write_zone(value) or {},
    zoneinfo.ZoneInfo: lambda value: _write_zone(value) or {},
    **dict.fromkeys(
        [pathlib.PosixPath, pathlib.WindowsPath, pathlib.PurePosixPath, pathlib.PureWindowsPath],
        _write_path,
    ),
    np.str_: lambda value: {"$": "numpy.str", "text": _text(str(value))},
    np.bytes_: lambda value: {"$": "numpy.bytes", "base64": _base64(bytes(value))},
}

_LAZY_WRITERS: dict[tuple[str, str], Callable[[Any], Node]] = {
    ("torch", "dtype"): lambda value: {"$": "torch.dtype", "name": str(value)[6:]},
    ("torch", "device"): lambda value: {"$": "torch.device", "name": str(value)},
    ("torch", "Size"): lambda value: {"$": "torch.Size", "items": list(value)},
}

READERS: dict[str, Callable[[Node], Any]] = {
    "int": lambda node: int(node["hex"], 16),
    "float": _read_float,
    "complex": _read_complex,
    "str": _read_text,
    "bytes": lambda node: _bytes(node["base64"]),
    "bytearray": lambda node: bytearray(_bytes(node["base64"])),
    "array": _read_array,
    "range": _read_range,
    "decimal": lambda node: decimal.Decimal(_read_text(node["text"])),
    "fraction": _read_fraction,
    "uuid": lambda node: uuid.UUID(hex=node["hex"]),
    "date": lambda node: datetime.date.fromisoformat(node["iso"]),
    "time": _clock_reader(datetime.time),
    "datetime": _clock_reader(datetime.datetime),
    "timedelta": lambda node: datetime.timedelta(*map(_read_integer, node["items"])),
    "timezone": _read_timezone,
    "zoneinfo": _read_zone,
    "path": _read_path,
    "purepath": _read_purepath,
    "numpy.scalar": _read_scalar,
    "numpy.str": lambda node: np.str_(_read_text(node["text"])),
    "numpy.bytes": lambda node: np.bytes_(_bytes(node["base64"])),
    "numpy.dtype": lambda node: numpy_dtype(node["name"]),
    "torch.dtype": _read_torch_dtype,
    "torch.device": _read_torch_device,
    "torch.Size": _read_torch_size,
}
"""From a tag to the function that reads its object; what such a function raises means that the object is malformed."""
