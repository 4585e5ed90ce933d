"""Whether the numbers of a file are finite."""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np
import pytest
import torch

from ckpt_callbacks.state.files.health import PIECE
from ckpt_callbacks.state.files.packing import Packer
from ckpt_callbacks.state.memory.arena import Arena

TYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64, torch.float8_e5m2]


def found(**weights: object) -> str | None:
    """The weight that is not finite, of a staged snapshot."""
    staged = Packer().pack(weights, None).stage(Arena())
    try:
        return staged.not_finite(weights.keys())
    finally:
        staged.release()


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
