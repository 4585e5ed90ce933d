"""Whether the numbers of a file are finite."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import ml_dtypes
import numpy as np
import pytest
import torch

from ckpt_callbacks.state.files.health import PIECE, first_not_finite
from ckpt_callbacks.state.files.packing import Packer
from ckpt_callbacks.state.memory.arena import Arena

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e5m2]


def found(trained: Iterable[str] | None = None, **weights: object) -> str | None:
    """The weight that is not finite, of a staged snapshot; what is live says the same."""
    names = set(weights if trained is None else trained)
    staged = Packer().pack(weights, None).stage(Arena())
    try:
        name = staged.not_finite(names)
    finally:
        staged.release()
    assert name == first_not_finite(weights, names)
    return name


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("place", [0, 1, -1])
def test_one_number_that_is_none_is_found(dtype: torch.dtype, bad: float, place: int) -> None:
    """In every floating-point type, wherever it stands, also where pieces meet."""
    tensor = torch.ones(PIECE + 3).to(dtype)
    assert found(a=torch.ones(3), w=tensor, z=torch.ones(2, dtype=torch.int64)) is None
    values = tensor.float() if dtype is not torch.complex64 else tensor
    values[place] = bad
    assert found(a=torch.ones(3), w=values.to(dtype)) == "w"


def test_large_numbers_are_finite() -> None:
    """Their sum is not."""
    assert found(w=torch.full((1000,), 3e38)) is None
    assert found(w=np.full(1000, 6e4, np.float16)) is None
    assert found(w=np.full(1000, 3e38, ml_dtypes.bfloat16)) is None


def test_whole_numbers_truth_values_and_nothing_are_finite() -> None:
    """There is nothing to look at."""
    assert found(i=torch.arange(5), b=torch.tensor([True]), e=torch.zeros(0), s=torch.tensor(1.0)) is None


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("place", [0, 1, -1])
def test_an_infinity_may_be_meant_where_nothing_is_trained(dtype: torch.dtype, place: int) -> None:
    """A mask is made of them. NaN is found beside it, and none is meant anywhere."""
    mask = torch.zeros(PIECE + 3).to(dtype)
    mask[place] = -math.inf
    mask[5], mask[6] = math.inf, -math.inf
    assert found(trained=("w",), mask=mask, w=torch.ones(3)) is None
    assert found(trained=("mask",), mask=mask, w=torch.ones(3)) == "mask"
    mask[7] = math.nan
    assert found(trained=("w",), mask=mask, w=torch.ones(3)) == "mask"


def test_the_one_of_many_small_ones_is_found() -> None:
    """Those of one type lie side by side, and are looked at as one."""
    many = {f"t{number:03}": torch.ones(3) for number in range(100)}
    many["t050"] = torch.tensor([1.0, math.inf, -math.inf])
    assert found(trained=(), **many) is None
    many["t070"] = torch.tensor([1.0, math.nan, 1.0])
    assert found(trained=(), **many) == "t070"
    assert found(**many) == "t050"


@pytest.mark.parametrize(
    "dtype", ["float8_e4m3fn", "float8_e5m2", "float8_e8m0fnu", "float8_e4m3fnuz", "float8_e5m2fnuz"]
)
def test_every_number_of_a_byte(dtype: str) -> None:
    """As the library that knows these types says."""
    for code in range(256):
        codes = np.array([0x30, code, 0x30], np.uint8)
        one, number = torch.from_numpy(codes).view(getattr(torch, dtype)), float(codes.view(dtype)[1])
        assert (found(w=one) is None) == math.isfinite(number), hex(code)
        assert (found(trained=(), w=one) is None) == (not math.isnan(number)), hex(code)


@pytest.mark.parametrize(
    "odd",
    [
        lambda: torch.zeros(4, dtype=torch.complex32),
        lambda: torch.zeros(4, dtype=torch.complex128),
        lambda: torch.ones(3).to(torch.float8_e4m3fn),
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    ],
    ids=["complex32", "complex128", "float8", "sparse", "quantized"],
)
@pytest.mark.filterwarnings("ignore:.*(quantized|ComplexHalf)")
def test_what_torch_cannot_add_up_or_nobody_can_store_hides_nothing(odd: Callable[[], torch.Tensor]) -> None:
    """The others are looked at all the same."""
    for value, name in ((1.0, None), (math.nan, "w")):
        weights = {"odd": odd(), "w": torch.full((3,), value)}
        assert first_not_finite(weights, {"w"}) == name
