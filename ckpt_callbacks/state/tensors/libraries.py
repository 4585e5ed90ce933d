"""What this package needs to know of torch, numpy, tensorflow and jax.

One small class for each knows how to look at a tensor, fetch its bytes and make it again, bit for bit. A library is
found by the module that a value's type comes from; none is imported until a tensor of it has to be made.
"""

from __future__ import annotations

import functools
import importlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ckpt_callbacks.errors import ConfigurationError
from ckpt_callbacks.state.memory.copying import Lent, changes_of
from ckpt_callbacks.state.memory.pages import LARGE, Bytes, fresh
from ckpt_callbacks.state.tensors.elements import (
    BIG_ENDIAN,
    BYTES_OF_OTHERS,
    NATIVE,
    RefusedError,
    element_of,
    itemsize,
    little_endian,
    numpy_name,
)
from ckpt_callbacks.state.tensors.tensor import Leaf, Library, Memory, extent, memory_order

__all__ = ["NUMPY", "finish", "is_library", "library_named", "library_of"]


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


def is_library(name: object) -> bool:
    """Whether a library is called so."""
    return name in _BY_NAME


def library_named(name: str) -> Library:
    """The library called ``name``; numpy in its place if it can't be imported. KeyError: no such library."""
    library = _BY_NAME[name]
    try:
        importlib.import_module(name)
    except ImportError:
        return NUMPY
    return library


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
        flat = np.ascontiguousarray(array, little_endian(array.dtype))
        return flat.reshape(-1).view(np.uint8), not np.may_share_memory(flat, array)

    def copy_into(self, array: Any, out: Bytes) -> None:
        out.view(little_endian(array.dtype)).reshape(array.shape)[...] = array

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        return False

    def add_up(self, arrays: Sequence[Any]) -> bool:
        return False

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        live = steady.get(_address(array)) if array.flags.c_contiguous else None
        if live is None or live.nbytes != array.nbytes:
            return None
        return Lent(array.reshape(-1).view(np.uint8), changes_of(live))

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        return np.asarray(_Block(start, stop - start, array, readonly=True))

    def allocate(self, nbytes: int) -> Bytes:
        return fresh(nbytes)[:nbytes] if nbytes >= LARGE else np.empty(nbytes, np.uint8)

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        if BIG_ENDIAN.fullmatch(dtype):
            return np.ndarray(shape, np.dtype(dtype).newbyteorder("<"), data, offset, strides).astype(dtype)
        return np.ndarray(shape, element_of(dtype), data, offset, strides)


class _Torch:
    name = "torch"

    def look(self, value: Any) -> Leaf:
        torch = sys.modules["torch"]
        if type(value) is not torch.Tensor and type(value) is not torch.nn.Parameter:
            raise RefusedError(_subclass(value, torch.Tensor))
        if value.layout is not torch.strided or value.is_nested or value.is_quantized or value.is_meta:
            kind = "quantized" if value.is_quantized else "nested" if value.is_nested else value.layout
            raise RefusedError(f"a torch tensor without plain elements ({kind}, on {value.device})")
        dtype = _torch_name(value.dtype)
        if dtype not in NATIVE and dtype not in BYTES_OF_OTHERS:
            raise RefusedError(f"a torch tensor of {value.dtype}")
        size = value.element_size()
        extra = {"requires_grad": True} if value.requires_grad and value.is_leaf else None
        plain = value.detach()
        shape = tuple(plain.shape)  # a torch.Size would be slower for everyone who takes it apart
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
        # Not by numpy(), which forbids a storage to be resized for ever.
        return np.asarray(_Block(flat.data_ptr(), flat.nbytes, flat, readonly=False)), not lent

    def copy_into(self, array: Any, out: Bytes) -> None:
        ints = _as_integers(array)
        target = sys.modules["torch"].from_numpy(out).view(ints.dtype).view(ints.shape)
        target.copy_(ints, non_blocking=array.is_cuda)

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        torch = sys.modules["torch"]
        if len({(array.element_size(), array.device) for array in arrays}) > 1:
            return False
        flat = [_as_integers(array).ravel() for array in arrays]
        target = torch.from_numpy(out).view(flat[0].dtype)
        if arrays[0].is_cpu:
            torch.cat(flat, out=target)
        else:
            target.copy_(torch.cat(flat), non_blocking=arrays[0].is_cuda)
        return True

    def add_up(self, arrays: Sequence[Any]) -> bool:
        torch = sys.modules["torch"]
        sums: dict[tuple[Any, Any], list[Any]] = {}
        for array in arrays:
            if not array.dtype.is_floating_point and not array.dtype.is_complex:
                continue
            if array.dtype not in _addable():
                return False
            total = array.sum() if array.element_size() > 2 else array.sum(dtype=torch.float32)
            sums.setdefault((total.device, total.dtype), []).append(total)
        return all(bool(torch.stack(some).isfinite().all()) for some in sums.values())  # a device is asked but once

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        live = steady.get(array.data_ptr()) if array.device.type == "cpu" and array.is_contiguous() else None
        if live is None or live.nbytes != array.nbytes:
            return None
        # The alias keeps the memory, whatever the live tensor is given instead.
        return Lent(np.asarray(_Block(array.data_ptr(), array.nbytes, array, readonly=True)), changes_of(live))

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


class _Opaque:
    """A library into whose arrays nobody sees: each is copied alone, and at once."""

    def gather(self, arrays: Sequence[Any], out: Bytes) -> bool:
        return False

    def add_up(self, arrays: Sequence[Any]) -> bool:
        return False

    def lend(self, array: Any, steady: Mapping[int, Any]) -> Lent | None:
        return None

    def join(self, array: Any, start: int, stop: int) -> Any | None:
        return None

    def allocate(self, nbytes: int) -> Bytes:
        return NUMPY.allocate(nbytes)


class _Tensorflow(_Opaque):
    name = "tensorflow"

    def look(self, value: Any) -> Leaf:
        tensorflow = sys.modules["tensorflow"]
        if not isinstance(value, tensorflow.Tensor | tensorflow.Variable):
            raise RefusedError(f"{_type_name(value)} is no tf.Tensor")
        if isinstance(value, tensorflow.Variable):
            value = value.read_value()
        if not hasattr(value, "numpy"):
            raise RefusedError("a symbolic tf.Tensor, which has no value yet")
        if value.dtype.name not in NATIVE and value.dtype.name not in BYTES_OF_OTHERS:
            raise RefusedError(f"a tf.Tensor of {value.dtype.name}")
        return Leaf(self, value, value.dtype.name, tuple(value.shape))

    def fetch(self, array: Any) -> tuple[Bytes, bool]:
        return NUMPY.fetch(np.asarray(array.numpy()))[0], True  # .numpy() is a copy already

    def copy_into(self, array: Any, out: Bytes) -> None:
        out[:] = self.fetch(array)[0]

    def make(self, data: Bytes, dtype: str, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Any:
        tensorflow = sys.modules["tensorflow"]
        return tensorflow.constant(NUMPY.make(data, dtype, shape, strides, offset), tensorflow.as_dtype(dtype))


class _Jax(_Opaque):
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


class _Block:
    """``nbytes`` at ``address`` for numpy to look at; keeps alive whoever owns them."""

    def __init__(self, address: int, nbytes: int, owner: object, *, readonly: bool) -> None:
        self.__array_interface__ = {"data": (address, readonly), "shape": (nbytes,), "typestr": "|u1", "version": 3}
        self.owner = owner


def _address(array: npt.NDArray[Any]) -> int:
    return int(array.__array_interface__["data"][0])


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
def _addable() -> frozenset[Any]:
    """The types of which torch knows sums; it lacks those of the smallest ones, on some devices or all."""
    torch = sys.modules["torch"]
    return frozenset((torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64))


@functools.cache
def _integers() -> dict[int, Any]:
    """torch's integers by their size."""
    torch = sys.modules["torch"]
    return {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def _type_name(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"


def _subclass(value: object, tensor: type) -> str:
    if isinstance(value, tensor):
        return f"{_type_name(value)}, a subclass of torch.Tensor with a state of its own"
    return _type_name(value)
