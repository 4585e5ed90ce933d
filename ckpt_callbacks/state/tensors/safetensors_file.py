"""Files in the official safetensors format: laid out before any byte moves, written as they lie, read through a memory
map.

The layout of a file follows from the tensors' dtypes and shapes alone: eight bytes with the header's length, the header
(JSON, padded with spaces), then the tensors without gaps, ordered by dtype (the widest first) and name. Data starts at
a multiple of 8. In a file of more than 1 MiB it starts at one of 4096, so that a writer may bypass the page cache, and
tensors of a multiple of 64 bytes come first: they can be used where the file was read to.

Reading trusts nothing: sizes, offsets and names are all checked against the file before the first tensor is handed out.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ckpt_callbacks.door import IrregularError, reading
from ckpt_callbacks.errors import ConfigurationError, CorruptSnapshotError
from ckpt_callbacks.state.memory.pages import PAGE, Bytes
from ckpt_callbacks.state.tensors.elements import BITS, size_of
from ckpt_callbacks.state.tensors.tensor import HostTensor, Source

__all__ = ["ALIGNMENT", "Image", "Layout", "SafetensorsFile", "open_bytes", "open_file"]

MAX_HEADER = 100_000_000
"""The most bytes that a header may have; the format's own limit."""

_METADATA = "__metadata__"
_RANK = {dtype: rank for rank, dtype in enumerate(BITS)}
_SMALL = 1 << 20

ALIGNMENT = 64
"""What the addresses of tensors are multiples of, in the libraries' own allocators."""


class Specified(Protocol):
    """Anything whose place in a file is known: a ``HostTensor``, or a ``Source`` with its bytes still to be fetched."""

    @property
    def dtype(self) -> str:
        """The safetensors name of its element type."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything in a file lies, in bytes from its start.

    ``header`` is the first part of the file, its length word and padding included; ``spans`` has every tensor's start
    and stop, in file order; ``size`` is that of the whole file.
    """

    header: bytes
    spans: dict[str, tuple[int, int]]
    size: int

    @classmethod
    def of(cls, tensors: Mapping[str, Specified], metadata: Mapping[str, str] | None = None) -> Layout:
        """Lay out a file. ConfigurationError: a name can't be stored, or the header would be too large."""
        relative: dict[str, tuple[int, int]] = {}
        entries: dict[str, Any] = {_METADATA: dict(sorted(metadata.items()))} if metadata else {}
        sizes = {name: _size(name, tensor) for name, tensor in tensors.items()}
        end = 0
        for name in _ordered(tensors, sizes):
            tensor, size = tensors[name], sizes[name]
            relative[name] = (end, end + size)
            entries[name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [end, end + size]}
            end += size
        header = _header(entries, end)
        start = len(header)
        return cls(header, {name: (start + a, start + b) for name, (a, b) in relative.items()}, start + end)


def _size(name: str, tensor: Specified) -> int:
    size = size_of(tensor.dtype, tensor.shape)
    if size is None or name == _METADATA:
        raise ConfigurationError(f"safetensors can't hold {name!r}, {tensor.dtype} {tensor.shape}")
    return size


def _ordered(tensors: Mapping[str, Specified], sizes: Mapping[str, int]) -> list[str]:
    """The order in the file: the official one, but in a large file after whatever leaves the next one aligned."""
    large = sum(sizes.values()) > _SMALL

    def place(name: str) -> tuple[bool, int, bytes]:
        odd = large and sizes[name] % ALIGNMENT != 0
        return odd, -_RANK[tensors[name].dtype], name.encode("utf-8", "replace")

    return sorted(tensors, key=place)


def _header(entries: Mapping[str, Any], data_size: int) -> bytes:
    """The length word, the entries as JSON, and spaces up to where the data starts."""
    try:
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"a name or metadata can't be written as UTF-8: {error}") from error
    step = PAGE if data_size > _SMALL else 8
    length = -(-(8 + len(text)) // step) * step - 8
    if length > MAX_HEADER:
        raise ConfigurationError(
            f"the header would have {length:,} bytes, the format allows {MAX_HEADER:,}: use fewer tensors"
        )
    return length.to_bytes(8, "little") + text.ljust(length)


@dataclass(frozen=True, slots=True)
class Image:
    """A whole file as it will lie on disk: its layout, and the tensors whose bytes are still to be copied there."""

    layout: Layout
    tensors: Mapping[str, Source]

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self.layout.size

    def begin(self, out: Bytes) -> Iterator[tuple[Source, int, int]]:
        """Write the header to ``out``, of exactly ``size``; give each tensor, and from where to where it belongs."""
        header = self.layout.header
        out[: len(header)] = np.frombuffer(header, np.uint8)
        for name, (start, stop) in self.layout.spans.items():
            yield self.tensors[name], start, stop


class SafetensorsFile(Mapping[str, HostTensor]):
    """The tensors of an open file by name, in file order; their data lies in the file, mapped into memory.

    A tensor keeps the map alive, also when the file is renamed or removed meanwhile. ``metadata`` is the header's.
    """

    def __init__(self, path: Path, tensors: dict[str, HostTensor], metadata: dict[str, str]) -> None:
        self.path = path
        self.metadata = metadata
        self._tensors = tensors

    def __getitem__(self, name: str) -> HostTensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"SafetensorsFile({str(self.path)!r}, {len(self)} tensors)"


def open_file(path: str | os.PathLike[str], *, writable: bool = False) -> SafetensorsFile:
    """Open a safetensors file, whoever wrote it.

    The data is mapped read-only; with ``writable`` writing to it changes a private copy of the page in memory, never
    the file.

    Raises:
        CorruptSnapshotError: it isn't there, something else (a link) lies in its place, or it is no intact safetensors
            file; says which file and which tensor.
        OSError: it can't be read now.
    """
    path = Path(path)
    try:
        with reading(path) as file:
            empty = not os.fstat(file.fileno()).st_size  # which can't be mapped
            mapped = np.empty(0, np.uint8) if empty else np.memmap(file, np.uint8, "c" if writable else "r")
    except (FileNotFoundError, NotADirectoryError, IrregularError) as error:
        raise CorruptSnapshotError(f"{path} is missing: {error.strerror}") from error
    return open_bytes(mapped.view(np.ndarray), path)


def open_bytes(file: Bytes, path: Path) -> SafetensorsFile:
    """The same for a file that is in memory; its tensors lie there. ``path`` is what errors call it."""
    head = file[:8].tobytes()
    length = int.from_bytes(head, "little")
    try:
        if len(head) < 8 or length > min(MAX_HEADER, file.nbytes - 8):
            raise _MalformedError(f"its header should have {length:,} bytes, the file has {file.nbytes:,}")
        specified, metadata = _parse(file[8 : 8 + length].tobytes(), file.nbytes - 8 - length)
    except _MalformedError as error:
        raise CorruptSnapshotError(f"{path} is no intact safetensors file: {error}") from error
    data = file[8 + length :]
    tensors = {name: HostTensor(dtype, shape, data[a:b]) for name, (dtype, shape, a, b) in specified.items()}
    return SafetensorsFile(path, tensors, metadata)


class _MalformedError(Exception):
    """What about a header is not as the format says."""


def _parse(text: bytes, data_size: int) -> tuple[dict[str, tuple[str, tuple[int, ...], int, int]], dict[str, str]]:
    """Every tensor's dtype, shape, start and stop by name, and the metadata, all checked."""
    try:
        header = json.loads(text.decode(), object_pairs_hook=_without_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise _MalformedError(f"its header can't be parsed: {error}") from error
    if not text.startswith(b"{"):
        raise _MalformedError("its header is no JSON object")
    metadata = header.pop(_METADATA, {})
    if type(metadata) is not dict or any(type(value) is not str for value in metadata.values()):
        raise _MalformedError(f"{_METADATA} maps names to strings, found {metadata!r:.100}")
    specified = {name: _entry(name, entry) for name, entry in header.items()}
    end = 0
    ordered = dict(sorted(specified.items(), key=lambda item: item[1][2:]))
    for name, (_, _, start, stop) in ordered.items():
        if start != end:
            raise _MalformedError(
                f"tensor {name!r} starts at byte {start:,} of the data, expected {end:,}: no gaps, no overlaps"
            )
        end = stop
    if end != data_size:
        raise _MalformedError(f"its tensors should have {end:,} bytes, the file has {data_size:,}")
    return ordered, metadata


def _entry(name: str, entry: Any) -> tuple[str, tuple[int, ...], int, int]:
    """A tensor's dtype, shape, start and stop, consistent in themselves."""
    try:
        dtype, shape, (start, stop) = entry["dtype"], entry["shape"], entry["data_offsets"]
        numbers = [*shape, start, stop]
        valid = dtype in BITS and type(shape) is list and all(type(n) is int and 0 <= n < 2**63 for n in numbers)
    except (LookupError, TypeError, ValueError):
        valid = False
    if not valid:
        raise _MalformedError(f"tensor {name!r} needs a known dtype, a shape and data_offsets, found {entry!r:.200}")
    if size_of(dtype, shape) != stop - start:
        raise _MalformedError(f"tensor {name!r} is {dtype} {shape}, which doesn't take {stop - start:,} bytes")
    return dtype, tuple(shape), start, stop


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) < len(pairs):
        raise ValueError("a name occurs twice")
    return result


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")
