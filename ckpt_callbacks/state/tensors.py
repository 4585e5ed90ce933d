"""Tensors of four libraries as plain bytes in host memory, and back, bit for bit.

``HostTensor`` is what a file holds: a safetensors dtype, a shape and the bytes in C order, little-endian. One small
class per library (torch, numpy, tensorflow, jax) knows how to look at a tensor, fetch its bytes and make it again. A
library is found by the module that a value's type comes from; none is imported until a tensor of it has to be made.

An element type that safetensors has no name for (``complex128``, ``int4``, ``float8_e4m3`` ...) is stored as ``U8``
with one more axis at the end, as long as an element has bytes.
"""

from __future__ import annotations

import functools
import importlib
import math
import re
import sys
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from ckpt_callbacks.errors import ConfigurationError
from ckpt_callbacks.state.copying import Lent
from ckpt_callbacks.state.pages import Bytes, fresh

__all__ = ["HostTensor", "Source", "as_numpy"]

LARGE = 4 << 20
"""From how many bytes on a tensor gets pages of its own."""

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

_NATIVE = {element: stored for stored, _, element in _FORMAT if element}
_ELEMENT_OF = {stored: element for element, stored in _NATIVE.items()}

_OTHERS = {
    16: "complex128",
    4: "complex32 bcomplex32",
    2: "bits16",
    1: "float8_e3m4 float8_e4m3 float8_e4m3b11fnuz float6_e2m3fn float6_e3m2fn float4_e2m1fn float4_e2m1fn_x2 "
    "bits8 bits1x8 bits2x4 bits4x2 int1 int2 int3 int4 int5 int6 int7 uint1 uint2 uint3 uint4 uint5 uint6 uint7",
}
_BYTES_OF_OTHERS = {element: size for size, elements in _OTHERS.items() for element in elements.split()}

_UNIT = r"(\[([1-9]\d{0,8})?(Y|M|W|D|h|m|s|ms|us|ns|ps|fs|as)\])?"
_DATETIME = re.compile(rf"(datetime64|timedelta64){_UNIT}")
_TEXT = re.compile(r"([<>]U|\|S)[1-9]\d{0,8}")
_BIG_ENDIAN = re.compile(rf">([iuf][248]|c8|c16|[mM]8{_UNIT})")


class RefusedError(Exception):
    """Why a value can't be stored; whoever knows its path turns this into an ``UnstorableError``."""


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

    def source(self) -> Source:
        """The same, to be stored again."""
        return Source(self.dtype, self.shape, NUMPY, self.data)


def size_of(dtype: str, shape: Sequence[int]) -> int | None:
    """Bytes of a tensor of a safetensors dtype; None if that is no whole number. KeyError: no such dtype."""
    bits = BITS[dtype] * math.prod(shape)
    return bits // 8 if bits % 8 == 0 else None


def stored_as(dtype: str, shape: Sequence[int]) -> tuple[str, tuple[int, ...]]:
    """The safetensors dtype and shape as which a library's ``dtype`` is stored. ValueError: no such dtype."""
    if native := _NATIVE.get(dtype):
        return native, tuple(shape)
    if _DATETIME.fullmatch(dtype):
        return "I64", tuple(shape)
    if _BIG_ENDIAN.fullmatch(dtype):
        return stored_as(np.dtype(dtype).newbyteorder("<").name, shape)
    return "U8", (*shape, itemsize(dtype))


def itemsize(dtype: str) -> int:
    """Bytes of one element of a library's ``dtype``. ValueError: no such dtype."""
    if native := _NATIVE.get(dtype):
        return BITS[native] // 8
    if size := _BYTES_OF_OTHERS.get(dtype):
        return size
    if _DATETIME.fullmatch(dtype):
        return 8
    if _TEXT.fullmatch(dtype) or _BIG_ENDIAN.fullmatch(dtype):
        return np.dtype(dtype).itemsize
    raise ValueError(f"no element type is called {dtype!r}")


def as_numpy(host: HostTensor) -> npt.NDArray[Any]:
    """A numpy array over the same bytes, without a copy; writable only if they are.

    bfloat16 and the float8 types have their ml_dtypes type if that package can be imported, else uint16 and uint8 with
    the same bits. Types of less than a byte (``F4``, ``F6_*``) come as their packed bytes, flat.
    """
    element = _ELEMENT_OF.get(host.dtype)
    return host.data if element is None else host.data.view(_element(element)).reshape(host.shape)


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
        """Copy the bytes to ``out``, of exactly ``nbytes``; from a GPU if need be."""
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
        """Copy the elements' bytes in C order to ``out``."""

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        """Copy the elements' bytes of all of them to ``out``, one after the other, if that can be done at once."""

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        """The elements' bytes in C order, if they are among those in ``steady``, and changes are counted."""

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        """The memory from address ``start`` to ``stop`` around ``array``, as bytes; None if it isn't one block."""

    def allocate(self, nbytes: int) -> Bytes:
        """Fresh memory to make tensors in."""

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        """The tensor over ``data`` whose first element lies at ``offset``; ``strides`` in bytes."""


def library_of(value: Any) -> Library | None:
    """The library that the type of ``value`` comes from, or inherits a tensor from."""
    kind: type = type(value)
    return _library_of(kind)


@functools.lru_cache(1024)
def _library_of(kind: type) -> Library | None:
    for base in kind.__mro__[:-1]:
        library = _BY_MODULE.get(str(base.__module__).partition(".")[0])
        if library is not None:
            return library
    return None


def library_named(name: str) -> Library:
    """The library called ``name``; numpy in its place if it can't be imported. KeyError: no such library."""
    library = _BY_NAME[name]
    try:
        importlib.import_module(name)
    except ImportError:
        return NUMPY
    return library


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


class _Block:
    """``nbytes`` at ``address`` for numpy to look at; keeps alive whoever owns them."""

    def __init__(self, address: int, nbytes: int, owner: object, *, readonly: bool) -> None:
        self.__array_interface__ = {"data": (address, readonly), "shape": (nbytes,), "typestr": "|u1", "version": 3}
        self.owner = owner


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


# The libraries --------------------------------------------------------------------------------------------------------


class _Numpy:
    name = "numpy"

    def look(self, value: Any) -> Leaf:
        if type(value) is not np.ndarray and type(value) is not np.memmap:
            raise RefusedError(f"{_type_name(value)} is a kind of numpy array whose extra state would be lost")
        dtype = numpy_name(value.dtype)
        shape, strides = value.shape, value.strides
        if value.size == 0 or dtype.startswith(">"):  # a swapped copy is stored of these: nothing to share
            return Leaf(self, value, dtype, shape)
        first = _address(value)
        low, high = extent(shape, strides, value.itemsize)
        memory = Memory("numpy", first + low, first + high, first)
        return Leaf(self, value, dtype, shape, strides, memory, memory_order(shape, strides, value.itemsize))

    def fetch(self, array: Any) -> tuple[Bytes, bool]:
        flat = np.ascontiguousarray(array, _little(array.dtype))
        return flat.reshape(-1).view(np.uint8), not np.may_share_memory(flat, array)

    def copy_into(self, array: Any, out: Bytes) -> None:
        out.view(_little(array.dtype)).reshape(array.shape)[...] = array

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        return False

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        live = steady.get(_address(array)) if array.flags.c_contiguous else None
        if live is None or live.nbytes != array.nbytes:
            return None
        return Lent(array.reshape(-1).view(np.uint8), _changes_of(live))

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        return np.asarray(_Block(start, stop - start, array, readonly=True))

    def allocate(self, nbytes: int) -> Bytes:
        return fresh(nbytes)[:nbytes] if nbytes >= LARGE else np.empty(nbytes, np.uint8)

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        if _BIG_ENDIAN.fullmatch(dtype):
            return np.ndarray(shape, np.dtype(dtype).newbyteorder("<"), data, offset, strides).astype(dtype)
        return np.ndarray(shape, _element(dtype), data, offset, strides)


class _Torch:
    name = "torch"

    def look(self, value: Any) -> Leaf:
        torch = sys.modules["torch"]
        if type(value) is not torch.Tensor and type(value) is not torch.nn.Parameter:
            raise RefusedError(_subclass(value, torch.Tensor))
        if value.layout is not torch.strided or value.is_nested or value.is_quantized or value.device.type == "meta":
            kind = "quantized" if value.is_quantized else "nested" if value.is_nested else value.layout
            raise RefusedError(f"a torch tensor without plain elements ({kind}, on {value.device})")
        dtype = _torch_name(value.dtype)
        if dtype not in _NATIVE and dtype not in _BYTES_OF_OTHERS:
            raise RefusedError(f"a torch tensor of {value.dtype}")
        size = value.element_size()
        extra = {"requires_grad": True} if value.requires_grad and value.is_leaf else None
        plain = value.detach()
        shape = tuple(plain.shape)
        if plain.is_conj() or plain.is_neg():
            return Leaf(self, plain.resolve_conj().resolve_neg(), dtype, shape, extra=extra)
        if plain.numel() == 0:
            return Leaf(self, plain, dtype, shape, extra=extra)
        strides = tuple([size * step for step in plain.stride()])
        first = plain.data_ptr()
        if plain.is_contiguous():
            reach, order = plain.nbytes, None
        else:
            reach, order = extent(shape, strides, size)[1], memory_order(shape, strides, size)
        return Leaf(self, plain, dtype, shape, strides, Memory(plain.device, first, first + reach, first), order, extra)

    def fetch(self, array: Any) -> tuple[Bytes, bool]:
        torch = sys.modules["torch"]
        lent = array.device.type == "cpu" and array.is_contiguous()
        ints = _as_integers(array)
        flat = ints if lent else torch.empty(ints.shape, dtype=ints.dtype, device="cpu").copy_(ints)
        # not reshape(-1): a single element may come with any stride, which view() wouldn't have
        return flat.as_strided((flat.numel(),), (1,)).view(torch.uint8).numpy(), not lent

    def copy_into(self, array: Any, out: Bytes) -> None:
        ints = _as_integers(array)
        sys.modules["torch"].from_numpy(out).view(ints.dtype).view(ints.shape).copy_(ints)

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        torch = sys.modules["torch"]
        if len({array.element_size() for array in arrays}) > 1 or any(not array.is_cpu for array in arrays):
            return False
        flat = [_as_integers(array).reshape(-1) for array in arrays]
        torch.cat(flat, out=torch.from_numpy(out).view(flat[0].dtype))
        return True

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        live = steady.get(array.data_ptr()) if array.device.type == "cpu" and array.is_contiguous() else None
        if live is None or live.nbytes != array.nbytes:
            return None
        # Not by numpy(), which forbids a storage to be resized for ever. The alias keeps the memory, whatever the live
        # tensor is given instead.
        return Lent(np.asarray(_Block(array.data_ptr(), array.nbytes, array, readonly=True)), _changes_of(live))

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        torch = sys.modules["torch"]
        storage = array.untyped_storage()
        base = storage.data_ptr()
        if start < base or stop > base + storage.nbytes():
            return None
        return torch.empty(0, dtype=torch.uint8, device=array.device).set_(storage, start - base, (stop - start,), (1,))

    def allocate(self, nbytes: int) -> Bytes:
        torch = sys.modules["torch"]
        if nbytes >= LARGE:
            return fresh(nbytes)[:nbytes]
        # torch's own allocator aligns to 64 bytes, as it did in the live run: some kernels' results depend on it
        memory: Bytes = torch.empty(nbytes, dtype=torch.uint8, device="cpu").numpy()
        return memory

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        torch = sys.modules["torch"]
        element = getattr(torch, dtype, None)
        if not isinstance(element, torch.dtype):
            raise ConfigurationError(
                f"the state holds torch tensors of {dtype}, which torch {torch.__version__} doesn't have"
            )
        size = itemsize(dtype)
        if offset % size or any(stride % size or stride < 0 for stride in strides):
            raise ValueError(f"torch can't have strides {strides} and offset {offset} over elements of {size} bytes")
        if 0 in shape:
            return torch.empty(0, dtype=torch.uint8, device="cpu").view(element).reshape(shape)
        data = data[offset:]
        data = data[: data.nbytes // size * size]
        if not data.flags.writeable:  # torch warns of memory it must not write to; whoever asked for no copy knows
            data = np.asarray(_Block(_address(data), data.nbytes, data, readonly=False))
        return torch.from_numpy(data).view(element).as_strided(shape, [stride // size for stride in strides])


class _Tensorflow:
    name = "tensorflow"

    def look(self, value: Any) -> Leaf:
        tensorflow = sys.modules["tensorflow"]
        if not isinstance(value, tensorflow.Tensor | tensorflow.Variable):
            raise RefusedError(f"{_type_name(value)} is no tf.Tensor")
        if isinstance(value, tensorflow.Variable):
            value = value.read_value()
        if not hasattr(value, "numpy"):
            raise RefusedError("a symbolic tf.Tensor, which has no value yet")
        if value.dtype.name not in _NATIVE and value.dtype.name not in _BYTES_OF_OTHERS:
            raise RefusedError(f"a tf.Tensor of {value.dtype.name}")
        return Leaf(self, value, value.dtype.name, tuple(value.shape))

    def fetch(self, array: Any) -> tuple[Bytes, bool]:
        return NUMPY.fetch(np.asarray(array.numpy()))[0], True  # .numpy() is a copy already

    def copy_into(self, array: Any, out: Bytes) -> None:
        out[:] = self.fetch(array)[0]

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        return False

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        return None

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        return None

    def allocate(self, nbytes: int) -> Bytes:
        return NUMPY.allocate(nbytes)

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        tensorflow = sys.modules["tensorflow"]
        return tensorflow.constant(NUMPY.make(data, dtype, shape, strides, offset), tensorflow.as_dtype(dtype))


class _Jax:
    name = "jax"

    def look(self, value: Any) -> Leaf:
        jax = sys.modules["jax"]
        if not isinstance(value, jax.Array) or isinstance(value, jax.core.Tracer):
            raise RefusedError(f"{_type_name(value)} is no concrete jax.Array")
        if value.is_deleted():
            raise RefusedError("a jax.Array that was deleted or donated")
        if not value.is_fully_addressable:
            raise RefusedError("a jax.Array of which this process holds only a part")
        extra = None
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            extra = {"key": str(jax.random.key_impl(value))}
            value = jax.random.key_data(value)
        return Leaf(self, value, numpy_name(value.dtype), tuple(value.shape), extra=extra)

    def fetch(self, array: Any) -> tuple[Bytes, bool]:
        return NUMPY.fetch(np.asarray(array))[0], False

    def copy_into(self, array: Any, out: Bytes) -> None:
        NUMPY.copy_into(np.asarray(array), out)

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        return False

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        return None

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        return None

    def allocate(self, nbytes: int) -> Bytes:
        return NUMPY.allocate(nbytes)

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        jax = sys.modules["jax"]
        array = NUMPY.make(data, dtype, shape, strides, offset)
        if jax.dtypes.canonicalize_dtype(array.dtype) != array.dtype:
            raise ConfigurationError(
                f"the state holds jax arrays of {dtype}: set jax_enable_x64 as the run that saved it did"
            )
        return jax.numpy.array(array)


NUMPY = _Numpy()
_BY_NAME: dict[str, Library] = {"torch": _Torch(), "numpy": NUMPY, "tensorflow": _Tensorflow(), "jax": _Jax()}
_BY_MODULE: dict[str, Library] = {**_BY_NAME, "jaxlib": _BY_NAME["jax"]}


def finish(library: Library, tensor: Any, extra: dict[str, Any]) -> Any:
    """What ``Leaf.extra`` asks for, done to a tensor that was just made."""
    if library.name == "torch" and extra.get("requires_grad"):
        return tensor.requires_grad_()
    if library.name == "jax" and "key" in extra:
        return sys.modules["jax"].random.wrap_key_data(tensor, impl=extra["key"])
    return tensor


def permuted(data: Bytes, shape: tuple[int, ...], order: tuple[int, ...], size: int, out: Bytes) -> Bytes:
    """``out``, filled with the elements of ``data`` (C order, each of ``size`` bytes) in the memory order ``order``."""
    element = np.dtype(f"V{size}")
    target = np.ndarray([shape[axis] for axis in order], element, out)
    target[...] = np.ndarray(shape, element, data).transpose(order)
    return out


def numpy_name(dtype: np.dtype[Any]) -> str:
    """The name under which a numpy dtype is stored. ``RefusedError``: objects, records, platform-bound types."""
    if dtype.char in "gG":
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


def _element(name: str) -> np.dtype[Any]:
    """The numpy dtype stored as ``name``, or one with its bits: an unsigned integer of 1 or 2 bytes, else a void."""
    try:
        return numpy_dtype(name)
    except ConfigurationError:
        size = itemsize(name)
        return np.dtype({1: np.uint8, 2: np.uint16}.get(size, f"V{size}"))


def _changes_of(live: Any) -> Callable[[], object]:
    """How often torch has changed a tensor (``_version``, since torch 0.4), and where it is."""
    return lambda: (live._version, live.data_ptr())


@functools.cache
def _torch_name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _as_integers(array: Any) -> Any:
    """The same bits as integers, which every kernel copies untouched, whatever the element type."""
    torch, size = sys.modules["torch"], array.element_size()
    if size == 16:
        return torch.view_as_real(array).view(torch.int64)
    return array.view(_integers()[size])


@functools.cache
def _integers() -> dict[int, Any]:
    """torch's integers by their size."""
    torch = sys.modules["torch"]
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _little(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype as which an array is stored: numbers little-endian, text as it is."""
    return dtype if dtype.isnative or dtype.kind in "US" else dtype.newbyteorder("<")


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _subclass(value: object, tensor: type) -> str:
    if isinstance(value, tensor):
        return f"{_type_name(value)}, a subclass of torch.Tensor with a state of its own"
    return _type_name(value)
