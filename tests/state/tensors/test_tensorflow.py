"""TensorFlow's tensors and generators. A file of its own: the import takes seconds."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf

from ckpt_callbacks.errors import UnstorableError
from ckpt_callbacks.state import capture, decode, encode, not_captured, restore
from tests.state.trees import bits, through_file, through_memory

DTYPES = [
    *(
        "bool",
        "uint8",
        "int8",
        "uint16",
        "int16",
        "uint32",
        "int32",
        "uint64",
        "int64",
        "float16",
        "bfloat16",
        "float32",
    ),
    *("float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2", "int4", "uint4"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 3)], ids=str)
def test_every_dtype(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Type, shape and bits."""
    numbers = np.random.default_rng(0).integers(0, 2, shape)
    tensor = tf.constant(numbers.astype(tf.as_dtype(dtype).as_numpy_dtype), dtype)
    restored = through_file({"t": tensor}, tmp_path)["t"]
    assert isinstance(restored, tf.Tensor)
    assert restored.dtype == tensor.dtype
    assert bits(restored.numpy()) == bits(tensor.numpy())


def test_not_a_number_keeps_its_payload() -> None:
    """Bits are bits."""
    array = np.array([0x7F800001, 0xFFC12345, 1], np.uint32).view(np.float32)
    assert bits(through_memory(tf.constant(array)).numpy()) == bits(array)


def test_a_variable_is_stored_as_its_value() -> None:
    """And a copy of it is safe from the next assignment."""
    variable = tf.Variable([1.0, 2.0])
    encoded = encode({"v": variable, "again": variable})
    variable.assign_add([1.0, 1.0])
    restored = decode(encoded.structure, encoded.tensors)
    assert list(encoded.tensors) == ["v"]
    assert isinstance(restored["v"], tf.Tensor)
    assert restored["v"].numpy().tolist() == [1, 2]


@pytest.mark.parametrize(
    "make",
    [
        lambda: tf.constant("text"),
        lambda: tf.ragged.constant([[1], [1, 2]]),
        lambda: tf.sparse.eye(2),
        lambda: tf.float32,
    ],
    ids=["string", "ragged", "sparse", "dtype"],
)
def test_what_is_refused(make: Any) -> None:
    """With its path."""
    with pytest.raises(UnstorableError, match=r"a\.0: "):
        encode({"a": [make()]})


def test_symbolic_tensors_have_no_value() -> None:
    """Inside a ``tf.function`` there is nothing to store."""

    @tf.function  # type: ignore[untyped-decorator]
    def traced(x: Any) -> Any:
        with pytest.raises(UnstorableError, match="symbolic"):
            encode(x)
        return x

    traced(tf.ones(1))


def test_without_tensorflow_numpy_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state can be looked at anywhere."""
    encoded = encode(tf.ones(2, tf.bfloat16))
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    assert bits(decode(encoded.structure, encoded.tensors).astype(np.float32)) == bits(np.ones(2, np.float32))


@pytest.fixture
def seeded() -> Iterator[None]:
    """A global seed, taken back afterwards."""
    tf.random.set_seed(1)
    yield
    tf.random.set_seed(None)


@pytest.mark.usefixtures("seeded")
def test_eager_draws_go_on_as_they_would_have() -> None:
    """The seed and the place in its sequence are restored; setting the place alone would not do."""
    tf.random.normal([2])
    state = through_memory(capture())
    expected = [tf.random.normal([2]).numpy().tolist() for _ in range(5)]
    tf.random.set_seed(99)
    tf.random.normal([2])
    assert restore(state) == []
    assert [tf.random.normal([2]).numpy().tolist() for _ in range(5)] == expected


@pytest.mark.usefixtures("seeded")
def test_capturing_draws_nothing() -> None:
    """The same numbers with and without."""
    expected = [tf.random.normal([2]).numpy().tolist() for _ in range(3)]
    tf.random.set_seed(1)
    drawn = []
    for _ in range(3):
        capture()
        drawn.append(tf.random.normal([2]).numpy().tolist())
    assert drawn == expected


def test_unseeded_draws_can_not_be_captured() -> None:
    """They are named, for ``exact=`` to judge."""
    tf.random.set_seed(None)
    assert "set_seed" in not_captured()["tensorflow"]
    assert "seed" not in capture().get("tensorflow", {})
    tf.random.set_seed(1)
    assert not_captured() == {}
    tf.random.set_seed(None)


def test_the_global_generator_is_not_made_by_looking() -> None:
    """It is captured once somebody made it, and restored in place or anew."""
    assert "generator" not in capture().get("tensorflow", {})
    tf.random.set_global_generator(tf.random.Generator.from_seed(5))
    try:
        state = through_memory(capture())
        expected = tf.random.get_global_generator().normal([3]).numpy().tolist()
        live = tf.random.get_global_generator()
        assert restore(state) == []
        assert live.normal([3]).numpy().tolist() == expected
        tf.random.set_global_generator(None)
        assert restore(state) == []
        assert tf.random.get_global_generator().normal([3]).numpy().tolist() == expected
    finally:
        tf.random.set_global_generator(None)
