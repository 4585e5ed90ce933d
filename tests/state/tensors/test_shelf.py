"""Tensors that share memory are stored once, and share it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ckpt_callbacks.state import encode
from tests.state.trees import bits, through_file, through_memory

pytestmark = pytest.mark.filterwarnings("error")


def arange(library: str, n: int) -> Any:
    """The numbers below ``n`` as float32."""
    return torch.arange(n, dtype=torch.float32) if library == "torch" else np.arange(n, dtype=np.float32)


both = pytest.mark.parametrize("library", ["torch", "numpy"])


@both
def test_tied_tensors_are_stored_once(library: str) -> None:
    """The same object, or another one over the same elements: one copy in the file, one in memory afterwards."""
    tensor = arange(library, 6)
    encoded = encode({"a": tensor, "b": tensor, "c": tensor[:]})
    assert list(encoded.tensors) == ["a"]
    restored = through_memory({"a": tensor, "b": tensor, "c": tensor[:]})
    restored["a"][0] = 99
    assert restored["b"][0] == restored["c"][0] == 99


@both
def test_overlapping_views_share_memory_again(library: str, tmp_path: Path) -> None:
    """A buffer and a window on it: writing to one shows in the other, as before."""
    base = arange(library, 12).reshape(3, 4)
    tree = {"base": base, "window": base[1:, 1:3], "turned": base.T}
    encoded = encode(tree)
    assert {name: host.shape for name, host in encoded.tensors.items()} == {"base": (12,)}
    restored = through_file(tree, tmp_path)
    assert bits(restored) == bits(tree)
    restored["base"][1, 1] = 99
    assert restored["window"][0, 0] == restored["turned"][1, 1] == 99


@both
def test_neighbours_in_one_buffer_are_stored_apart(library: str) -> None:
    """Slices that share no element need no sharing, and any tool can read them as what they are."""
    base = arange(library, 10)
    assert {name: host.shape for name, host in encode([base[:4], base[4:]]).tensors.items()} == {"0": (4,), "1": (6,)}


@both
def test_small_windows_on_a_huge_buffer_do_not_store_it(library: str) -> None:
    """Only what the views span is stored, and views that use less than half of that are stored apart."""
    base = arange(library, 100_000)
    encoded = encode([base[10:20], base[15:25]])
    assert [host.shape for host in encoded.tensors.values()] == [(15,)]
    table = base.reshape(100, 1000)
    assert [host.shape for host in encode([table[:, 0], table[:, 5]]).tensors.values()] == [(100,), (100,)]


def test_views_can_be_stored_apart() -> None:
    """For weights, which other tools read by name: equal ones are still stored once."""
    base = torch.arange(6.0)
    encoded = encode({"a": base, "b": base[1:], "c": base}, views=False)
    assert {name: host.shape for name, host in encoded.tensors.items()} == {"a": (6,), "b": (5,)}


def test_views_of_different_types() -> None:
    """Numbers and their bits: the block is stored as bytes."""
    base = np.arange(4, dtype=np.float32)
    tree = [base, base.view(np.uint8)[1:]]
    encoded = encode(tree)
    assert [host.dtype for host in encoded.tensors.values()] == ["U8"]
    restored = through_memory(tree)
    assert bits(restored) == bits(tree)
    restored[0][0] = 1.5
    assert restored[1][2] == 0x3F


def test_an_expanded_tensor_is_stored_in_full_unless_it_shares() -> None:
    """Alone it is a tensor like any other; next to its source it is a view."""
    source = torch.tensor([1.0, 2.0])
    assert encode(source.expand(3, 2)).tensors["(root)"].shape == (3, 2)
    restored = through_memory([source, source.expand(3, 2)])
    assert restored[1].stride() == (0, 1)
    assert restored[1].tolist() == [[1, 2]] * 3


def test_torch_and_numpy_over_the_same_memory_are_stored_apart() -> None:
    """Sharing across libraries is not kept."""
    array = np.arange(3.0)
    assert len(encode([array, torch.from_numpy(array)]).tensors) == 2


def test_names_are_paths_and_unique() -> None:
    """A name that could be two paths is told apart; the format's reserved name is avoided."""
    one = torch.ones(1)
    tree = {"a.b": one, "a": {"b": one + 1, 0: [one + 2]}, "__metadata__": one + 3, "\ud800": one + 4}
    names = list(encode(tree).tensors)
    assert names == ["a.b", "a.b~2", "a.0.0", "__metadata__~2", "\\ud800"]
    assert bits(through_memory(tree)) == bits(tree)
    assert list(encode(one).tensors) == ["(root)"]


steps = st.integers(-3, 3).filter(bool)
slices = st.builds(slice, st.none() | st.integers(-7, 7), st.none() | st.integers(-7, 7), steps)


@given(st.lists(st.tuples(slices, slices, st.booleans()), min_size=1, max_size=4))
def test_any_views_of_a_numpy_array(cuts: list[tuple[slice, slice, bool]]) -> None:
    """Negative strides, empty slices, transposes: values come back, and what overlapped in a block still does."""
    base = np.arange(42, dtype=np.int16).reshape(6, 7)
    views = [base[rows, columns].T if turned else base[rows, columns] for rows, columns, turned in cuts]
    restored = through_memory(views)
    assert bits(restored) == bits(views)
    if 2 * len(np.unique(np.concatenate([view.ravel() for view in views]))) >= 42:
        for i, view in enumerate(views):
            for j in range(i):
                assert np.shares_memory(restored[i], restored[j]) == np.shares_memory(view, views[j])
