"""JAX's arrays and keys. A file of its own: the import takes a second."""

from __future__ import annotations

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ckpt_callbacks.errors import ConfigurationError, UnstorableError
from ckpt_callbacks.state import decode, encode
from tests.state.trees import bits, through_file, through_memory

DTYPES = [
    *("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float16", "bfloat16", "float32", "complex64"),
    *("float8_e4m3fn", "float8_e5m2", "float8_e4m3b11fnuz", "float8_e4m3", "float8_e8m0fnu", "int4", "uint2"),
]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0, 3), (4, 3)], ids=str)
def test_every_dtype(dtype: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    """Type, shape and bits."""
    array = jnp.asarray(np.random.default_rng(0).integers(0, 2, shape)).astype(dtype)
    restored = through_file({"a": array, "again": array}, tmp_path)
    assert isinstance(restored["a"], jax.Array)
    assert restored["again"] is restored["a"]
    assert bits(np.asarray(restored["a"])) == bits(np.asarray(array))


@pytest.mark.parametrize("dtype", ["int64", "float64", "complex128"])
def test_wide_types_need_x64_on_both_sides(dtype: str) -> None:
    """JAX would narrow them in silence where it isn't enabled."""
    with jax.enable_x64(True):
        array = jnp.ones(2, dtype)
        assert bits(np.asarray(through_memory(array))) == bits(np.asarray(array))
        encoded = encode(array)
    with pytest.raises(ConfigurationError, match="jax_enable_x64"):
        decode(encoded.structure, encoded.tensors)


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_typed_keys(impl: str) -> None:
    """A key goes on as what it was: the same implementation, the same draws."""
    key = jax.random.split(jax.random.key(3, impl=impl), 2)
    restored = through_memory(key)
    assert restored.dtype == key.dtype
    assert jax.random.normal(restored[1], (3,)).tolist() == jax.random.normal(key[1], (3,)).tolist()


def test_a_copy_survives_donation() -> None:
    """Keras donates the train state to the next step; what was copied before stays."""
    array = jnp.arange(3.0)
    encoded = encode({"a": array})
    array.delete()
    assert decode(encoded.structure, encoded.tensors)["a"].tolist() == [0, 1, 2]
    with pytest.raises(UnstorableError, match=r"a: .*donated"):
        encode({"a": array})


def test_traced_arrays_have_no_value() -> None:
    """Inside ``jit`` there is nothing to store."""

    @jax.jit
    def traced(x: jax.Array) -> jax.Array:
        with pytest.raises(UnstorableError, match="concrete"):
            encode(x)
        return x

    traced(jnp.ones(1))


def test_without_jax_numpy_stands_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """A state can be looked at anywhere; a key is its data."""
    encoded = encode({"a": jnp.arange(3), "k": jax.random.key(1)})
    monkeypatch.setitem(sys.modules, "jax", None)
    restored = decode(encoded.structure, encoded.tensors)
    assert restored["a"].tolist() == [0, 1, 2]
    assert restored["k"].dtype == np.uint32
