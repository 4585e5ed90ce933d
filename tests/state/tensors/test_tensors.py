"""Tensors of torch and numpy: every element type, every layout, bit for bit."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from ckpt_callbacks.errors import ConfigurationError, UnstorableError
from ckpt_callbacks.state import HostTensor, as_numpy, decode, encode, open_file, plan
from tests.state.trees import bits, through_file, through_memory, write

QUANTIZED = (torch.qint8, torch.quint8, torch.qint32, torch.quint4x2, torch.quint2x4)
TORCH_DTYPES = sorted(
    {value for value in vars(torch).values() if isinstance(value, torch.dtype) and value not in QUANTIZED}, key=str
)
NUMPY_DTYPES = [
    *"?bBhHiIlLqQefdFD",
    *("<U3", ">U3", "S5", "M8[ns]", "m8", "M8[D]", ">f4", ">c16", ">i8", ">M8[s]"),
    *(
        getattr(ml_dtypes, name)
        for name in ("bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e3m4", "int4", "uint2")
    ),
]


def random_bytes(n: int) -> np.ndarray[Any, Any]:
    """Bytes that make NaNs with payloads, denormals and infinities in every float format sooner or later."""
    return np.random.default_rng(n).integers(0, 256, n, np.uint8)


def torch_bits(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """A tensor of random bits."""
    size = torch.empty(shape, dtype=torch.uint8).numel() * dtype.itemsize
    data = random_bytes(size) & 1 if dtype is torch.bool else random_bytes(size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # complex32 is experimental, says torch
        flat = torch.empty(size // dtype.itemsize, dtype=dtype)
    if size:
        encoded = encode(flat)
        encoded.tensors["(root)"].data[:] = data
        flat = decode(encoded.structure, encoded.tensors)
    return flat.reshape(shape)


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 3, 2)], ids=str)
def test_every_torch_dtype(dtype: torch.dtype, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Scalars, empty tensors and others, through a file."""
    tensor = torch_bits(dtype, *shape)
    assert bits(through_file({"t": tensor}, tmp_path)["t"]) == bits(tensor)


@pytest.mark.parametrize("dtype", TORCH_DTYPES, ids=str)
def test_every_torch_dtype_in_any_layout(dtype: torch.dtype) -> None:
    """Strided ones become contiguous; values are copied as bits, also where torch has no arithmetic for them."""
    rows, columns = slice(1, None, 2), slice(None, None, 2)
    tensor = torch_bits(dtype, 4, 6)
    expected = encode(tensor).tensors["(root)"].data.reshape(4, 6, -1).swapaxes(0, 1)[rows, columns]
    restored = encode(through_memory(tensor.t()[rows, columns])).tensors["(root)"]
    assert restored.data.tobytes() == expected.tobytes()


@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 3, 2)], ids=str)
def test_every_numpy_dtype(dtype: Any, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Byte order, text and times included."""
    dtype = np.dtype(dtype)
    count = int(np.prod(shape))
    if dtype.kind in "US?" or dtype.name in ("int4", "uint2"):
        array = np.array([b"a\0b", b"1", b""] * 8)[:count].astype(dtype) if dtype.kind == "S" else np.ones(count, dtype)
    else:
        array = random_bytes(count * dtype.itemsize).view(dtype)
    array = array.reshape(shape)
    restored = through_file({"a": array, "b": [array[..., ::-1]] if shape else None}, tmp_path)
    assert bits(restored["a"]) == bits(array)
    assert not shape or bits(restored["b"][0]) == bits(array[..., ::-1])


@given(arrays_of.arrays(arrays_of.scalar_dtypes(), arrays_of.array_shapes(min_dims=0, min_side=0)))
def test_any_numpy_array(array: np.ndarray[Any, Any]) -> None:
    """Hypothesis's own idea of arrays."""
    try:
        encoded = encode(array)
    except UnstorableError:
        assert array.dtype.char in "gG" or array.dtype.itemsize == 0
        return
    assert bits(decode(encoded.structure, encoded.tensors)) == bits(array)


def test_dense_layouts_are_kept() -> None:
    """Channels-last and Fortran order, by which kernels may round, are kept; the file stays in C order."""
    images = torch.arange(120.0).reshape(2, 3, 4, 5)
    tree = {"last": images.to(memory_format=torch.channels_last), "fortran": np.asfortranarray(images.numpy())}
    encoded = encode(tree)
    assert all((as_numpy(host) == images.numpy()).all() for host in encoded.tensors.values())
    restored = decode(encoded.structure, encoded.tensors)
    assert restored["last"].stride() == tree["last"].stride()
    assert restored["fortran"].strides == tree["fortran"].strides
    assert bits(restored) == bits(tree)


@given(st.permutations(range(4)), st.lists(st.integers(0, 3), min_size=4, max_size=4))
def test_any_order_of_axes(axes: list[int], shape: list[int]) -> None:
    """Any permuted dense tensor keeps its strides where they mean something."""
    tensor = torch.arange(int(np.prod(shape))).reshape(shape).permute(axes)
    restored = through_memory(tensor)
    assert torch.equal(restored, tensor)
    wide = [axis for axis in range(4) if tensor.shape[axis] > 1]
    assert tensor.numel() == 0 or [restored.stride(axis) for axis in wide] == [tensor.stride(axis) for axis in wide]


def test_parameters_and_gradients() -> None:
    """A parameter comes back as a tensor that wants a gradient; a result of a computation as a plain one."""
    weight = torch.nn.Parameter(torch.ones(2))
    restored = through_memory({"weight": weight, "loss": (weight * 2).sum(), "buffer": torch.nn.Buffer(torch.ones(1))})
    assert type(restored["weight"]) is torch.Tensor
    assert [tensor.requires_grad for tensor in restored.values()] == [True, False, False]


def test_lazy_conjugates_are_resolved() -> None:
    """torch conjugates by a flag; the file has no flags."""
    tensor = torch.tensor([1 + 2j])
    assert through_memory(tensor.conj()).tolist() == [1 - 2j]
    assert through_memory(tensor.conj().imag).tolist() == [-2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.nested.nested_tensor([torch.ones(1), torch.ones(2)]),
        lambda: torch.ones(2).to_sparse(),
        lambda: torch.ones(2).as_subclass(type("Mine", (torch.Tensor,), {})),
        lambda: torch.nn.UninitializedParameter(),
    ],
    ids=["quantized", "nested", "sparse", "subclass", "uninitialized"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_more_than_elements_are_refused(make: Any) -> None:
    """With their path."""
    with pytest.raises(UnstorableError, match=r"a\.b: "):
        encode({"a": {"b": make()}})


def test_a_copy_is_safe_from_training_and_a_loan_is_not() -> None:
    """``copy=True`` owns the bytes. ``copy=False`` costs nothing, and sees what is written later."""
    tree = {"torch": torch.zeros(3), "numpy": np.zeros(3)}
    owned, borrowed = encode(tree), encode(tree, copy=False)
    for value in tree.values():
        value += 1
    assert [as_numpy(host).tolist() for host in owned.tensors.values()] == [[0, 0, 0]] * 2
    assert [as_numpy(host).tolist() for host in borrowed.tensors.values()] == [[1, 1, 1]] * 2


def test_restored_tensors_are_writable_and_their_own(tmp_path: Path) -> None:
    """They don't alias the read-only map of the file, unless asked to."""
    path = write(tmp_path / "f", encode({"a": torch.zeros(3)}).tensors)
    structure = encode({"a": torch.zeros(3), "b": torch.zeros(3)}).structure["a"]
    decode(structure, open_file(path)).add_(1)
    assert as_numpy(open_file(path)["a"]).tolist() == [0, 0, 0]
    private = open_file(path, writable=True)
    decode(structure, private, copy=False).add_(1)
    assert as_numpy(private["a"]).tolist() == [1, 1, 1]
    assert as_numpy(open_file(path)["a"]).tolist() == [0, 0, 0]


@pytest.mark.filterwarnings("error")
def test_a_tensor_may_look_straight_into_the_file(tmp_path: Path) -> None:
    """``copy=False``: no byte is moved, and torch has nothing to warn of."""
    encoded = encode({"a": torch.arange(3.0), "b": np.arange(3)})
    restored = decode(encoded.structure, open_file(write(tmp_path / "f", encoded.tensors)), copy=False)
    assert restored["a"].tolist() == [0, 1, 2]
    assert not restored["b"].flags.writeable


def test_restored_torch_memory_is_aligned_as_torch_aligns_it() -> None:
    """Some kernels choose their path, and so their rounding, by alignment."""
    assert through_memory({str(n): torch.ones(n) for n in range(1, 20)})["7"].data_ptr() % 64 == 0


@pytest.mark.parametrize("device", ["meta", "cpu"])
def test_the_default_device_does_not_matter(device: str) -> None:
    """A model may be built under ``torch.device(...)``; its state is read and made on the CPU all the same."""
    tree = [torch.arange(6.0).reshape(2, 3).t()[1:], torch.empty(0, 2)]
    with torch.device(device):
        restored = through_memory(tree)
    assert bits(restored) == bits([tensor.contiguous() for tensor in tree])


def test_a_plan_copies_straight_to_where_the_bytes_belong() -> None:
    """Sources know their place before a byte moves: what an arena that is the file's image needs."""
    tree = {
        "a": torch.arange(6.0).reshape(2, 3).t(),
        "b": np.arange(3, dtype=">i2"),
        "c": torch.empty(0),
        "d": np.ones(3)[::2],
    }
    settled = plan(tree)
    hosts = {}
    for name, source in settled.sources.items():
        out = np.empty(source.nbytes, np.uint8)
        source.copy_into(out)
        hosts[name] = HostTensor(source.dtype, source.shape, out)
    assert bits(decode(settled.structure, hosts)) == bits(through_memory(tree))


def test_a_host_tensor_checks_itself() -> None:
    """Bytes that don't make up the shape are a mistake of the caller's."""
    with pytest.raises(ValueError, match="can't have"):
        HostTensor("F32", (2,), np.zeros(4, np.uint8))
    with pytest.raises(ValueError, match="flat contiguous"):
        HostTensor("F32", (1,), np.zeros((2, 2), np.uint8))


@pytest.mark.parametrize(
    ("dtype", "stands_in"),
    [
        ("float32", "float32"),
        ("bfloat16", "bfloat16"),
        ("complex128", "complex128"),
        ("bits16", "uint16"),
        ("int3", "uint8"),
    ],
)
def test_without_torch_numpy_stands_in(dtype: str, stands_in: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A state can be looked at where its library isn't installed: values where numpy has the type, bits where not."""
    tensor = torch_bits(getattr(torch, dtype), 3)
    encoded = encode({"t": tensor, "d": torch.float32, "s": torch.Size([1]), "v": torch.device("cpu")})
    monkeypatch.setitem(sys.modules, "torch", None)
    restored = decode(encoded.structure, encoded.tensors)
    assert restored["t"].dtype.name == stands_in
    assert restored["t"].tobytes() == encoded.tensors["t"].data.tobytes()
    assert (restored["d"], restored["s"], restored["v"]) == ("float32", (1,), "cpu")


def test_without_ml_dtypes_bfloat16_is_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """As unsigned integers in ``as_numpy``; a numpy array of that type can't be restored, and says why."""
    weights = encode(torch.ones(2, dtype=torch.bfloat16)).tensors["(root)"]
    encoded = encode(np.ones(2, ml_dtypes.bfloat16))
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    monkeypatch.setattr(np, "dtype", lambda name, real=np.dtype: real(name) if name != "bfloat16" else real("nothing"))
    assert as_numpy(weights).tolist() == [0x3F80] * 2
    assert decode(encoded.structure, encoded.tensors).tolist() == [0x3F80] * 2


def test_a_torch_without_the_dtype_says_so() -> None:
    """A type of a newer torch: what is missing is the library, not the data."""
    encoded = encode(torch.zeros(2, dtype=torch.uint8))
    node = {**encoded.structure, "dtype": "float8_e3m4"}
    host = HostTensor("U8", (2, 1), encoded.tensors["(root)"].data)
    with pytest.raises(ConfigurationError, match="float8_e3m4, which torch"):
        decode(node, {"(root)": host})
