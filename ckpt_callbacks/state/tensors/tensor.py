"""Tensors as plain bytes in host memory (`HostTensor`), and on the way there (`Leaf`, `Source`).

``HostTensor`` is what a file holds: a safetensors dtype, a shape and the bytes in C order, little-endian.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ckpt_callbacks.state.memory.copying import Lent
from ckpt_callbacks.state.memory.pages import Bytes
from ckpt_callbacks.state.tensors.elements import BITS, ELEMENT_OF, element_of, size_of, stored_as

__all__ = [
    *("Expansion", "HostTensor", "Leaf", "Library", "Memory", "Source", "as_numpy", "c_strides", "extent"),
    *("memory_order", "ordered_strides", "permuted"),
]


@dataclass(frozen=True, slots=True, eq=False)
class HostTensor:
    """A tensor in host memory, as a safetensors file holds it.

    ``dtype`` is the safetensors name, ``data`` the elements' bytes in C order, little-endian: a flat array of uint8,
    possibly borrowed from a live tensor or a memory-mapped file, and then only as valid (or as writable) as that.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Bytes

    def __post_init__(self) -> None:
        if self.data.dtype != np.uint8 or self.data.ndim != 1 or not self.data.flags.c_contiguous:
            raise ValueError(f"the data of a HostTensor must be a flat contiguous array of uint8, found {self.data!r}")
        if size_of(self.dtype, self.shape) != self.data.nbytes:
            raise ValueError(f"{self.dtype} {self.shape} can't have {self.data.nbytes} bytes")

    @property
    def nbytes(self) -> int:
        """How many bytes the data has."""
        return self.data.nbytes


def as_numpy(host: HostTensor) -> npt.NDArray[Any]:
    """A numpy array over the same bytes, without a copy; writable only if they are.

    bfloat16 and the float8 types have their ml_dtypes type if that package can be imported, else uint16 and uint8 with
    the same bits. Types of less than a byte (``F4``, ``F6_*``) come as their packed bytes, flat.
    """
    element = ELEMENT_OF.get(host.dtype)
    return host.data if element is None else host.data.view(element_of(element)).reshape(host.shape)


MOST_TIMES = 64
"""How many times as many bytes as its memory has the elements of a view may take, whatever that comes to."""

MOST_EXPANDED = 256 << 20
"""How many bytes all others of a tree may take together."""

# Looking at a tensor --------------------------------------------------------------------------------------------------


class Memory(NamedTuple):
    """Where a tensor's elements lie: in ``space``, from address ``start`` to ``stop``, its first one at ``first``."""

    space: Hashable
    start: int
    stop: int
    first: int


class Leaf(NamedTuple):
    """A tensor as found in a tree, before a byte of it is read.

    ``strides`` are in bytes. ``memory`` is None where nothing else can write to the same elements. ``order`` lists the
    axes from the outermost to the innermost in memory if the elements are dense but not in C order (channels-last,
    Fortran). ``extra`` goes into the structure as it is.
    """

    library: Library
    array: Any
    dtype: str
    shape: tuple[int, ...]
    strides: tuple[int, ...] = ()
    memory: Memory | None = None
    order: tuple[int, ...] | None = None
    extra: dict[str, Any] | None = None

    def source(self) -> Source:
        """Where the bytes of this tensor, alone and in C order, come from."""
        dtype, shape = stored_as(self.dtype, self.shape)
        return Source(dtype, shape, self.library, self.array)


class Source(NamedTuple):
    """A tensor that is about to be stored: its place in a file is known, its bytes are still with the library."""

    dtype: str
    shape: tuple[int, ...]
    library: Library
    array: Any

    @property
    def nbytes(self) -> int:
        """How many bytes it has."""
        return BITS[self.dtype] * math.prod(self.shape) // 8

    def copy_into(self, out: Bytes) -> None:
        """Copy the bytes to ``out``, of exactly ``nbytes``. Those of a GPU's may arrive later: see `devices.Flight`."""
        if self.nbytes:
            self.library.copy_into(self.array, out)

    def lent(self, steady: Mapping[int, Any]) -> Lent | None:
        """The bytes, to be copied later, if somebody vouches for that.

        Args:
            steady: address -> the live tensor there, which should not change for a while.
        """
        return self.library.lend(self.array, steady)

    def host(self, *, copy: bool) -> HostTensor:
        """The bytes in host memory: its own with ``copy``, else borrowed from the live tensor where that can be."""
        if not self.nbytes:
            return HostTensor(self.dtype, self.shape, np.empty(0, np.uint8))
        data, owned = self.library.fetch(self.array)
        return HostTensor(self.dtype, self.shape, data.copy() if copy and not owned else data)


class Library(Protocol):
    """What this package needs to know of a tensor library."""

    name: str

    def look(self, value: Any) -> Leaf:
        """Describe ``value``, a value whose type comes from this library. ``RefusedError``: it can't be stored."""

    def fetch(self, array: Any) -> tuple[Bytes, bool]:
        """The elements' bytes in C order in host memory, and whether they belong to nobody else."""

    def copy_into(self, array: Any, out: Bytes) -> None:
        """Copy the elements' bytes in C order to ``out``, from a GPU by a copy that is only queued."""

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        """Copy the elements' bytes of all of them to ``out``, one after the other, if that can be done at once."""

    def add_up(self, arrays: Sequence[Any]) -> bool:
        """Whether every one's elements have a finite sum, if the library can tell sooner than a look at the bytes."""

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        """The elements' bytes in C order, if they are among those in ``steady``, and changes are counted."""

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        """The memory from address ``start`` to ``stop`` around ``array``, as bytes; None if it isn't one block."""

    def allocate(self, nbytes: int) -> Bytes:
        """Fresh memory to make tensors in."""

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        """The tensor over ``data`` whose first element lies at ``offset``; ``strides`` in bytes."""


def c_strides(shape: Sequence[int], size: int) -> tuple[int, ...]:
    """The strides, in bytes, of a C-contiguous array with elements of ``size`` bytes."""
    return ordered_strides(shape, range(len(shape)), size)


def ordered_strides(shape: Sequence[int], order: Sequence[int], size: int) -> tuple[int, ...]:
    """The strides, in bytes, of a dense array whose axes lie in memory as ``order`` says, outermost first."""
    strides = [0] * len(shape)
    for axis in reversed(order):
        strides[axis] = size
        size *= max(shape[axis], 1)
    return tuple(strides)


def memory_order(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> tuple[int, ...] | None:
    """The axes from outermost to innermost if the elements are dense in memory, but not in C order; else None."""
    wide = [axis for axis, n in enumerate(shape) if n != 1]
    c_order = c_strides(shape, size)
    if all(strides[axis] == c_order[axis] for axis in wide) or 0 in shape:
        return None
    order = tuple(sorted(range(len(shape)), key=lambda axis: (-strides[axis], axis)))
    dense = ordered_strides(shape, order, size)
    return order if all(strides[axis] == dense[axis] for axis in wide) else None


def extent(shape: tuple[int, ...], strides: tuple[int, ...], size: int) -> tuple[int, int]:
    """The first and the last-plus-one byte that a tensor touches, relative to its first element."""
    reach = [(n - 1) * stride for n, stride in zip(shape, strides, strict=True)]
    return sum(step for step in reach if step < 0), sum(step for step in reach if step > 0) + size


class Expansion:
    """How much more than their memory the elements of a tree's tensors would take: an axis whose stride is 0, or
    windows that overlap, make any number of few bytes, and whoever copies such a view allocates them all.

    Who writes a tree and who reads one count the same, so that what was written is read.
    """

    def __init__(self) -> None:
        self._spent = 0

    def refuses(self, shape: Sequence[int], size: int, nbytes: int) -> str | None:
        """Why a tensor with elements of ``size`` bytes over ``nbytes`` of memory is too much; None if it isn't."""
        needed = math.prod(shape) * size
        if needed <= MOST_TIMES * nbytes:
            return None
        if self._spent + needed > MOST_EXPANDED:
            return (
                f"its {needed:,} bytes of elements lie in {nbytes:,} bytes of memory: expected at most {MOST_TIMES} "
                f"times as many, or {MOST_EXPANDED:,} in all"
            )
        self._spent += needed
        return None


def permuted(data: Bytes, shape: tuple[int, ...], order: tuple[int, ...], size: int, out: Bytes) -> Bytes:
    """``out``, filled with the elements of ``data`` (C order, each of ``size`` bytes) in the memory order ``order``."""
    element = np.dtype(f"V{size}")
    target = np.ndarray([shape[axis] for axis in order], element, out)
    target[...] = np.ndarray(shape, element, data).transpose(order)
    return out
